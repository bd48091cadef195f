#include "height_first.h"

#include <algorithm>
#include <cstring>

namespace llava_video {
namespace {

int whole_steps(int columns) {
  constexpr int kStep = kChannels * kColumnStep;
  return (columns + kStep - 1) / kStep * kStep;
}

}  // namespace

HeightFirst::HeightFirst(const Tiler& tiler, const Picture& picture,
                         Memory& memory)
    : tiler_(tiler),
      field_(tiler.field()),
      picture_(picture),
      lanes_(tiler.kernels().lanes),
      columns_(whole_steps(kChannels * field_.width)),
      strip_stride_(whole_lines(columns_ + kSlackBytes)),
      capacity_(picture.down.most() + spare_rows(size_t{4} * columns_) + 1) {
  groups_ = memory.take<int32_t>(size_t{1} * capacity_ * columns_);
  strip_ = memory.take<uint8_t>(strip_stride_ * lanes_);
  quads_ =
      memory.take<int32_t>(size_t{kChannels} * quads_of(field_.width) * lanes_);
  new_groups_ =
      memory.take<int32_t>(size_t{1} * (lanes_ / kQuad) * picture.columns());
  levels_ = memory.take<uint8_t>(picture.columns() + kSlackBytes);
  colour_ = memory.take<uint8_t>(field_.copy_stride());
  copies_ = memory.take<uint8_t>(field_.copy_stride() * kQuad);
  if (colour_ != nullptr) field_.paint(colour_);
  for (int row = 0; row < kQuad; ++row) {
    int32_t weights[kQuad] = {};
    weights[row] = 1 << kPrecisionBits;
    tiler.kernels().pack(weights, one_row_[row]);
  }
}

void HeightFirst::run(const FrameRows& frame, uint8_t* out, int idx,
                      int count) {
  const Canvas canvas(tiler_, picture_, out);
  const Pass& down = picture_.down;
  const int begin = share_of(down.num_new(), idx, count);
  const int end = share_of(down.num_new(), idx + 1, count);
  if (begin == end) return;
  base_ = end_ = down.first(begin);
  int lane = 0;
  for (int row = begin; row < end; ++row) {
    const int first = down.first(row);
    while (end_ < down.end(row)) {
      if (end_ - base_ == capacity_) {
        const int kept_from = std::min(first, end_);
        std::memmove(groups_, groups_ + ptrdiff_t{kept_from - base_} * columns_,
                     ptrdiff_t{end_ - kept_from} * columns_ * sizeof(int32_t));
        base_ = kept_from;
      }
      add_group(frame);
    }
    tiler_.kernels().down(groups_ + ptrdiff_t{first - base_} * columns_,
                          columns_, down.end(row) - first, down.words(row),
                          columns_, strip_ + lane * strip_stride_);
    if (++lane == lanes_ || row + 1 == end) {
      second_pass(canvas, row + 1 - lane, lane);
      lane = 0;
    }
  }
}

// Turn the next four rows of the field into quads.
void HeightFirst::add_group(const FrameRows& frame) {
  const uint8_t* rows[kQuad];
  for (int i = 0; i < kQuad; ++i) {
    const int row = end_ * kQuad + i;
    const int frame_row = row - field_.top;
    if (field_.width == field_.frame_width && frame_row >= 0 &&
        frame_row < field_.frame_height) {
      rows[i] = frame.row(frame_row);
    } else {
      uint8_t* copy = copies_ + i * field_.copy_stride();
      field_.copy_row(frame, row, colour_, copy);
      rows[i] = copy;
    }
  }
  tiler_.kernels().interleave(rows, kChannels * field_.width,
                              groups_ + ptrdiff_t{end_ - base_} * columns_);
  ++end_;
}

// Resize the strip along its rows, and write `num_rows` of them.
void HeightFirst::second_pass(const Canvas& canvas, int begin_row,
                              int num_rows) {
  const Kernels& kernels = tiler_.kernels();
  const ptrdiff_t columns = picture_.channel_columns();
  const int end_column = (picture_.across.num_new() + 3) / 4 * 4;
  kernels.quads(strip_, strip_stride_, quads_of(field_.width), 0, quads_);
  kernels.across(quads_, picture_.across.view(), 0, end_column, new_groups_,
                 kChannels * columns, columns);
  for (int lane = 0; lane < num_rows; ++lane) {
    kernels.down(new_groups_ + lane / kQuad * kChannels * columns, 0, 1,
                 one_row_[lane % kQuad], picture_.columns(), levels_);
    canvas.write_row(levels_, begin_row + lane);
  }
}

}  // namespace llava_video
