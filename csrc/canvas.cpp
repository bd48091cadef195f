#include "canvas.h"

#include <algorithm>

namespace llava_video {

void Canvas::write_row(const uint8_t* levels, int row) const {
  const Levels& writer = tiler_.levels();
  const int tile_px = tiler_.tile_px();
  const int left = picture_.place.left;
  const int right = left + picture_.across.num_new();
  for (int channel = 0; channel < kChannels; ++channel) {
    const uint8_t* line =
        levels + ptrdiff_t{channel} * picture_.channel_columns();
    for (int col = 0; col < picture_.place.cols; ++col) {
      const int begin = col * tile_px, end = begin + tile_px;
      const int from = std::clamp(left, begin, end);
      const int to = std::clamp(right, begin, end);
      uint8_t* tile = place(channel, picture_.place.top + row, col);
      writer.write_black(from - begin, channel, tile);
      writer.write(line + (from - left), to - from, channel,
                   tile + (from - begin) * writer.value_bytes());
      writer.write_black(end - to, channel,
                         tile + (to - begin) * writer.value_bytes());
    }
  }
}

void Canvas::write_above() const { write_black(0, picture_.place.top); }

void Canvas::write_below() const {
  write_black(picture_.place.top + picture_.down.num_new(),
              picture_.place.rows * tiler_.tile_px());
}

void Canvas::write_black(int begin_row, int end_row) const {
  for (int row = begin_row; row < end_row; ++row) {
    for (int channel = 0; channel < kChannels; ++channel) {
      for (int col = 0; col < picture_.place.cols; ++col) {
        tiler_.levels().write_black(tiler_.tile_px(), channel,
                                    place(channel, row, col));
      }
    }
  }
}

// The first value of a row of the canvas in one of its columns of tiles.
uint8_t* Canvas::place(int channel, int canvas_row, int tile_col) const {
  const int tile_px = tiler_.tile_px();
  const ptrdiff_t tile = picture_.place.first_tile +
                         canvas_row / tile_px * picture_.place.cols + tile_col;
  const ptrdiff_t line =
      (tile * kChannels + channel) * tile_px + canvas_row % tile_px;
  return out_ +
         line * tile_px * static_cast<ptrdiff_t>(tiler_.levels().value_bytes());
}

}  // namespace llava_video
