// What Python sees of the native part; its types stand in
// llava_video/ops/_native.pyi.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <climits>
#include <stdexcept>
#include <string>

#include "decode_attention.h"
#include "kernels.h"
#include "tiles.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace llava_video {
namespace {

using FrameArray = nb::ndarray<const uint8_t, nb::ndim<4>, nb::device::cpu>;
using TileArray = nb::ndarray<nb::ndim<5>, nb::c_contig, nb::device::cpu>;
using Line =
    nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table =
    nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Bytes =
    nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

Output output_of(const std::string& name) {
  if (name == "float32") return Output::kFloat32;
  if (name == "bfloat16") return Output::kBfloat16;
  if (name == "float16") return Output::kFloat16;
  if (name == "uint8") return Output::kUint8;
  throw std::invalid_argument("dtype = '" + name +
                              "', allowed: float32, bfloat16, float16, uint8.");
}

Taps taps_of(const Line& starts, const Line& counts, const Table& weights) {
  if (starts.shape(0) != weights.shape(0) ||
      counts.shape(0) != weights.shape(0) || weights.shape(0) == 0) {
    throw std::invalid_argument(
        "taps of " + std::to_string(starts.shape(0)) + " starts, " +
        std::to_string(counts.shape(0)) + " counts and " +
        std::to_string(weights.shape(0)) +
        " rows of weights, allowed: as many of each, at least 1.");
  }
  return {static_cast<int32_t>(weights.shape(0)),
          static_cast<int32_t>(weights.shape(1)), starts.data(), counts.data(),
          weights.data()};
}

template <class Array>
std::string shape_of(const Array& array) {
  std::string text = "(";
  for (size_t axis = 0; axis < array.ndim(); ++axis)
    text += (axis ? ", " : "") + std::to_string(array.shape(axis));
  return text + ")";
}

void run(const Tiler& tiler, const FrameArray& frames, const TileArray& out,
         int num_threads) {
  const size_t px = tiler.tile_px(), tiles = tiler.num_tiles();
  const Field& field = tiler.field();
  if (frames.shape(1) != size_t(field.frame_height) ||
      frames.shape(2) != size_t(field.frame_width) || frames.shape(3) != 3 ||
      frames.stride(3) != 1 || (frames.stride(2) != 3 && frames.shape(2) > 1) ||
      frames.shape(0) > INT_MAX) {
    throw std::invalid_argument("frames of shape " + shape_of(frames) +
                                ", allowed: (T, " +
                                std::to_string(field.frame_height) + ", " +
                                std::to_string(field.frame_width) +
                                ", 3), the pixels of a row side by side.");
  }
  const size_t value_bytes = tiler.levels().value_bytes();
  if (out.shape(0) != frames.shape(0) || out.shape(1) != tiles ||
      out.shape(2) != 3 || out.shape(3) != px || out.shape(4) != px ||
      out.itemsize() != value_bytes) {
    throw std::invalid_argument(
        "out of shape " + shape_of(out) + " and " +
        std::to_string(out.itemsize()) + " bytes a value, allowed: (" +
        std::to_string(frames.shape(0)) + ", " + std::to_string(tiles) +
        ", 3, " + std::to_string(px) + ", " + std::to_string(px) + ") and " +
        std::to_string(value_bytes) + " bytes.");
  }
  const Frames clip{frames.data(), static_cast<int>(frames.shape(0)),
                    frames.stride(0), frames.stride(1)};
  auto* tiles_out = static_cast<uint8_t*>(out.data());
  nb::gil_scoped_release released;
  tiler.run(clip, tiles_out, num_threads);
}

using Numbers =
    nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

void attend_tokens(const Numbers& queries, const Numbers& keys,
                   const Numbers& values, const Table& items,
                   const Line& row_items, float scale, const Result& out,
                   const std::string& isa) {
  const size_t rows = queries.shape(0), heads = queries.shape(1);
  const size_t dim = queries.shape(2), kv_heads = keys.shape(1);
  bool is_good = kv_heads > 0 && heads % kv_heads == 0 &&
                 keys.shape(2) == dim && items.shape(1) == 3 &&
                 row_items.shape(0) == rows + 1 && keys.shape(0) <= INT_MAX;
  for (int axis = 0; axis < 3; ++axis)
    is_good = is_good && values.shape(axis) == keys.shape(axis) &&
              out.shape(axis) == queries.shape(axis);
  if (!is_good) {
    throw std::invalid_argument(
        "queries " + shape_of(queries) + ", keys " + shape_of(keys) +
        ", values " + shape_of(values) + ", items " + shape_of(items) +
        ", row_items " + shape_of(row_items) + " and out " + shape_of(out) +
        " do not fit together.");
  }
  const DecodeStep step{queries.data(), keys.data(), values.data(), items.data(),
                    row_items.data(), int(rows), int(heads), int(kv_heads),
                    int(dim), int(keys.shape(0)), int(items.shape(0)), scale};
  nb::gil_scoped_release released;
  decode_attention(step, out.data(), isa);
}

void make(Tiler* self, const std::array<int, 2>& frame_px,
          const std::array<int, 2>& field_px,
          const std::array<int, 2>& offset_px,
          const std::array<uint8_t, kChannels>& colour, int tile_px,
          const std::string& dtype, const Rgb& mean, const Rgb& std,
          const Bytes& tables, const std::string& isa) {
  const Field field{frame_px[0],  frame_px[1],  field_px[0], field_px[1],
                    offset_px[0], offset_px[1], colour};
  new (self) Tiler(field, tile_px, output_of(dtype), mean, std,
                   {tables.data(), tables.data() + tables.size()}, isa);
}

void add(Tiler& tiler, const Line& across_starts, const Line& across_counts,
         const Table& across_weights, const Line& down_starts,
         const Line& down_counts, const Table& down_weights,
         bool is_height_first, const std::array<int, 2>& offset_px,
         const std::array<int, 2>& grid, int first_tile) {
  tiler.add(taps_of(across_starts, across_counts, across_weights),
            taps_of(down_starts, down_counts, down_weights), is_height_first,
            {offset_px[0], offset_px[1], grid[0], grid[1], first_tile});
}

}  // namespace
}  // namespace llava_video

NB_MODULE(_native, module) {
  using namespace llava_video;
  // Tilers are kept in a cache of Python's, which outlives this module.
  nb::set_leak_warnings(false);
  module.def("instruction_sets", &instruction_sets);
  module.def("decode_attention", &attend_tokens, "queries"_a, "keys"_a,
             "values"_a, "items"_a, "row_items"_a, "scale"_a,
             "out"_a.noconvert(), "isa"_a);
  nb::class_<Tiler>(module, "Tiler")
      .def("__init__", &make, "frame_px"_a, "field_px"_a, "offset_px"_a,
           "colour"_a, "tile_px"_a, "dtype"_a, "mean"_a, "std"_a, "tables"_a,
           "isa"_a)
      .def("add", &add, "across_starts"_a, "across_counts"_a,
           "across_weights"_a, "down_starts"_a, "down_counts"_a,
           "down_weights"_a, "is_height_first"_a, "offset_px"_a, "grid"_a,
           "first_tile"_a)
      .def("run", &run, "frames"_a, "out"_a.noconvert(), "num_threads"_a)
      .def_prop_ro("isa",
                   [](const Tiler& tiler) { return tiler.kernels().name; })
      .def("by_formula", [](const Tiler& tiler, int channel) {
        return tiler.levels().by_formula(channel);
      });
}
