// uint8 RGB frames -> resized, padded, cut and normalised tiles: the native
// twin of llava_video/ops/tiles.py. A `Tiler` holds all that is the same for
// every frame of a size; running it allocates nothing after the first time.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "field.h"
#include "kernels.h"
#include "levels.h"
#include "passes.h"

namespace llava_video {

// One frame gives two pictures at most: the overview and the grid's.
constexpr int kMostPictures = 2;

// Where a resized field goes: onto a black canvas of rows x cols tiles, which
// become the tiles from `first_tile` on.
struct Place {
  int top, left;
  int rows, cols;
  int first_tile;
};

struct Picture {
  Pass across, down;
  bool is_height_first;  // which pass is the first
  Place place;

  // New columns of a channel, filled up to whole steps; and of all channels.
  int channel_columns() const {
    return (across.num_new() + kColumnStep - 1) / kColumnStep * kColumnStep;
  }
  int columns() const { return kChannels * channel_columns(); }
};

// The frames of a clip: rows of pixels, any distance from one another.
struct Frames {
  const uint8_t* levels;
  int num_frames;
  ptrdiff_t frame_stride_bytes, row_stride_bytes;
};

class Tiler {
 public:
  Tiler(const Field& field, int tile_px, Output output, const Rgb& mean,
        const Rgb& std, std::vector<uint8_t> tables, const std::string& isa);

  // Say what a frame becomes. Throws std::invalid_argument where a picture
  // leaves its canvas.
  void add(const Taps& across, const Taps& down, bool is_height_first,
           const Place& place);

  // Write the tiles of all frames: (frames, tiles, channel, px, px).
  void run(const Frames& frames, uint8_t* out, int num_threads) const;

  const Field& field() const { return field_; }
  int tile_px() const { return tile_px_; }
  int num_tiles() const { return num_tiles_; }
  Output output() const { return output_; }
  const Kernels& kernels() const { return kernels_; }
  const Levels& levels() const { return levels_; }
  const std::vector<Picture>& pictures() const { return pictures_; }

 private:
  Field field_;
  int tile_px_;
  Output output_;
  const Kernels& kernels_;
  Levels levels_;
  std::vector<Picture> pictures_;
  int num_tiles_ = 0;
};

}  // namespace llava_video
