// A block of memory, cut into parts that begin at cache lines. With no block
// it only counts what the parts would take.
#pragma once

#include <cstddef>
#include <cstdint>

namespace llava_video {

inline size_t whole_lines(size_t num_bytes) {
  return (num_bytes + 63) / 64 * 64;
}

class Memory {
 public:
  explicit Memory(uint8_t* block) : block_(block) {}

  template <class T>
  T* take(size_t count) {
    uint8_t* part = block_ == nullptr ? nullptr : block_ + used_;
    used_ += whole_lines(count * sizeof(T));
    return reinterpret_cast<T*>(part);
  }
  size_t used() const { return used_; }

 private:
  uint8_t* block_;
  size_t used_ = 0;
};

}  // namespace llava_video
