#include "decode_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "attend.h"
#include "kernels.h"

namespace llava_video {
namespace {

// Returns the tokens of the longest item.
int checked(const DecodeStep& step) {
  int most = 0;
  for (int row = 0; row < step.num_rows; ++row) {
    const int begin = step.row_items[row], end = step.row_items[row + 1];
    if (begin < 0 || begin > end || end > step.num_items)
      throw std::invalid_argument("row_items are not ascending.");
    for (int idx = begin; idx < end; ++idx) {
      const int32_t* item = step.items + 3 * idx;
      if (item[0] != row || item[1] < 0 || item[1] > item[2] ||
          item[2] > step.num_places) {
        throw std::invalid_argument("item " + std::to_string(idx) +
                                    " leaves its row or the cache.");
      }
      most = std::max(most, item[2] - item[1]);
    }
  }
  return most;
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Joins what two sets of tokens gave; the softmax is over both of them.
void join(const Parts& total, const Parts& part, int num_heads, int head_dim) {
  for (int head = 0; head < num_heads; ++head) {
    const float largest = std::max(total.largest[head], part.largest[head]);
    if (largest == -kInfinity) continue;
    const float ours = std::exp(total.largest[head] - largest);
    const float theirs = std::exp(part.largest[head] - largest);
    total.largest[head] = largest;
    total.weights[head] =
        ours * total.weights[head] + theirs * part.weights[head];
    for (int at = head * head_dim; at < (head + 1) * head_dim; ++at)
      total.sums[at] = ours * total.sums[at] + theirs * part.sums[at];
  }
}

}  // namespace

void decode_attention(const DecodeStep& step, float* out,
                      const std::string& isa) {
  const int most = checked(step);
  const bool is_plain = std::string(kernels_of(isa).name) == "plain";
#ifdef LLAVA_VIDEO_X86
  const auto attend = is_plain ? attend_plain : attend_avx2;
#else
  const auto attend = attend_plain;
  static_cast<void>(is_plain);
#endif
  const int heads = step.num_heads, dim = step.head_dim;
  const size_t width = size_t(heads) * dim;
  std::vector<float> scores(size_t(heads) * most), numbers(width + 4 * heads);
  float* spare = numbers.data() + 4 * heads;
  for (int row = 0; row < step.num_rows; ++row) {
    float* sums = out + row * width;
    std::fill(sums, sums + width, 0.0f);
    const Parts total{scores.data(), numbers.data(), numbers.data() + heads,
                      sums};
    const Parts part{scores.data(), numbers.data() + 2 * heads,
                     numbers.data() + 3 * heads, spare};
    bool is_first = true;
    for (int idx = step.row_items[row]; idx < step.row_items[row + 1]; ++idx) {
      const int32_t* item = step.items + 3 * idx;
      if (item[1] == item[2]) continue;
      const ptrdiff_t place = ptrdiff_t{item[1]} * step.num_kv_heads * dim;
      attend({step.queries + row * width, step.keys + place,
              step.values + place, item[2] - item[1], heads, step.num_kv_heads,
              dim, step.scale},
             is_first ? total : part);
      if (!is_first) join(total, part, heads, dim);
      is_first = false;
    }
    if (is_first) continue;
    for (int head = 0; head < heads; ++head) {
      // Of scores that are all minus infinity there is no softmax.
      const float weight = total.largest[head] == -kInfinity
                               ? std::numeric_limits<float>::quiet_NaN()
                               : total.weights[head];
      for (int at = head * dim; at < (head + 1) * dim; ++at) sums[at] /= weight;
    }
  }
}

}  // namespace llava_video
