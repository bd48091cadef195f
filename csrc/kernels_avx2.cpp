// The passes with AVX2: a weight is 2^11 high + low, both of 16 bits, so that
// one instruction multiplies and adds pairs of taps; the sums are exact.
#include <immintrin.h>

#include "strips.h"

namespace llava_video {
namespace {

struct Avx2 {
  using Vector = __m256i;
  using Bytes = __m256i;
  static constexpr int kLanes = 8;
  static constexpr int kWords = 4;
  static constexpr int kLowBits = 11;

  // The sums of one vector: kept apart by the part of the weights.
  struct Sums {
    __m256i high = _mm256_setzero_si256();
    __m256i low = _mm256_set1_epi32(1 << (kPrecisionBits - 1));

    void add(const int32_t* data, __m256i high02, __m256i high13, __m256i low02,
             __m256i low13) {
      const __m256i levels =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data));
      const __m256i taps02 =
          _mm256_and_si256(levels, _mm256_set1_epi32(0x00FF00FF));
      const __m256i taps13 = _mm256_srli_epi16(levels, 8);
      high = _mm256_add_epi32(
          high, _mm256_add_epi32(_mm256_madd_epi16(taps02, high02),
                                 _mm256_madd_epi16(taps13, high13)));
      low = _mm256_add_epi32(
          low, _mm256_add_epi32(_mm256_madd_epi16(taps02, low02),
                                _mm256_madd_epi16(taps13, low13)));
    }

    __m256i rounded() const {
      return _mm256_srai_epi32(
          _mm256_add_epi32(_mm256_slli_epi32(high, kLowBits), low),
          kPrecisionBits);
    }
  };

  static void sums(const int32_t* data, ptrdiff_t step, ptrdiff_t apart,
                   const int32_t* words, int count, Vector (&out)[3]) {
    Sums first, second, third;
    for (int quad = 0; quad < count; ++quad) {
      const __m256i high02 = _mm256_set1_epi32(words[0]);
      const __m256i high13 = _mm256_set1_epi32(words[1]);
      const __m256i low02 = _mm256_set1_epi32(words[2]);
      const __m256i low13 = _mm256_set1_epi32(words[3]);
      first.add(data, high02, high13, low02, low13);
      second.add(data + apart, high02, high13, low02, low13);
      third.add(data + 2 * apart, high02, high13, low02, low13);
      data += step;
      words += kWords;
    }
    out[0] = first.rounded();
    out[1] = second.rounded();
    out[2] = third.rounded();
  }

  static Bytes clipped(Vector a, Vector b, Vector c, Vector d) {
    return _mm256_packus_epi16(_mm256_packs_epi32(a, b),
                               _mm256_packs_epi32(c, d));
  }

