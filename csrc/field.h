// A frame in the middle of a field of one colour, which is what is resized.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "kernels.h"
#include "memory.h"

namespace llava_video {

// A quad of columns is 12 bytes of a row, of which kernels read 16.
constexpr int kQuadBytes = kQuad * kChannels;
constexpr int kReadBytes = 16;
// Room for rows of quads beyond those in use, so that they are seldom moved to
// the front and still stay in the second cache.
constexpr size_t kSpareBytes = 128 << 10;

inline int quads_of(int num_px) { return (num_px + kQuad - 1) / kQuad; }

inline int spare_rows(size_t row_bytes) {
  return static_cast<int>(kSpareBytes / row_bytes);
}

// Where the `idx`-th of `count` shares of some rows begins.
inline int share_of(int64_t num_rows, int idx, int count) {
  return static_cast<int>(num_rows * idx / count);
}

// The rows of one frame, any distance from one another.
struct FrameRows {
  const uint8_t* first;
  ptrdiff_t stride_bytes;
  const uint8_t* row(int idx) const { return first + idx * stride_bytes; }
};

struct Field {
  int frame_height, frame_width;
  int height, width;
  int top, left;
  std::array<uint8_t, kChannels> colour;

  // Bytes of a copy of a row that kernels may read.
  ptrdiff_t copy_stride() const {
    return whole_lines(size_t{kQuadBytes} * quads_of(width) + kReadBytes);
  }

  // A row of the colour.
  void paint(uint8_t* row) const {
    for (int px = 0; px < width; ++px)
      std::memcpy(row + ptrdiff_t{px} * kChannels, colour.data(), kChannels);
  }

  // Any row, those past the end too; `painted` is a row of the colour.
  void copy_row(const FrameRows& frame, int row, const uint8_t* painted,
                uint8_t* copy) const {
    const bool is_frame = row >= top && row < top + frame_height;
    if (!is_frame || width != frame_width)
      std::memcpy(copy, painted, size_t{kChannels} * width);
    if (is_frame) {
      std::memcpy(copy + kChannels * left, frame.row(row - top),
                  size_t{kChannels} * frame_width);
    }
  }
};

}  // namespace llava_video
