// A frame's pictures whose first pass goes along the rows. The frame is read
// once, in strips as high as a kernel has lanes; what the first pass makes of a
// strip is kept, as quads of rows, until the second pass has used it.
#pragma once

#include <array>
#include <vector>

#include "memory.h"
#include "tiles.h"

namespace llava_video {

class WidthFirst {
 public:
  WidthFirst(const Tiler& tiler, Memory& memory);

  // Write the `idx`-th of `count` parts of the tiles of one frame.
  void run(const FrameRows& frame, uint8_t* out, int idx, int count);

 private:
  // How far one picture is.
  struct Progress {
    const Picture* picture;
    int32_t* groups;  // rows of quads [base, end) of the first pass
    uint8_t* levels;  // one new row, channel after channel
    int capacity;     // rows of quads there is room for
    int base, end;
    int row, end_row;  // of the second pass
    int column;        // of the first pass, in this strip
  };

  // The rows of a strip: the frame's own, or a copy with what is around them.
  struct Strip {
    const uint8_t* rows;
    ptrdiff_t stride_bytes;
    int num_quads;         // that may be read whole
    ptrdiff_t next_bytes;  // to the next strip, 0 where none follows
  };

  bool is_flat(int row) const;
  void fill_flat();
  Strip strip_at(const FrameRows& frame, int row);
  void first_pass(const Strip& strip);
  void columns_within(int num_quads);
  void second_pass(uint8_t* out);
  void make_room(Progress& progress) const;

  const Tiler& tiler_;
  const Field& field_;
  const int lanes_;
  int32_t* quads_;   // of one strip: (quad, channel, lane)
  uint8_t* copy_;    // of one strip's rows
  uint8_t* colour_;  // a row of the field's colour
  std::array<Progress, kMostPictures> progress_;
  int num_pictures_ = 0;
};

}  // namespace llava_video
