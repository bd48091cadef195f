#include "attend.h"

namespace llava_video {
namespace {

struct Plain {
  using Vector = float;
  static constexpr int kLanes = 1;

  static float zero() { return 0.0f; }
  static float spread(float x) { return x; }
  static float load(const float* x) { return *x; }
  static void store(float* out, float x) { *out = x; }
  static float plus(float a, float b) { return a + b; }
  static float minus(float a, float b) { return a - b; }
  static float fma(float a, float b, float c) { return a * b + c; }
  static float exp(float x) { return std::exp(x); }

  static void sums(float a, float b, float c, float d, float* out) {
    out[0] = a;
    out[1] = b;
    out[2] = c;
    out[3] = d;
  }
};

}  // namespace

void attend_plain(const Item& item, const Parts& parts) {
  attend<Plain>(item, parts);
}

}  // namespace llava_video
