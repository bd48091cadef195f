// The passes in plain C++: what the others must equal, and what runs on any
// processor (the loops over lanes are for the compiler to vectorise).
#include "strips.h"

namespace llava_video {
namespace {

struct Plain {
  static constexpr int kLanes = 8;
  static constexpr int kWords = 4;

  struct Vector {
    int32_t lanes[kLanes];
  };
  struct Bytes {
    uint8_t levels[4][kLanes];
  };

  static void sums(const int32_t* data, ptrdiff_t step, ptrdiff_t apart,
                   const int32_t* words, int count, Vector (&out)[3]) {
    for (int n = 0; n < 3; ++n) {
      int32_t totals[kLanes];
      for (int lane = 0; lane < kLanes; ++lane)
        totals[lane] = 1 << (kPrecisionBits - 1);
      for (int quad = 0; quad < count; ++quad) {
        const int32_t* levels = data + quad * step + n * apart;
        const int32_t* weights = words + quad * kWords;
        for (int lane = 0; lane < kLanes; ++lane) {
          const uint32_t four = static_cast<uint32_t>(levels[lane]);
          totals[lane] += static_cast<int32_t>(four & 255) * weights[0] +
                          static_cast<int32_t>(four >> 8 & 255) * weights[1] +
                          static_cast<int32_t>(four >> 16 & 255) * weights[2] +
                          static_cast<int32_t>(four >> 24) * weights[3];
        }
      }
      for (int lane = 0; lane < kLanes; ++lane)
        out[n].lanes[lane] = totals[lane] >> kPrecisionBits;
    }
  }

  static Bytes clipped(const Vector& a, const Vector& b, const Vector& c,
                       const Vector& d) {
    const Vector* vectors[4] = {&a, &b, &c, &d};
    Bytes bytes;
    for (int i = 0; i < 4; ++i) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const int32_t level = vectors[i]->lanes[lane];
        bytes.levels[i][lane] = static_cast<uint8_t>(level < 0     ? 0
                                                     : level > 255 ? 255
                                                                   : level);
      }
    }
    return bytes;
  }

  static void store_parts(const Bytes& bytes, int32_t* out, ptrdiff_t stride) {
    for (int part = 0; part < kLanes / 4; ++part) {
      for (int i = 0; i < 4; ++i) {
        const uint8_t* four = bytes.levels[i] + 4 * part;
        out[part * stride + i] = quad(four[0], four[1], four[2], four[3]);
      }
    }
  }

  static void store_in_order(const Bytes& bytes, uint8_t* out) {
    for (int i = 0; i < 4; ++i) {
      for (int lane = 0; lane < kLanes; ++lane)
        out[i * kLanes + lane] = bytes.levels[i][lane];
    }
  }

  static bool pack(const int32_t* weights, int32_t* words) {
    for (int tap = 0; tap < kQuad; ++tap) words[tap] = weights[tap];
    return true;
  }

  static void quads(const uint8_t* rows, ptrdiff_t stride_bytes, int num_quads,
                    ptrdiff_t /*next_bytes*/, int32_t* out) {
    for (int idx = 0; idx < num_quads; ++idx) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const uint8_t* pixels = rows + lane * stride_bytes + 12 * idx;
        for (int channel = 0; channel < kChannels; ++channel) {
          out[(idx * kChannels + channel) * kLanes + lane] =
              quad(pixels[channel], pixels[channel + 3], pixels[channel + 6],
                   pixels[channel + 9]);
        }
      }
    }
  }
};

}  // namespace

const Kernels& plain_kernels() {
  static const Kernels kernels{
      "plain",       Plain::kLanes, Plain::kWords, Plain::pack, Plain::quads,
      across<Plain>, interleave,    down<Plain>,   nullptr,
  };
  return kernels;
}

}  // namespace llava_video