  static void store_parts(Bytes bytes, int32_t* out, ptrdiff_t stride) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                     _mm256_castsi256_si128(bytes));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + stride),
                     _mm256_extracti128_si256(bytes, 1));
  }

  static void store_in_order(Bytes bytes, uint8_t* out) {
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out),
                        _mm256_permutevar8x32_epi32(bytes, order));
  }

  static bool pack(const int32_t* weights, int32_t* words) {
    int32_t high[kQuad], low[kQuad];
    for (int tap = 0; tap < kQuad; ++tap) {
      high[tap] = weights[tap] >> kLowBits;
      low[tap] = weights[tap] & ((1 << kLowBits) - 1);
      if (high[tap] != static_cast<int16_t>(high[tap])) return false;
    }
    words[0] = pair(high[0], high[2]);
    words[1] = pair(high[1], high[3]);
    words[2] = pair(low[0], low[2]);
    words[3] = pair(low[1], low[3]);
    return true;
  }

  static int32_t pair(int32_t first, int32_t second) {
    return static_cast<int32_t>(static_cast<uint32_t>(first) & 0xFFFF |
                                static_cast<uint32_t>(second) << 16);
  }

  // Rows i and 4 + i of a quad; of each the four reds, greens, blues.
  static __m256i rows(const uint8_t* first, ptrdiff_t stride_bytes) {
    const __m128i planar =
        _mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1);
    const __m128i upper =
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(first));
    const __m128i lower = _mm_loadu_si128(
        reinterpret_cast<const __m128i*>(first + 4 * stride_bytes));
    return _mm256_shuffle_epi8(_mm256_set_m128i(lower, upper),
                               _mm256_broadcastsi128_si256(planar));
  }

  // As many quads as there are lanes take 96 bytes of each row: one row of the
  // next strip is fetched with each, since a burst of them would be waited for.
  static void fetch(const uint8_t* pixels, ptrdiff_t stride, int quad) {
    const int lane = quad % kLanes;
    const uint8_t* next = pixels + lane * (stride - 12);
    for (int line = 0; line < 2; ++line)
      _mm_prefetch(reinterpret_cast<const char*>(next + 64 * line),
                   _MM_HINT_T1);
  }

  static void quads(const uint8_t* pixels, ptrdiff_t stride, int num_quads,
                    ptrdiff_t next_bytes, int32_t* out) {
    for (int quad = 0; quad < num_quads; ++quad) {
      fetch(pixels + next_bytes, stride, quad);
      const __m256i row0 = rows(pixels, stride);
      const __m256i row1 = rows(pixels + stride, stride);
      const __m256i row2 = rows(pixels + 2 * stride, stride);
      const __m256i row3 = rows(pixels + 3 * stride, stride);
      const __m256i red_green01 = _mm256_unpacklo_epi32(row0, row1);
      const __m256i red_green23 = _mm256_unpacklo_epi32(row2, row3);
      const __m256i blue01 = _mm256_unpackhi_epi32(row0, row1);
      const __m256i blue23 = _mm256_unpackhi_epi32(row2, row3);
      auto* vectors = reinterpret_cast<__m256i*>(out);
      _mm256_storeu_si256(vectors,
                          _mm256_unpacklo_epi64(red_green01, red_green23));
      _mm256_storeu_si256(vectors + 1,
                          _mm256_unpackhi_epi64(red_green01, red_green23));
      _mm256_storeu_si256(vectors + 2, _mm256_unpacklo_epi64(blue01, blue23));
      pixels += 12;
      out += kChannels * kLanes;
    }
  }

  // (u / 255 - mean) / std, each division by the reciprocal and one step of
  // correction, which rounds it as a division does.
  static __m256 formula(const uint8_t* levels, const Normaliser& normaliser) {
    const __m256 u = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(levels))));
    const __m256 unit =
        divided(u, _mm256_set1_ps(255.0f), _mm256_set1_ps(1.0f / 255.0f));
    return divided(_mm256_sub_ps(unit, _mm256_set1_ps(normaliser.mean)),
                   _mm256_set1_ps(normaliser.std),
                   _mm256_set1_ps(normaliser.std_reciprocal));
  }

  static __m256 divided(__m256 a, __m256 b, __m256 reciprocal) {
    const __m256 quotient = _mm256_mul_ps(a, reciprocal);
    return _mm256_fmadd_ps(_mm256_fnmadd_ps(quotient, b, a), reciprocal,
                           quotient);
  }

  static __m128i bfloat16(__m256 numbers) {
    const __m256i bits = _mm256_castps_si256(numbers);
    const __m256i last =
        _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(
        bits, _mm256_add_epi32(last, _mm256_set1_epi32(0x7FFF)));
    const __m256i halves = _mm256_srli_epi32(rounded, 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(halves),
                            _mm256_extracti128_si256(halves, 1));
  }

  static int normalise(const uint8_t* levels, int num_levels, Output output,
                       const Normaliser& normaliser, void* out) {
    const int end = num_levels / kLanes * kLanes;
    for (int at = 0; at < end; at += kLanes) {
      const __m256 numbers = formula(levels + at, normaliser);
      if (output == Output::kFloat32) {
        _mm256_storeu_ps(static_cast<float*>(out) + at, numbers);
        continue;
      }
      const __m128i halves =
          output == Output::kBfloat16
              ? bfloat16(numbers)
              : _mm256_cvtps_ph(numbers, _MM_FROUND_TO_NEAREST_INT);
      _mm_storeu_si128(
          reinterpret_cast<__m128i*>(static_cast<uint16_t*>(out) + at), halves);
    }
    return end;
  }
};

}  // namespace

const Kernels& avx2_kernels() {
  static const Kernels kernels{
      "avx2",       Avx2::kLanes, Avx2::kWords, Avx2::pack,      Avx2::quads,
      across<Avx2>, interleave,   down<Avx2>,   Avx2::normalise,
  };
  return kernels;
}

}  // namespace llava_video
