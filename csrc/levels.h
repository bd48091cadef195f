// Levels 0..255 of a channel -> numbers of the output's type: what
// `normalise_reference` says, by its table or by arithmetic that gives the
// same.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace llava_video {

using Rgb = std::array<float, kChannels>;

class Levels {
 public:
  // tables: (channel, 256) values of the output's type; empty for kUint8.
  Levels(Output output, const Rgb& mean, const Rgb& std,
         std::vector<uint8_t> tables, const Kernels& kernels);

  size_t value_bytes() const { return value_bytes_; }
  bool by_formula(int channel) const {
    return normalisers_[channel].by_formula;
  }
  void write(const uint8_t* levels, int num_levels, int channel,
             uint8_t* out) const;
  void write_black(int num_levels, int channel, uint8_t* out) const;

 private:
  Output output_;
  size_t value_bytes_;
  std::vector<uint8_t> tables_;
  const Kernels& kernels_;
  std::array<Normaliser, kChannels> normalisers_;
};

}  // namespace llava_video
