// The passes with AVX-512 and VNNI: a weight is 2^16 a + 2^8 b + c of three
// signed bytes, so that one instruction multiplies and adds the four taps of a
// quad in 16 rows; the sums are exact.
#include <immintrin.h>

#include "strips.h"

namespace llava_video {
namespace {

struct Avx512 {
  using Vector = __m512i;
  using Bytes = __m512i;
  static constexpr int kLanes = 16;
  static constexpr int kWords = 3;

  // The sums of one vector: kept apart by the digit of the weights.
  struct Sums {
    __m512i ones = _mm512_set1_epi32(1 << (kPrecisionBits - 1));
    __m512i bytes = _mm512_setzero_si512();
    __m512i pages = _mm512_setzero_si512();

    void add(__m512i levels, __m512i one, __m512i byte, __m512i page) {
      ones = _mm512_dpbusd_epi32(ones, levels, one);
      bytes = _mm512_dpbusd_epi32(bytes, levels, byte);
      pages = _mm512_dpbusd_epi32(pages, levels, page);
    }

    __m512i rounded() const {
      const __m512i upper =
          _mm512_add_epi32(_mm512_slli_epi32(pages, 8), bytes);
      const __m512i total = _mm512_add_epi32(_mm512_slli_epi32(upper, 8), ones);
      return _mm512_srai_epi32(total, kPrecisionBits);
    }
  };

  static void sums(const int32_t* data, ptrdiff_t step, ptrdiff_t apart,
                   const int32_t* words, int count, Vector (&out)[3]) {
    Sums first, second, third;
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC unroll 4
#endif
    for (int quad = 0; quad < count; ++quad) {
      const __m512i one = _mm512_set1_epi32(words[0]);
      const __m512i byte = _mm512_set1_epi32(words[1]);
      const __m512i page = _mm512_set1_epi32(words[2]);
      first.add(_mm512_loadu_si512(data), one, byte, page);
      second.add(_mm512_loadu_si512(data + apart), one, byte, page);
      third.add(_mm512_loadu_si512(data + 2 * apart), one, byte, page);
      data += step;
      words += kWords;
    }
    out[0] = first.rounded();
    out[1] = second.rounded();
    out[2] = third.rounded();
  }

  static Bytes clipped(Vector a, Vector b, Vector c, Vector d) {
    return _mm512_packus_epi16(_mm512_packs_epi32(a, b),
                               _mm512_packs_epi32(c, d));
  }

