// New rows of levels -> their places in the tiles of a frame.
#pragma once

#include <cstdint>

#include "tiles.h"

namespace llava_video {

class Canvas {
 public:
  // The canvas of a picture of the frame whose tiles are `out`.
  Canvas(const Tiler& tiler, const Picture& picture, uint8_t* out)
      : tiler_(tiler), picture_(picture), out_(out) {}

  // Write one new row and the black beside it; levels: (channel,
  // picture.channel_columns()).
  void write_row(const uint8_t* levels, int row) const;

  // Write what is black above the picture, and below it.
  void write_above() const;
  void write_below() const;

 private:
  void write_black(int begin_row, int end_row) const;
  uint8_t* place(int channel, int canvas_row, int tile_col) const;

  const Tiler& tiler_;
  const Picture& picture_;
  uint8_t* out_;
};

}  // namespace llava_video
