"""A frame much longer than thick -> the tile that Pillow makes of it, without what it would hold.

The shorter edge of a 65,000 x 1 px frame made 336 px, a crop's first step, is 22 GB of picture; the
same frame padded to a square is 12.7 GB. Of the first only 336 rows are shown; of the second all
columns but one are of one colour. So only those new pixels are summed that are shown and have
something of the frame in them; all others are those of a field of the colour alone.

Formula: that of ops/resample.py, in its order, which is what Pillow computes. Along an axis, with
    weights w, a frame that begins at pixel o of the field, and elsewhere the level c: the sum of
    w[j] frame[j - o] over the frame's pixels, and c x (the sum of w elsewhere).

NumPy only: decoding workers import it.
"""

import numpy as np
import numpy.typing as npt

from llava_video.ops.native_tiles import Field, Picture
from llava_video.ops.resample import PRECISION_BITS, Filter, Taps, is_height_first

_Levels = npt.NDArray[np.uint8]


def thin_tile(frame: _Levels, field: Field, picture: Picture, kind: Filter) -> _Levels:
    """Return what is kept of a field that is resized: (height, width, 3) uint8.

    Args:
        frame: (H, W, 3) uint8, of the field's `frame_px`.
        field: where it stands.
        picture: what the field becomes; its place on a canvas is not read.
        kind: the filter.
    """
    passes = [picture.taps(field.field_px, axis, kind) for axis in (0, 1)]
    offset, own = [0, 0], [np.arange(0)] * 2
    for axis, found in enumerate(passes):
        frame, offset[axis] = _used(frame, axis, found, field.offset_px[axis])
        stops = offset[axis] + frame.shape[axis]
        is_own = (found.starts < stops) & (found.starts + found.counts > offset[axis])
        own[axis] = np.flatnonzero(is_own)
    tile = beside = np.array(field.colour, dtype=np.uint8)[None, None]
    for axis in (0, 1) if is_height_first(field.field_px, picture.size_px) else (1, 0):
        found, lines = passes[axis], own[axis]
        mine = Taps(found.starts[lines], found.counts[lines], found.weights[lines])
        frame = _one_pass(frame, axis, mine, offset[axis], beside)
        beside = _one_pass(beside, axis, mine, 0, beside)
        tile = _one_pass(tile, axis, found, 0, tile)
    tile[np.ix_(*own)] = frame
    return tile


def _used(frame: _Levels, axis: int, found: Taps, offset: int) -> tuple[_Levels, int]:
    """Return the part of a frame that has a weight, and its place on the field."""
    begin = max(int(found.starts[0]) - offset, 0)
    end = max(int(found.starts[-1] + found.counts[-1]) - offset, begin)
    return (frame[begin:end] if axis == 0 else frame[:, begin:end]), offset + begin


def _one_pass(part: _Levels, axis: int, found: Taps, offset: int, beside: _Levels) -> _Levels:
    """Resize a part of a field along an axis; beside it there is one line over and over."""
    part, beside = np.moveaxis(part, axis, 0), np.moveaxis(beside, axis, 0)[0]
    new = np.empty((len(found.starts), *part.shape[1:]), dtype=np.uint8)
    windows = zip(new, found.starts - offset, found.counts, found.weights, strict=True)
    for line, start, count, weights in windows:
        first, last = np.clip((start, start + count), 0, len(part))
        own = weights[first - start : last - start].astype(np.float64)
        elsewhere = int(weights.sum(dtype=np.int64)) - int(own.sum())
        # Exact: whole numbers, whose sums are below 2^53.
        totals = np.tensordot(own, part[first:last], axes=1) + beside.astype(np.int64) * elsewhere
        rounded = totals.astype(np.int64) + (1 << (PRECISION_BITS - 1)) >> PRECISION_BITS
        line[...] = np.clip(rounded, 0, 255)
    return np.moveaxis(new, 0, axis)
