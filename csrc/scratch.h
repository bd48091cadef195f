// Memory that one worker uses while it runs, kept for the next one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace llava_video {

// Kept buffers are handed out and taken back by one atomic exchange each: no
// lock that a fork could leave held.
class Scratch {
 public:
  explicit Scratch(size_t num_bytes);
  ~Scratch();
  Scratch(Scratch&& other) noexcept : buffer_(other.buffer_) {
    other.buffer_ = nullptr;
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Aligned to a cache line.
  uint8_t* bytes() const;

 private:
  struct Buffer;
  static constexpr int kKept = 32;
  Buffer* buffer_;
};

}  // namespace llava_video
