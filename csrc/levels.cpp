#include "levels.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

namespace llava_video {
namespace {

constexpr int kNumLevels = 256;

size_t bytes_of(Output output) {
  switch (output) {
    case Output::kFloat32:
      return 4;
    case Output::kUint8:
      return 1;
    default:
      return 2;
  }
}

template <class T>
void look_up(const uint8_t* levels, int begin, int end, const void* table,
             uint8_t* out) {
  for (int i = begin; i < end; ++i) {
    std::memcpy(out + i * sizeof(T), static_cast<const T*>(table) + levels[i],
                sizeof(T));
  }
}

}  // namespace

Levels::Levels(Output output, const Rgb& mean, const Rgb& std,
               std::vector<uint8_t> tables, const Kernels& kernels)
    : output_(output),
      value_bytes_(bytes_of(output)),
      tables_(std::move(tables)),
      kernels_(kernels) {
  if (output == Output::kUint8) return;
  const size_t table_bytes = kNumLevels * value_bytes_;
  if (tables_.size() != kChannels * table_bytes) {
    throw std::invalid_argument(
        "the tables of levels have " + std::to_string(tables_.size()) +
        " bytes, allowed: " + std::to_string(kChannels * table_bytes) + ".");
  }
  uint8_t every[kNumLevels], found[kNumLevels * sizeof(float)];
  for (int level = 0; level < kNumLevels; ++level)
    every[level] = static_cast<uint8_t>(level);
  for (int channel = 0; channel < kChannels; ++channel) {
    Normaliser& normaliser = normalisers_[channel];
    normaliser.table = tables_.data() + channel * table_bytes;
    normaliser.mean = mean[channel];
    normaliser.std = std[channel];
    normaliser.std_reciprocal = 1.0f / std[channel];
    normaliser.by_formula =
        kernels.normalise != nullptr &&
        kernels.normalise(every, kNumLevels, output, normaliser, found) ==
            kNumLevels &&
        std::memcmp(found, normaliser.table, table_bytes) == 0;
  }
}

void Levels::write(const uint8_t* levels, int num_levels, int channel,
                   uint8_t* out) const {
  if (output_ == Output::kUint8) {
    std::memcpy(out, levels, num_levels);
    return;
  }
  const Normaliser& normaliser = normalisers_[channel];
  const int done =
      normaliser.by_formula
          ? kernels_.normalise(levels, num_levels, output_, normaliser, out)
          : 0;
  if (value_bytes_ == sizeof(uint32_t)) {
    look_up<uint32_t>(levels, done, num_levels, normaliser.table, out);
  } else {
    look_up<uint16_t>(levels, done, num_levels, normaliser.table, out);
  }
}

void Levels::write_black(int num_levels, int channel, uint8_t* out) const {
  if (output_ == Output::kUint8) {
    std::memset(out, 0, num_levels);
    return;
  }
  // The first of the table.
  const void* table = normalisers_[channel].table;
  if (value_bytes_ == sizeof(uint32_t)) {
    std::fill_n(reinterpret_cast<uint32_t*>(out), num_levels,
                *static_cast<const uint32_t*>(table));
  } else {
    std::fill_n(reinterpret_cast<uint16_t*>(out), num_levels,
                *static_cast<const uint16_t*>(table));
  }
}

}  // namespace llava_video
