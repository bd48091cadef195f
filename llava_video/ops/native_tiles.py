"""Sizes, places and weights -> a native tiler, which is all that frames of one size share.

Knows how to speak to `csrc/` and nothing of fits: that is `ops/tiles.py`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from llava_video.errors import BackendMissingError
from llava_video.ops.native import native
from llava_video.ops.resample import Filter, Taps, is_height_first, taps
from llava_video.values import Grid


class Field(NamedTuple):
    """A frame in the middle of a field of one colour, which is what is resized.

    Attributes:
        frame_px: (height, width) of the frame.
        field_px: (height, width) of the field.
        offset_px: (top, left) of the frame.
        colour: of the field around it.
    """

    frame_px: tuple[int, int]
    field_px: tuple[int, int]
    offset_px: tuple[int, int]
    colour: tuple[int, int, int]


class Picture(NamedTuple):
    """What a field is resized to, how much of the middle is kept, and its place on a canvas.

    Attributes:
        size_px: (height, width) of the whole.
        kept_px: (height, width) of the middle that is kept.
        offset_px: (top, left) on the canvas.
        grid: tiles of the canvas.
    """

    size_px: tuple[int, int]
    kept_px: tuple[int, int]
    offset_px: tuple[int, int] = (0, 0)
    grid: Grid = Grid(1, 1)

    def taps(self, field_px: tuple[int, int], axis: int, kind: Filter) -> Taps:
        """Return the weights of the pass along an axis, 0 the height, of the kept pixels."""
        new_px, kept = self.size_px[axis], self.kept_px[axis]
        return taps(field_px[axis], new_px, kind, (new_px - kept) // 2, kept)


class Levels(NamedTuple):
    """How levels are written: (3, 256) `tables`, from a mean and a std in float32."""

    dtype: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    tables: npt.NDArray[Any]


def make_tiler(
    field: Field, pictures: Sequence[Picture], kind: Filter, levels: Levels, tile_px: int, isa: str
) -> Any:
    """Return a tiler; its tiles are those of the pictures in their order.

    Raises:
        BackendMissingError: there is no native part.
        ValueError: this processor has no such `isa`.
    """
    module = native()
    if module is None:
        raise BackendMissingError("the native part is not here, or switched off.")
    tiler = module.Tiler(
        **field._asdict(),
        tile_px=tile_px,
        dtype=levels.dtype,
        mean=levels.mean,
        std=levels.std,
        tables=np.ascontiguousarray(levels.tables).view(np.uint8).reshape(-1),
        isa=isa,
    )
    first_tile = 0
    for picture in pictures:
        down, across = (picture.taps(field.field_px, axis, kind) for axis in (0, 1))
        tiler.add(
            across_starts=across.starts,
            across_counts=across.counts,
            across_weights=across.weights,
            down_starts=down.starts,
            down_counts=down.counts,
            down_weights=down.weights,
            is_height_first=is_height_first(field.field_px, picture.size_px),
            offset_px=picture.offset_px,
            grid=(picture.grid.rows, picture.grid.cols),
            first_tile=first_tile,
        )
        first_tile += picture.grid.rows * picture.grid.cols
    return tiler


def whole_rows(frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return frames with the pixels of a row side by side, copied only where they are not."""
    pixel_bytes, channel_bytes = frames.strides[2:]
    is_whole = channel_bytes == 1 and (pixel_bytes == 3 or frames.shape[2] == 1)
    return frames if is_whole else np.ascontiguousarray(frames)
