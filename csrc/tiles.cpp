#include "tiles.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>

#include "canvas.h"
#include "height_first.h"
#include "memory.h"
#include "scratch.h"
#include "width_first.h"

namespace llava_video {
namespace {

// Starting a thread costs about as much as resizing so many pixels.
constexpr int64_t kThreadPixels = 1 << 18;

[[noreturn]] void refuse(const std::string& what) {
  throw std::invalid_argument(what);
}

void check(const Field& field, int tile_px) {
  const auto text = [](int number) { return std::to_string(number); };
  if (tile_px < 1) refuse("tile_px = " + text(tile_px) + ", allowed: >= 1.");
  if (field.frame_height < 1 || field.frame_width < 1) {
    refuse("a frame of " + text(field.frame_height) + " x " +
           text(field.frame_width) + " px, allowed: 1 x 1 and more.");
  }
  if (field.top < 0 || field.left < 0 ||
      field.top + field.frame_height > field.height ||
      field.left + field.frame_width > field.width) {
    refuse("a frame of " + text(field.frame_height) + " x " +
           text(field.frame_width) + " px at (" + text(field.top) + ", " +
           text(field.left) + ") leaves its field of " + text(field.height) +
           " x " + text(field.width) + " px.");
  }
}

// One worker: what it needs to write its parts of frames.
class Worker {
 public:
  Worker(const Tiler& tiler, Memory& memory)
      : tiler_(tiler), width_first_(tiler, memory) {
    for (const Picture& picture : tiler.pictures()) {
      if (picture.is_height_first)
        height_first_.emplace_back(tiler, picture, memory);
    }
  }

  void run(const FrameRows& frame, uint8_t* out, int idx, int count) {
    for (const Picture& picture : tiler_.pictures()) {
      const Canvas canvas(tiler_, picture, out);
      if (idx == 0) canvas.write_above();
      if (idx == count - 1) canvas.write_below();
    }
    width_first_.run(frame, out, idx, count);
    for (HeightFirst& picture : height_first_)
      picture.run(frame, out, idx, count);
  }

 private:
  const Tiler& tiler_;
  WidthFirst width_first_;
  std::vector<HeightFirst> height_first_;
};

}  // namespace

Tiler::Tiler(const Field& field, int tile_px, Output output, const Rgb& mean,
             const Rgb& std, std::vector<uint8_t> tables,
             const std::string& isa)
    : field_(field),
      tile_px_(tile_px),
      output_(output),
      kernels_(kernels_of(isa)),
      levels_(output, mean, std, std::move(tables), kernels_) {
  check(field, tile_px);
}

void Tiler::add(const Taps& across, const Taps& down, bool is_height_first,
                const Place& place) {
  if (static_cast<int>(pictures_.size()) == kMostPictures)
    refuse("a third picture of a frame, allowed: 2.");
  if (place.top < 0 || place.left < 0 || place.rows < 1 || place.cols < 1 ||
      across.num_new < 1 || down.num_new < 1 ||
      place.top + down.num_new > place.rows * tile_px_ ||
      place.left + across.num_new > place.cols * tile_px_) {
    refuse("a picture of " + std::to_string(down.num_new) + " x " +
           std::to_string(across.num_new) + " px at (" +
           std::to_string(place.top) + ", " + std::to_string(place.left) +
           ") leaves its canvas of " + std::to_string(place.rows) + " x " +
           std::to_string(place.cols) + " tiles of " +
           std::to_string(tile_px_) + " px.");
  }
  pictures_.push_back({Pass(across, field_.width, kernels_, true),
                       Pass(down, field_.height, kernels_, false),
                       is_height_first, place});
  num_tiles_ = std::max(num_tiles_, place.first_tile + place.rows * place.cols);
}

void Tiler::run(const Frames& frames, uint8_t* out, int num_threads) const {
  const int num_frames = frames.num_frames;
  const int64_t px = int64_t{field_.height} * field_.width;
  const int threads = static_cast<int>(std::min<int64_t>(
      std::max(num_threads, 1), 1 + num_frames * px / kThreadPixels));
  // Whole frames where they come out even. Else two bands a thread, although
  // each reads a few rows twice: a thread that starts late then takes fewer.
  const bool is_even = num_frames >= 4 * threads || num_frames % threads == 0;
  const int bands = is_even ? 1 : 2 * threads;
  const size_t frame_values =
      size_t{kChannels} * num_tiles_ * tile_px_ * tile_px_;

  // All memory is taken here: nothing in a thread can throw.
  Memory needed(nullptr);
  Worker counted(*this, needed);
  std::vector<Scratch> scratches;
  std::vector<Worker> workers;
  for (int i = 0; i < threads; ++i) {
    scratches.emplace_back(needed.used());
    Memory memory(scratches[i].bytes());
    workers.emplace_back(*this, memory);
  }
  std::atomic<int> next{0};
  const auto work = [&](Worker& worker) {
    for (int item = next++; item < num_frames * bands; item = next++) {
      const int frame = item / bands;
      worker.run({frames.levels + frame * frames.frame_stride_bytes,
                  frames.row_stride_bytes},
                 out + frame * frame_values * levels_.value_bytes(),
                 item % bands, bands);
    }
  };
  std::vector<std::thread> others;
  others.reserve(threads);
  try {
    for (int i = 1; i < threads; ++i)
      others.emplace_back(work, std::ref(workers[i]));
  } catch (const std::system_error&) {
    // No more threads to be had here: those that there are do the work.
  }
  work(workers[0]);
  for (std::thread& other : others) other.join();
}

}  // namespace llava_video
