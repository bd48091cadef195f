// Attention of the single tokens of a decode step, each over its own places of
// one cache; llava_video/ops/decode_attention.py is the definition.
#pragma once

#include <cstdint>
#include <string>

namespace llava_video {

struct DecodeStep {
  const float* queries;      // (num_rows, num_heads, head_dim)
  const float* keys;         // (num_places, num_kv_heads, head_dim)
  const float* values;       // the same
  const int32_t* items;      // (num_items, 3): row, first place, past the last
  const int32_t* row_items;  // (num_rows + 1): where each row's items begin
  int num_rows;
  int num_heads;
  int num_kv_heads;
  int head_dim;
  int num_places;
  int num_items;
  float scale;
};

// Writes (num_rows, num_heads, head_dim), zeros for a row without tokens.
// Throws std::invalid_argument where an item leaves the cache, or for an
// unknown set of instructions.
void decode_attention(const DecodeStep& step, float* out,
                      const std::string& isa);

}  // namespace llava_video