  static void store_parts(Bytes bytes, int32_t* out, ptrdiff_t stride) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                     _mm512_castsi512_si128(bytes));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + stride),
                     _mm512_extracti32x4_epi32(bytes, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * stride),
                     _mm512_extracti32x4_epi32(bytes, 2));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 3 * stride),
                     _mm512_extracti32x4_epi32(bytes, 3));
  }

  static void store_in_order(Bytes bytes, uint8_t* out) {
    const __m512i order =
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_si512(out, _mm512_permutexvar_epi32(order, bytes));
  }

  static bool pack(const int32_t* weights, int32_t* words) {
    uint32_t packed[kWords] = {0, 0, 0};
    for (int tap = 0; tap < kQuad; ++tap) {
      int32_t rest = weights[tap];
      for (uint32_t& word : packed) {
        const int32_t digit = static_cast<int8_t>(rest & 255);
        word |= (static_cast<uint32_t>(digit) & 255) << (8 * tap);
        rest = (rest - digit) >> 8;
      }
      if (rest != 0) return false;
    }
    for (int i = 0; i < kWords; ++i) words[i] = static_cast<int32_t>(packed[i]);
    return true;
  }

  // Rows i, 4 + i, 8 + i, 12 + i of a quad; of each the four reds, greens,
  // blues.
  static __m512i rows(const uint8_t* first, ptrdiff_t stride_bytes) {
    const __m128i planar =
        _mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1);
    const uint8_t* lower = first + 8 * stride_bytes;
    __m512i four = _mm512_castsi128_si512(load(first));
    four = _mm512_inserti32x4(four, load(first + 4 * stride_bytes), 1);
    four = _mm512_inserti32x4(four, load(lower), 2);
    four = _mm512_inserti32x4(four, load(lower + 4 * stride_bytes), 3);
    return _mm512_shuffle_epi8(four, _mm512_broadcast_i32x4(planar));
  }

  static __m128i load(const uint8_t* bytes) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
  }

  // As many quads as there are lanes take 192 bytes of each row: one row of the
  // next strip is fetched with each, since a burst of them would be waited for.
  static void fetch(const uint8_t* pixels, ptrdiff_t stride, int quad) {
    const int lane = quad % kLanes;
    const uint8_t* next = pixels + lane * (stride - 12);
    for (int line = 0; line < 3; ++line)
      _mm_prefetch(reinterpret_cast<const char*>(next + 64 * line),
                   _MM_HINT_T1);
  }

  static void quads(const uint8_t* pixels, ptrdiff_t stride, int num_quads,
                    ptrdiff_t next_bytes, int32_t* out) {
    for (int quad = 0; quad < num_quads; ++quad) {
      fetch(pixels + next_bytes, stride, quad);
      const __m512i row0 = rows(pixels, stride);
      const __m512i row1 = rows(pixels + stride, stride);
      const __m512i row2 = rows(pixels + 2 * stride, stride);
      const __m512i row3 = rows(pixels + 3 * stride, stride);
      const __m512i red_green01 = _mm512_unpacklo_epi32(row0, row1);
      const __m512i red_green23 = _mm512_unpacklo_epi32(row2, row3);
      const __m512i blue01 = _mm512_unpackhi_epi32(row0, row1);
      const __m512i blue23 = _mm512_unpackhi_epi32(row2, row3);
      _mm512_storeu_si512(out, _mm512_unpacklo_epi64(red_green01, red_green23));
      _mm512_storeu_si512(out + kLanes,
                          _mm512_unpackhi_epi64(red_green01, red_green23));
      _mm512_storeu_si512(out + 2 * kLanes,
                          _mm512_unpacklo_epi64(blue01, blue23));
      pixels += 12;
      out += kChannels * kLanes;
    }
  }

  // (u / 255 - mean) / std, each division by the reciprocal and one step of
  // correction, which rounds it as a division does.
  static __m512 formula(const uint8_t* levels, const Normaliser& normaliser) {
    const __m512 u = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load(levels)));
    const __m512 unit =
        divided(u, _mm512_set1_ps(255.0f), _mm512_set1_ps(1.0f / 255.0f));
    return divided(_mm512_sub_ps(unit, _mm512_set1_ps(normaliser.mean)),
                   _mm512_set1_ps(normaliser.std),
                   _mm512_set1_ps(normaliser.std_reciprocal));
  }

  static __m512 divided(__m512 a, __m512 b, __m512 reciprocal) {
    const __m512 quotient = _mm512_mul_ps(a, reciprocal);
    return _mm512_fmadd_ps(_mm512_fnmadd_ps(quotient, b, a), reciprocal,
                           quotient);
  }

  static __m256i bfloat16(__m512 numbers) {
    const __m512i bits = _mm512_castps_si512(numbers);
    const __m512i last =
        _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(
        bits, _mm512_add_epi32(last, _mm512_set1_epi32(0x7FFF)));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
  }

  static int normalise(const uint8_t* levels, int num_levels, Output output,
                       const Normaliser& normaliser, void* out) {
    const int end = num_levels / kLanes * kLanes;
    for (int at = 0; at < end; at += kLanes) {
      const __m512 numbers = formula(levels + at, normaliser);
      if (output == Output::kFloat32) {
        _mm512_storeu_ps(static_cast<float*>(out) + at, numbers);
        continue;
      }
      const __m256i halves =
          output == Output::kBfloat16
              ? bfloat16(numbers)
              : _mm512_cvtps_ph(numbers, _MM_FROUND_TO_NEAREST_INT);
      _mm256_storeu_si256(
          reinterpret_cast<__m256i*>(static_cast<uint16_t*>(out) + at), halves);
    }
    return end;
  }
};

}  // namespace

const Kernels& avx512_kernels() {
  static const Kernels kernels{
      "avx512",     Avx512::kLanes, Avx512::kWords,
      Avx512::pack, Avx512::quads,  across<Avx512>,
      interleave,   down<Avx512>,   Avx512::normalise,
  };
  return kernels;
}

}  // namespace llava_video
