// Attention of single tokens over a cache: one pass over the keys and one over
// the values, each number read once for all the queries that share it. The
// loops are written once, over a vector `V` of a set of instructions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace llava_video {

// What the queries of one token attend to: neighbouring tokens of a cache.
struct Item {
  const float* queries;  // (num_heads, head_dim)
  const float* keys;     // (num_tokens, num_kv_heads, head_dim)
  const float* values;   // the same
  int num_tokens;
  int num_heads;  // a multiple of num_kv_heads
  int num_kv_heads;
  int head_dim;
  float scale;  // of the scores
};

// The softmax of an item by parts, so that items can be joined: of each head
// the largest score, the sum of e^(score - largest), and the values' sums with
// these weights. `scores` is scratch for num_heads x num_tokens of them.
struct Parts {
  float* scores;
  float* largest;  // (num_heads)
  float* weights;  // (num_heads)
  float* sums;     // (num_heads, head_dim)
};

void attend_plain(const Item& item, const Parts& parts);
void attend_avx2(const Item& item, const Parts& parts);

constexpr int kBlockTokens = 32;  // of one head: they stay in the first cache
constexpr int kVectors = 8;       // of sums that stay in registers

// The scores of one query and the keys of some tokens, `apart` from each other.
template <class V>
void score(const float* query, const float* keys, ptrdiff_t apart,
           int num_tokens, int head_dim, float scale, float* scores) {
  const int whole = head_dim / V::kLanes * V::kLanes;
  for (int token = 0; token < num_tokens; token += 4) {
    const int num = std::min(4, num_tokens - token);
    const float* rows[4];
    for (int i = 0; i < 4; ++i)
      rows[i] = keys + (token + std::min(i, num - 1)) * apart;
    typename V::Vector a = V::zero(), b = a, c = a, d = a;
    for (int at = 0; at < whole; at += V::kLanes) {
      const typename V::Vector part = V::load(query + at);
      a = V::fma(part, V::load(rows[0] + at), a);
      b = V::fma(part, V::load(rows[1] + at), b);
      c = V::fma(part, V::load(rows[2] + at), c);
      d = V::fma(part, V::load(rows[3] + at), d);
    }
    float four[4];
    V::sums(a, b, c, d, four);
    for (int i = 0; i < num; ++i) {
      for (int at = whole; at < head_dim; ++at)
        four[i] += query[at] * rows[i][at];
      scores[token + i] = scale * four[i];
    }
  }
}

// Adds weights times values to `sums`, num_vectors vectors of them at a time.
template <class V, int num_vectors>
void add(const float* weights, const float* values, ptrdiff_t apart,
         int num_tokens, float* sums) {
  typename V::Vector held[num_vectors];
  for (int i = 0; i < num_vectors; ++i) held[i] = V::load(sums + i * V::kLanes);
  for (int token = 0; token < num_tokens; ++token) {
    const typename V::Vector weight = V::spread(weights[token]);
    const float* row = values + token * apart;
    for (int i = 0; i < num_vectors; ++i)
      held[i] = V::fma(weight, V::load(row + i * V::kLanes), held[i]);
  }
  for (int i = 0; i < num_vectors; ++i) V::store(sums + i * V::kLanes, held[i]);
}

template <class V>
void add_head(const float* weights, const float* values, ptrdiff_t apart,
              int num_tokens, int head_dim, float* sums) {
  int at = 0;
  for (; at + kVectors * V::kLanes <= head_dim; at += kVectors * V::kLanes)
    add<V, kVectors>(weights, values + at, apart, num_tokens, sums + at);
  for (; at + V::kLanes <= head_dim; at += V::kLanes)
    add<V, 1>(weights, values + at, apart, num_tokens, sums + at);
  for (; at < head_dim; ++at)
    for (int token = 0; token < num_tokens; ++token)
      sums[at] += weights[token] * values[token * apart + at];
}

// Scores -> weights in their place; returns their sum.
template <class V>
float weigh(float* scores, int num_tokens, float shift) {
  const typename V::Vector all = V::spread(shift);
  typename V::Vector total = V::zero();
  int token = 0;
  for (; token + V::kLanes <= num_tokens; token += V::kLanes) {
    const typename V::Vector weight =
        V::exp(V::minus(V::load(scores + token), all));
    V::store(scores + token, weight);
    total = V::plus(total, weight);
  }
  float four[4];
  V::sums(total, V::zero(), V::zero(), V::zero(), four);
  for (; token < num_tokens; ++token) {
    scores[token] = std::exp(scores[token] - shift);
    four[0] += scores[token];
  }
  return four[0];
}

template <class V>
void attend(const Item& item, const Parts& parts) {
  const int dim = item.head_dim, group = item.num_heads / item.num_kv_heads;
  const ptrdiff_t apart = ptrdiff_t{item.num_kv_heads} * dim;
  const auto by_block = [&](const float* stored, const auto& take) {
    for (int first = 0; first < item.num_tokens; first += kBlockTokens) {
      const int num = std::min(kBlockTokens, item.num_tokens - first);
      for (int head = 0; head < item.num_heads; ++head)
        take(head, first, num, stored + first * apart + head / group * dim);
    }
  };
  by_block(item.keys, [&](int head, int first, int num, const float* keys) {
    score<V>(item.queries + head * dim, keys, apart, num, dim, item.scale,
             parts.scores + ptrdiff_t{head} * item.num_tokens + first);
  });
  for (int head = 0; head < item.num_heads; ++head) {
    float* scores = parts.scores + ptrdiff_t{head} * item.num_tokens;
    const float largest = *std::max_element(scores, scores + item.num_tokens);
    parts.largest[head] = largest;
    // Scores that are all minus infinity weigh nothing beside another item's.
    const float shift = std::isinf(largest) && largest < 0 ? 0.0f : largest;
    parts.weights[head] = weigh<V>(scores, item.num_tokens, shift);
  }
  std::fill(parts.sums, parts.sums + ptrdiff_t{item.num_heads} * dim, 0.0f);
  by_block(item.values, [&](int head, int first, int num, const float* values) {
    add_head<V>(parts.scores + ptrdiff_t{head} * item.num_tokens + first,
                values, apart, num, dim, parts.sums + head * dim);
  });
}

}  // namespace llava_video
