#include "passes.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace llava_video {
namespace {

void check(const Taps& taps, int idx, int num_old) {
  const int start = taps.starts[idx], count = taps.counts[idx];
  // What is used up is dropped by the order of the new pixels.
  const int least = idx == 0 ? 0 : taps.starts[idx - 1];
  if (start < least || count < 1 || count > taps.most ||
      start > num_old - count) {
    throw std::invalid_argument(
        "taps of new pixel " + std::to_string(idx) + ": start " +
        std::to_string(start) + ", count " + std::to_string(count) +
        "; allowed: 1.." + std::to_string(taps.most) + " pixels within " +
        std::to_string(least) + ".." + std::to_string(num_old) + ".");
  }
}

}  // namespace

Pass::Pass(const Taps& taps, int num_old, const Kernels& kernels, bool is_even)
    : num_new_(taps.num_new) {
  const int padded = (num_new_ + kColumnStep - 1) / kColumnStep * kColumnStep;
  firsts_.reserve(padded);
  counts_.reserve(padded);
  for (int idx = 0; idx < num_new_; ++idx) {
    check(taps, idx, num_old);
    const int end = taps.starts[idx] + taps.counts[idx];
    firsts_.push_back(taps.starts[idx] / kQuad);
    counts_.push_back((end - 1) / kQuad + 1 - firsts_[idx]);
    most_ = std::max(most_, counts_[idx]);
  }
  const int num_quads = (num_old + kQuad - 1) / kQuad;
  for (int idx = 0; is_even && idx < num_new_; ++idx) {
    firsts_[idx] = std::min(firsts_[idx], num_quads - most_);
    counts_[idx] = most_;
  }
  firsts_.resize(padded, firsts_.back());
  counts_.resize(padded, 0);
  words_per_new_ = ptrdiff_t{most_} * kernels.words;
  words_.assign(padded * words_per_new_, 0);

  for (int idx = 0; idx < num_new_; ++idx) {
    const int32_t* weights = taps.weights + ptrdiff_t{idx} * taps.most;
    int64_t sum = 0;
    for (int quad = 0; quad < counts_[idx]; ++quad) {
      int32_t four[kQuad];
      for (int tap = 0; tap < kQuad; ++tap) {
        const int place =
            (firsts_[idx] + quad) * kQuad + tap - taps.starts[idx];
        const bool is_tap = 0 <= place && place < taps.counts[idx];
        four[tap] = is_tap ? weights[place] : 0;
        sum += four[tap];
      }
      int32_t* words = words_.data() + idx * words_per_new_;
      if (!kernels.pack(four, words + quad * kernels.words)) {
        throw std::invalid_argument(
            "weights of new pixel " + std::to_string(idx) +
            " are too large for " + kernels.name + "; allowed: below 1.9 x 2^" +
            std::to_string(kPrecisionBits) + ".");
      }
    }
    const int64_t off = std::llabs(sum - (int64_t{1} << kPrecisionBits));
    keeps_levels_ &= off * 255 < int64_t{1} << (kPrecisionBits - 1);
  }
}

}  // namespace llava_video
