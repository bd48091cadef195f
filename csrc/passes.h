// Pillow's weights of one resize pass, as llava_video/ops/resample.py computes
// them -> whole quads of weights in the words of a kernel.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace llava_video {

// What Python's `Taps` holds.
struct Taps {
  int32_t num_new;
  int32_t most;            // columns of `weights`
  const int32_t* starts;   // (num_new)
  const int32_t* counts;   // (num_new)
  const int32_t* weights;  // (num_new, most)
};

class Pass {
 public:
  // A pass over `num_old` pixels. `is_even`: every new pixel takes equally many
  // quads, so that the loop over them ends where the processor expects it.
  // Throws std::invalid_argument where taps leave the old pixels.
  Pass(const Taps& taps, int num_old, const Kernels& kernels, bool is_even);

  int num_new() const { return num_new_; }
  // Quads of the new pixel with most of them.
  int most() const { return most_; }
  int first(int idx) const { return firsts_[idx]; }
  int end(int idx) const { return firsts_[idx] + counts_[idx]; }
  const int32_t* words(int idx) const {
    return words_.data() + idx * words_per_new_;
  }
  PassView view() const {
    return {firsts_.data(), counts_.data(), words_.data(), words_per_new_};
  }
  // Whether a line of one level keeps that level (the weights' sums are off by
  // their roundings).
  bool keeps_levels() const { return keeps_levels_; }

 private:
  int num_new_;
  int most_ = 0;
  ptrdiff_t words_per_new_ = 0;
  bool keeps_levels_ = true;
  // Filled up to a multiple of kColumnStep with pixels of no weight.
  std::vector<int32_t> firsts_, counts_, words_;
};

}  // namespace llava_video
