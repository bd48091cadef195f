#include "width_first.h"

#include <algorithm>
#include <cstring>

#include "canvas.h"

namespace llava_video {
namespace {

// Quads of a strip that are made before the columns that need them are: 6 KiB
// with 16 lanes, which stay in the first cache while as much of the next strip
// is fetched.
constexpr int kBlockQuads = 32;

}  // namespace

WidthFirst::WidthFirst(const Tiler& tiler, Memory& memory)
    : tiler_(tiler), field_(tiler.field()), lanes_(tiler.kernels().lanes) {
  quads_ =
      memory.take<int32_t>(size_t{kChannels} * quads_of(field_.width) * lanes_);
  copy_ = memory.take<uint8_t>(field_.copy_stride() * lanes_);
  colour_ = memory.take<uint8_t>(field_.copy_stride());
  if (colour_ != nullptr) field_.paint(colour_);
  for (const Picture& picture : tiler.pictures()) {
    if (picture.is_height_first) continue;
    Progress& progress = progress_[num_pictures_++];
    progress.picture = &picture;
    progress.capacity = picture.down.most() + lanes_ / kQuad +
                        spare_rows(size_t{4} * picture.columns());
    progress.groups =
        memory.take<int32_t>(size_t{1} * progress.capacity * picture.columns());
    progress.levels = memory.take<uint8_t>(picture.columns() + kSlackBytes);
  }
}

void WidthFirst::run(const FrameRows& frame, uint8_t* out, int idx, int count) {
  int begin = quads_of(field_.height), end = 0;
  for (int i = 0; i < num_pictures_; ++i) {
    Progress& progress = progress_[i];
    const Pass& down = progress.picture->down;
    progress.row = share_of(down.num_new(), idx, count);
    progress.end_row = share_of(down.num_new(), idx + 1, count);
    if (progress.row == progress.end_row) continue;
    begin = std::min(begin, down.first(progress.row));
    end = std::max(end, down.end(progress.end_row - 1));
  }
  for (int i = 0; i < num_pictures_; ++i)
    progress_[i].base = progress_[i].end = begin;
  for (int row = begin * kQuad; row < end * kQuad; row += lanes_) {
    for (int i = 0; i < num_pictures_; ++i) make_room(progress_[i]);
    if (is_flat(row)) {
      fill_flat();
    } else {
      first_pass(strip_at(frame, row));
    }
    second_pass(out);
  }
}

// Drop rows of quads that are used up where the next strip's would not fit.
void WidthFirst::make_room(Progress& progress) const {
  if (progress.end - progress.base + lanes_ / kQuad <= progress.capacity)
    return;
  int kept_from = progress.end;
  if (progress.row < progress.end_row)
    kept_from = std::min(kept_from, progress.picture->down.first(progress.row));
  const ptrdiff_t columns = progress.picture->columns();
  std::memmove(progress.groups,
               progress.groups + (kept_from - progress.base) * columns,
               (progress.end - kept_from) * columns * sizeof(int32_t));
  progress.base = kept_from;
}

// Whether a strip is of the field's colour alone, and the first pass keeps it.
bool WidthFirst::is_flat(int row) const {
  if (row + lanes_ > field_.top && row < field_.top + field_.frame_height)
    return false;
  for (int i = 0; i < num_pictures_; ++i) {
    if (!progress_[i].picture->across.keeps_levels()) return false;
  }
  return true;
}

void WidthFirst::fill_flat() {
  for (int i = 0; i < num_pictures_; ++i) {
    Progress& progress = progress_[i];
    const ptrdiff_t columns = progress.picture->channel_columns();
    int32_t* out =
        progress.groups + (progress.end - progress.base) * kChannels * columns;
    for (int group = 0; group < lanes_ / kQuad; ++group) {
      for (const uint8_t level : field_.colour) {
        std::memset(out, level, columns * sizeof(int32_t));
        out += columns;
      }
    }
    progress.end += lanes_ / kQuad;
  }
}

WidthFirst::Strip WidthFirst::strip_at(const FrameRows& frame, int row) {
  const int first = row - field_.top;
  const int row_bytes = kChannels * field_.frame_width;
  if (field_.width == field_.frame_width && first >= 0 &&
      first + lanes_ <= field_.frame_height) {
    // Past the last pixel may be the end of the memory.
    const int whole =
        row_bytes < kReadBytes ? 0 : (row_bytes - kReadBytes) / kQuadBytes + 1;
    const bool has_next = first + 2 * lanes_ <= field_.frame_height;
    return {frame.row(first), frame.stride_bytes, whole,
            has_next ? lanes_ * frame.stride_bytes : 0};
  }
  const ptrdiff_t stride = field_.copy_stride();
  for (int lane = 0; lane < lanes_; ++lane)
    field_.copy_row(frame, row + lane, colour_, copy_ + lane * stride);
  return {copy_, stride, quads_of(field_.width), 0};
}

void WidthFirst::first_pass(const Strip& strip) {
  const auto to_quads = tiler_.kernels().quads;
  const ptrdiff_t words = kChannels * lanes_;  // of a quad in all lanes
  for (int i = 0; i < num_pictures_; ++i) progress_[i].column = 0;
  int done = 0;
  while (done < strip.num_quads) {
    const int count = std::min(kBlockQuads, strip.num_quads - done);
    to_quads(strip.rows + ptrdiff_t{done} * kQuadBytes, strip.stride_bytes,
             count, strip.next_bytes, quads_ + done * words);
    done += count;
    columns_within(done);
  }
  const int all = quads_of(field_.width);
  if (done < all) {
    // The last pixels of each row, where there is room after them.
    constexpr int kTailBytes = 64;
    uint8_t tail[kMostLanes * kTailBytes] = {};
    const int from = done * kQuadBytes;
    for (int lane = 0; lane < lanes_; ++lane) {
      std::memcpy(tail + lane * kTailBytes,
                  strip.rows + lane * strip.stride_bytes + from,
                  kChannels * field_.width - from);
    }
    to_quads(tail, kTailBytes, all - done, 0, quads_ + done * words);
    columns_within(all);
  }
  for (int i = 0; i < num_pictures_; ++i) progress_[i].end += lanes_ / kQuad;
}

// Make the new columns whose quads are there.
void WidthFirst::columns_within(int num_quads) {
  for (int i = 0; i < num_pictures_; ++i) {
    Progress& progress = progress_[i];
    if (progress.row == progress.end_row) continue;
    const Pass& across = progress.picture->across;
    const int begin = progress.column, last = across.num_new() - 1;
    int& end = progress.column;
    // Four at a time; the last four may count some that are only filled up.
    while (end <= last && across.end(std::min(end + 3, last)) <= num_quads)
      end += 4;
    const ptrdiff_t columns = progress.picture->channel_columns();
    tiler_.kernels().across(
        quads_, across.view(), begin, end,
        progress.groups + (progress.end - progress.base) * kChannels * columns,
        kChannels * columns, columns);
  }
}

// Make and write the new rows whose quads are there.
void WidthFirst::second_pass(uint8_t* out) {
  for (int i = 0; i < num_pictures_; ++i) {
    Progress& progress = progress_[i];
    const Pass& down = progress.picture->down;
    const Canvas canvas(tiler_, *progress.picture, out);
    const ptrdiff_t columns = progress.picture->columns();
    for (; progress.row < progress.end_row &&
           down.end(progress.row) <= progress.end;
         ++progress.row) {
      const int first = down.first(progress.row);
      tiler_.kernels().down(progress.groups + (first - progress.base) * columns,
                            columns, down.end(progress.row) - first,
                            down.words(progress.row),
                            progress.picture->columns(), progress.levels);
      canvas.write_row(progress.levels, progress.row);
    }
  }
}

}  // namespace llava_video
