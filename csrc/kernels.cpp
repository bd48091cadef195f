#include "kernels.h"

#include <stdexcept>

namespace llava_video {
namespace {

bool has_avx2() {
#ifdef LLAVA_VIDEO_X86
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
#else
  return false;
#endif
}

// AVX-512 without VNNI gains little over AVX2: such processors take that.
bool has_avx512() {
#ifdef LLAVA_VIDEO_X86
  return has_avx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

}  // namespace

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names{"plain"};
  if (has_avx2()) names.push_back("avx2");
  if (has_avx512()) names.push_back("avx512");
  return names;
}

const Kernels& kernels_of(const std::string& name) {
  const std::vector<std::string> names = instruction_sets();
  const std::string chosen = name == "auto" ? names.back() : name;
  std::string allowed = "auto";
  for (const std::string& one : names) {
    allowed += ", " + one;
    if (one != chosen) continue;
#ifdef LLAVA_VIDEO_X86
    if (one == "avx512") return avx512_kernels();
    if (one == "avx2") return avx2_kernels();
#endif
    return plain_kernels();
  }
  throw std::invalid_argument("isa = '" + name +
                              "', allowed on this processor: " + allowed + ".");
}

}  // namespace llava_video
