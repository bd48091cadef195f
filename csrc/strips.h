// The two resize passes over vectors of an instruction set, for the files that
// are compiled for one. Everything here is in an unnamed namespace and uses no
// template of the standard library: code of two files with different flags must
// never be merged by the linker.
#pragma once

#include "kernels.h"

namespace llava_video {
namespace {

// `Isa` gives: Vector, Bytes, kLanes, kWords;
//   sums(data, step, apart, words, count, Vector (&)[3]): for three vectors of
//     quads `apart` words from one another, the rounded sums over `count` quads
//     that are `step` words apart, not clipped;
//   clipped(a, b, c, d): their levels as bytes, dword i of part k holding lanes
//     4 k .. 4 k + 3 of the i-th;
//   store_parts(bytes, out, stride): part k to out + k stride;
//   store_in_order(bytes, out): all lanes of a, then of b, ...
template <class Isa>
void across(const int32_t* quads, const PassView& pass, int begin, int end,
            int32_t* out, ptrdiff_t group_stride, ptrdiff_t channel_stride) {
  constexpr int kStep = kChannels * Isa::kLanes;
  for (int column = begin; column < end; column += 4) {
    typename Isa::Vector sums[4][kChannels];
    for (int i = 0; i < 4; ++i) {
      Isa::sums(quads + ptrdiff_t{pass.firsts[column + i]} * kStep, kStep,
                Isa::kLanes, pass.words + (column + i) * pass.words_per_new,
                pass.counts[column + i], sums[i]);
    }
    for (int channel = 0; channel < kChannels; ++channel) {
      Isa::store_parts(Isa::clipped(sums[0][channel], sums[1][channel],
                                    sums[2][channel], sums[3][channel]),
                       out + channel * channel_stride + column, group_stride);
    }
  }
}

template <class Isa>
void down(const int32_t* groups, ptrdiff_t group_stride, int num_groups,
          const int32_t* words, int num_columns, uint8_t* levels) {
  for (int column = 0; column < num_columns; column += 3 * Isa::kLanes) {
    typename Isa::Vector sums[3];
    Isa::sums(groups + column, group_stride, Isa::kLanes, words, num_groups,
              sums);
    Isa::store_in_order(Isa::clipped(sums[0], sums[1], sums[2], sums[2]),
                        levels + column);
  }
}

inline int32_t quad(uint8_t first, uint8_t second, uint8_t third,
                    uint8_t fourth) {
  return static_cast<int32_t>(first | second << 8 | third << 16 |
                              static_cast<uint32_t>(fourth) << 24);
}

inline void interleave_from(int begin, const uint8_t* const rows[kQuad],
                            int num_bytes, int32_t* out) {
  for (int i = begin; i < num_bytes; ++i)
    out[i] = quad(rows[0][i], rows[1][i], rows[2][i], rows[3][i]);
}

#ifdef __SSE4_1__
inline void interleave(const uint8_t* const rows[kQuad], int num_bytes,
                       int32_t* out) {
  const int end = num_bytes / 16 * 16;
  for (int i = 0; i < end; i += 16) {
    __m128i row[kQuad];
    for (int n = 0; n < kQuad; ++n)
      row[n] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[n] + i));
    const __m128i left01 = _mm_unpacklo_epi8(row[0], row[1]);
    const __m128i left23 = _mm_unpacklo_epi8(row[2], row[3]);
    const __m128i right01 = _mm_unpackhi_epi8(row[0], row[1]);
    const __m128i right23 = _mm_unpackhi_epi8(row[2], row[3]);
    auto* four = reinterpret_cast<__m128i*>(out + i);
    _mm_storeu_si128(four, _mm_unpacklo_epi16(left01, left23));
    _mm_storeu_si128(four + 1, _mm_unpackhi_epi16(left01, left23));
    _mm_storeu_si128(four + 2, _mm_unpacklo_epi16(right01, right23));
    _mm_storeu_si128(four + 3, _mm_unpackhi_epi16(right01, right23));
  }
  interleave_from(end, rows, num_bytes, out);
}
#else
inline void interleave(const uint8_t* const rows[kQuad], int num_bytes,
                       int32_t* out) {
  interleave_from(0, rows, num_bytes, out);
}
#endif

}  // namespace
}  // namespace llava_video
