// Attention with AVX2. Wider vectors would gain nothing: it is memory that a
// token's attention waits for.
#include <immintrin.h>

#include "attend.h"

namespace llava_video {
namespace {

struct Eight {
  using Vector = __m256;
  static constexpr int kLanes = 8;

  static __m256 zero() { return _mm256_setzero_ps(); }
  static __m256 spread(float x) { return _mm256_set1_ps(x); }
  static __m256 load(const float* x) { return _mm256_loadu_ps(x); }
  static void store(float* out, __m256 x) { _mm256_storeu_ps(out, x); }
  static __m256 plus(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
  static __m256 minus(__m256 a, __m256 b) { return _mm256_sub_ps(a, b); }
  static __m256 fma(__m256 a, __m256 b, __m256 c) {
    return _mm256_fmadd_ps(a, b, c);
  }

  // The sum of each of four vectors.
  static void sums(__m256 a, __m256 b, __m256 c, __m256 d, float* out) {
    const __m256 halves =
        _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(halves),
                                  _mm256_extractf128_ps(halves, 1)));
  }

  // e^x of x <= 0, to two units in the last place: x = n ln 2 + r, and e^r by
  // the polynomial of expf in Moshier's Cephes library. Below -87 it is 1e-38.
  static __m256 exp(__m256 x) {
    x = _mm256_max_ps(spread(-87.0f), x);  // in this order no NaN is lost
    const __m256 n = _mm256_round_ps(
        _mm256_mul_ps(x, spread(1.44269504f)),
        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    // ln 2 in two parts, the first of so few bits that its product is exact.
    __m256 r = _mm256_fnmadd_ps(n, spread(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, spread(-2.12194440e-4f), r);
    __m256 sum = spread(1.9875691500e-4f);
    for (const float factor : {1.3981999507e-3f, 8.3334519073e-3f,
                               4.1665795894e-2f, 1.6666665459e-1f,
                               5.0000001201e-1f})
      sum = fma(sum, r, spread(factor));
    sum = plus(fma(sum, _mm256_mul_ps(r, r), r), spread(1.0f));
    const __m256i power = _mm256_slli_epi32(
        _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(sum, _mm256_castsi256_ps(power));
  }
};

}  // namespace

void attend_avx2(const Item& item, const Parts& parts) {
  attend<Eight>(item, parts);
}

}  // namespace llava_video
