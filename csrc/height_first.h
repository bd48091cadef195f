// A frame's picture whose first pass goes along the columns, as Pillow 13 does
// where the height shrinks much more than the width. The frame's rows become
// quads of rows; new rows of old width fill a strip, and that is resized along
// its rows.
#pragma once

#include "canvas.h"
#include "memory.h"
#include "tiles.h"

namespace llava_video {

class HeightFirst {
 public:
  HeightFirst(const Tiler& tiler, const Picture& picture, Memory& memory);

  // Write the `idx`-th of `count` parts of the picture's rows.
  void run(const FrameRows& frame, uint8_t* out, int idx, int count);

 private:
  void add_group(const FrameRows& frame);
  void second_pass(const Canvas& canvas, int begin_row, int num_rows);

  const Tiler& tiler_;
  const Field& field_;
  const Picture& picture_;
  const int lanes_;
  const int columns_;  // bytes of a row of the field, in whole steps
  const ptrdiff_t strip_stride_;
  const int capacity_;  // rows of quads there is room for
  int32_t* groups_;     // rows of quads [base_, end_) of the field
  uint8_t* strip_;      // new rows of the old width
  int32_t* quads_;      // of the strip
  int32_t* new_groups_;
  uint8_t* levels_;
  uint8_t* colour_;  // a row of the field's colour
  uint8_t* copies_;  // of four rows of the field
  int base_ = 0, end_ = 0;
  // Weights that take one row of a quad as it is.
  int32_t one_row_[kQuad][kMostWords] = {};
};

}  // namespace llava_video
