#include "scratch.h"

#include <atomic>
#include <memory>

namespace llava_video {
namespace {
constexpr size_t kLineBytes = 64;
}

struct Scratch::Buffer {
  explicit Buffer(size_t num_bytes)
      : num_bytes(num_bytes), memory(new uint8_t[num_bytes + kLineBytes]) {}

  static std::atomic<Buffer*> kept[kKept];

  size_t num_bytes;
  std::unique_ptr<uint8_t[]> memory;
};

std::atomic<Scratch::Buffer*> Scratch::Buffer::kept[kKept];

Scratch::Scratch(size_t num_bytes) : buffer_(nullptr) {
  for (auto& slot : Buffer::kept) {
    buffer_ = slot.exchange(nullptr);
    if (buffer_ == nullptr) continue;
    if (buffer_->num_bytes >= num_bytes) return;
    delete buffer_;
    buffer_ = nullptr;
  }
  buffer_ = new Buffer(num_bytes);
}

Scratch::~Scratch() {
  if (buffer_ == nullptr) return;
  for (auto& slot : Buffer::kept) {
    Buffer* empty = nullptr;
    if (slot.compare_exchange_strong(empty, buffer_)) return;
  }
  delete buffer_;
}

uint8_t* Scratch::bytes() const {
  const auto address = reinterpret_cast<uintptr_t>(buffer_->memory.get());
  return buffer_->memory.get() +
         (kLineBytes - address % kLineBytes) % kLineBytes;
}

}  // namespace llava_video
