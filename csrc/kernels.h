// What a set of instructions has to offer: the inner loops of tiling, behind
// one table of functions. A level is a number 0..255; a quad is four levels of
// one channel that stand side by side (across) or one below the other (down),
// in the bytes of a 32-bit word.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace llava_video {

constexpr int kPrecisionBits = 22;  // weights are in units of 2^-22
constexpr int kQuad = 4;
constexpr int kChannels = 3;
// Columns of a row of quads are counted in these, whatever the width of a
// vector: three channels of 16 are whole steps of every kernel.
constexpr int kColumnStep = 16;
constexpr int kMostLanes = 16;
constexpr int kMostWords = 4;
// Kernels write whole vectors: past the end of a row of levels, so many bytes.
constexpr int kSlackBytes = 64;

enum class Output { kFloat32, kBfloat16, kFloat16, kUint8 };

// One resize pass as a kernel reads it; `passes.h` owns the memory.
struct PassView {
  const int32_t* firsts;  // (new) the first quad of each new pixel
  const int32_t* counts;  // (new) how many quads
  const int32_t* words;   // (new, words_per_new) packed weights
  ptrdiff_t words_per_new;
};

// How the levels of one channel are written.
struct Normaliser {
  const void* table = nullptr;  // (256) of the output's type: the definition
  // The same numbers by arithmetic, where that was seen to give the table's.
  bool by_formula = false;
  float mean = 0, std = 1, std_reciprocal = 1;
};

struct Kernels {
  const char* name;
  int lanes;  // rows that one strip has, a multiple of kQuad
  int words;  // 32-bit words that the weights of a quad take

  // Four weights -> their words; false where a weight is too large.
  bool (*pack)(const int32_t* weights, int32_t* words);

  // `lanes` rows of RGB pixels -> (num_quads, channel, lane) quads of columns.
  // Reads 16 bytes of each row for the 12 of a quad, and fetches what is
  // `next_bytes` further on into the second cache.
  void (*quads)(const uint8_t* rows, ptrdiff_t stride_bytes, int num_quads,
                ptrdiff_t next_bytes, int32_t* out);

  // New columns [begin, end), both multiples of four, of a strip -> quads of
  // rows: (lanes / 4) rows of quads, `group_stride` words apart, in each the
  // channels `channel_stride` words apart.
  void (*across)(const int32_t* quads, const PassView& pass, int begin, int end,
                 int32_t* out, ptrdiff_t group_stride,
                 ptrdiff_t channel_stride);

  // Four rows of bytes -> quads of rows.
  void (*interleave)(const uint8_t* const rows[kQuad], int num_bytes,
                     int32_t* out);

  // Rows of quads -> the levels of one new row; `num_columns` counts those of
  // all channels and is a multiple of 3 kColumnStep.
  void (*down)(const int32_t* groups, ptrdiff_t group_stride, int num_groups,
               const int32_t* words, int num_columns, uint8_t* levels);

  // Levels -> numbers by the formula, a multiple of `lanes` of them, which
  // is returned; null where a kernel has no formula.
  int (*normalise)(const uint8_t* levels, int num_levels, Output output,
                   const Normaliser& normaliser, void* out);
};

// The names this processor can run, plain first, fastest last.
std::vector<std::string> instruction_sets();

// The kernels of a name, "auto" for the fastest; throws std::invalid_argument.
const Kernels& kernels_of(const std::string& name);

const Kernels& plain_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();

}  // namespace llava_video
