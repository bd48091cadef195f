"""The kernels of `tile_frames`: a launch for each pass of a resize, the second ending in tiles.

Pillow rounds to uint8 between the passes, so two launches with bytes between them lose nothing. Of
a 1080 x 1920 px frame made one tile of 384 px in bfloat16, the first reads 6.2 MB and writes 1.2,
the second reads that and writes 0.9: of some frames at a time, what is between stays in the L2
cache of a large card.

First: a lane is one channel of one pixel, interleaved as the frame's bytes are. A warp's load of a
tap along the rows, 5 pixels between neighbours, then touches 11 pixels in 160 bytes, 2 lines; were
a lane a pixel, its three loads would touch 4 or 5 lines each. Bytes are loaded singly, for neither
the places nor a pixel of 3 bytes allow more: 26 million here, 0.8 million of a warp, which two
lines each make about 8 us on 132 multiprocessors of 1.8 GHz, against 2 of memory, and against 100
and more that the frame needs to come up over PCIe. A thread has 8 rows for every weight it loads.
The result is stored channel by channel, at the columns of the canvas, so that the second launch
finds its columns aligned whatever the letterbox's offset is.

Second: a program has rows of one channel of one tile; where it resizes the columns, a warp loads
128 bytes of an old row and stores 128 bits a thread. What a level becomes stands in a table of
3 x 256 numbers of the tiles' dtype, filled by the definition, so no arithmetic of the device can
differ from it.

Sizes are arguments and no constants, as a video's shape is no reason to compile; the side of a tile
is the model's. Counted, not timed.
"""

# ruff: noqa: ANN001, ANN202  # a kernel's arguments have no Python types
# mypy: disable-error-code="no-untyped-def, untyped-decorator, attr-defined"

import functools
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from llava_video.ops.dispatch import device_of, tl, triton
from llava_video.ops.resample import PRECISION_BITS, Filter, is_height_first, taps
from llava_video.values import Grid

TILE_DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16, torch.uint8)
_NUM_WARPS: Final = 4
# Lanes of the first launch, three to a new pixel, and the rows that share their weights.
_LANES: Final = 128
_LANE_ROWS: Final = 8
# Columns of the second; each thread has 128 bits of them.
_COLS: Final = 128
# Rows of bytes between the launches begin at multiples of this, which is what wide loads want.
_PITCH_BYTES: Final = 16

_Idxs = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """Where a frame stands on the tiles that it is cut into.

    Attributes:
        grid: tiles of the canvas.
        size: (height, width) that a frame is resized to, px.
        offset: (top, left) of it there; the rest of the canvas is black.
        kept: (height, width) of the middle of it that is shown there; None for all of it.
    """

    grid: Grid
    size: tuple[int, int]
    offset: tuple[int, int]
    kept: tuple[int, int] | None = None

    @property
    def shown(self) -> tuple[int, int]:
        """(height, width) of what stands on the canvas, px."""
        return self.kept or self.size

    @property
    def cut(self) -> tuple[int, int]:
        """(rows, columns) of the resized frame before what is shown."""
        (height, width), shown = self.size, self.shown
        return (height - shown[0]) // 2, (width - shown[1]) // 2

    @property
    def num_tiles(self) -> int:
        """Tiles of the canvas."""
        return self.grid.rows * self.grid.cols


@triton.jit
def _pass_sums(
    places,  # (ROWS, COLS) pointers to the first of each new level's old ones, uint8
    is_read,  # (ROWS, COLS)
    tap_stride,  # from one old level to the next
    weights,  # (ROWS or COLS,) pointers to the first tap's
    is_weight,  # (ROWS or COLS,)
    weights_stride,
    num_taps,
    AXIS: tl.constexpr,  # "width" or "height", which is resized
    PRECISION: tl.constexpr,
):
    """Return the levels of one pass, int32."""
    totals = tl.full(places.shape, 1 << (PRECISION - 1), tl.int32)
    for tap in range(num_taps):
        own = tl.load(weights + tap * weights_stride, mask=is_weight, other=0)
        levels = tl.load(places + tap * tap_stride, mask=is_read, other=0).to(tl.int32)
        totals += levels * (own[None, :] if AXIS == "width" else own[:, None])
    return tl.minimum(tl.maximum(totals >> PRECISION, 0), 255)


@triton.jit
def _first_kernel(
    frames_ptr,  # (T, H, W, 3) uint8, the bytes of a row side by side
    middle_ptr,  # (T, 3, height, pitch) uint8
    starts_ptr,  # (width or height,) int32
    weights_ptr,  # (taps, width or height) int32
    frame_stride,
    row_stride,
    pitch,
    height,  # of what is made, px
    width,
    left,  # its first column
    num_taps,
    AXIS: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
):
    lanes = tl.program_id(0) * LANES + tl.arange(0, LANES)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    frame = tl.program_id(2).to(tl.int64)
    cols, channels = lanes // 3, lanes % 3
    is_row, is_col = rows < height, cols < width
    is_made = is_row[:, None] & is_col[None, :]
    frames_ptr += frame * frame_stride
    if AXIS == "width":
        starts = tl.load(starts_ptr + cols, mask=is_col, other=0)
        places = frames_ptr + (rows[:, None] * row_stride + (starts * 3 + channels)[None, :])
        levels = _pass_sums(
            places, is_made, 3, weights_ptr + cols, is_col, width, num_taps, AXIS, PRECISION
        )
    else:
        starts = tl.load(starts_ptr + rows, mask=is_row, other=0)
        places = frames_ptr + (starts[:, None] * row_stride + lanes[None, :])
        levels = _pass_sums(
            places,
            is_made,
            row_stride,
            weights_ptr + rows,
            is_row,
            height,
            num_taps,
            AXIS,
            PRECISION,
        )
    middle_ptr += frame * 3 * height * pitch
    lines = channels[None, :] * height + rows[:, None]
    places = middle_ptr + (lines * pitch + (left + cols)[None, :])
    tl.store(places, levels.to(tl.uint8), mask=is_made)


@triton.jit
def _second_kernel(
    middle_ptr,  # (T, 3, middle_height, pitch) uint8
    tiles_ptr,  # (T, R x C, 3, PX, PX), tiles in one run
    values_ptr,  # (3, 256) what a level becomes, of the tiles' dtype
    starts_ptr,  # (width or height,) int32
    weights_ptr,  # (taps, width or height) int32
    tiles_frame_stride,
    pitch,
    middle_height,
    height,  # of the picture on the canvas, px
    width,
    top,
    left,
    grid_cols,
    num_taps,
    AXIS: tl.constexpr,
    PRECISION: tl.constexpr,
    PX: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    NUM_BLOCKS: tl.constexpr = (PX + COLS - 1) // COLS
    block, tile = tl.program_id(0), tl.program_id(1)
    frame, channel = (tl.program_id(2) // 3).to(tl.int64), tl.program_id(2) % 3
    rows = (block // NUM_BLOCKS) * ROWS + tl.arange(0, ROWS)
    cols = (block % NUM_BLOCKS) * COLS + tl.arange(0, COLS)
    is_tile = (rows < PX)[:, None] & (cols < PX)[None, :]
    x, y = (tile % grid_cols) * PX + cols, (tile // grid_cols) * PX + rows - top
    is_row = (rows < PX) & (y >= 0) & (y < height)
    is_col = (cols < PX) & (x >= left) & (x < left + width)
    middle_ptr += (frame * 3 + channel) * middle_height * pitch
    if AXIS == "height":
        starts = tl.load(starts_ptr + y, mask=is_row, other=0)
        places = middle_ptr + (starts[:, None] * pitch + x[None, :])
        # Columns beside the picture are read as they lie: a mask would cut the loads to bytes.
        is_read = is_row[:, None] & (cols < PX)[None, :]
        levels = _pass_sums(
            places, is_read, pitch, weights_ptr + y, is_row, height, num_taps, AXIS, PRECISION
        )
    else:
        starts = tl.load(starts_ptr + (x - left), mask=is_col, other=0)
        places = middle_ptr + (y[:, None] * pitch + starts[None, :])
        is_read = is_row[:, None] & is_col[None, :]
        levels = _pass_sums(
            places, is_read, 1, weights_ptr + (x - left), is_col, width, num_taps, AXIS, PRECISION
        )
    levels = tl.where(is_row[:, None] & is_col[None, :], levels, 0)
    values = tl.load(values_ptr + channel * 256 + levels)
    tiles_ptr += frame * tiles_frame_stride + (tile * 3 + channel) * PX * PX
    tl.store(tiles_ptr + (rows[:, None] * PX + cols[None, :]), values, mask=is_tile)


def tiles_triton(
    frames: torch.Tensor,
    tiles: torch.Tensor,
    values: torch.Tensor,
    canvas: Canvas,
    kind: Filter,
) -> None:
    """Write the tiles of a canvas on which each frame stands resized, by two launches.

    Args:
        frames: (T, H, W, 3) uint8, the bytes of a row side by side.
        tiles: (T, the canvas's, 3, px, px), each frame's in one run.
        values: (3, 256) what a level of each channel becomes, of the tiles' dtype.
        canvas: where a frame goes.
        kind: the filter.

    Raises:
        ValueError: a dtype the kernels do not have, or strides they would read wrongly.
    """
    num_frames, height, width, _ = frames.shape
    tile_px = tiles.shape[-1]
    _check(frames, tiles, values, (num_frames, canvas.num_tiles, 3, tile_px, tile_px))
    middle = _middle_of(height, width, canvas, tile_px)
    device = frames.device
    between = torch.empty(
        (num_frames, 3, middle.height, middle.pitch), dtype=torch.uint8, device=device
    )
    along_height, along_width = (
        _on_device(old_px, canvas.size[axis], canvas.cut[axis], canvas.shown[axis], kind, device)
        for axis, old_px in enumerate((height, width))
    )
    is_width_first = middle.axis == "width"
    first, second = (along_width, along_height) if is_width_first else (along_height, along_width)
    lanes = (triton.cdiv(3 * middle.width, _LANES), triton.cdiv(middle.height, _LANE_ROWS))
    rows, cols = program_shape(tile_px, tiles.dtype)
    num_blocks = triton.cdiv(tile_px, rows) * triton.cdiv(tile_px, cols)
    with device_of(frames):
        _first_kernel[*lanes, num_frames](
            frames,
            between,
            *first,
            *frames.stride()[:2],
            middle.pitch,
            middle.height,
            middle.width,
            middle.left,
            len(first[1]),
            AXIS=middle.axis,
            PRECISION=PRECISION_BITS,
            ROWS=_LANE_ROWS,
            LANES=_LANES,
            num_warps=_NUM_WARPS,
        )
        _second_kernel[num_blocks, canvas.num_tiles, 3 * num_frames](
            between,
            tiles,
            values,
            *second,
            tiles.stride(0),
            middle.pitch,
            middle.height,
            *canvas.shown,
            *canvas.offset,
            canvas.grid.cols,
            len(second[1]),
            AXIS="height" if is_width_first else "width",
            PRECISION=PRECISION_BITS,
            PX=tile_px,
            ROWS=rows,
            COLS=cols,
            num_warps=_NUM_WARPS,
        )


def middle_bytes(height_px: int, width_px: int, canvas: Canvas, tile_px: int) -> int:
    """Return what stands between the launches for one frame, bytes."""
    middle = _middle_of(height_px, width_px, canvas, tile_px)
    return 3 * middle.height * middle.pitch


@dataclass(frozen=True, slots=True, kw_only=True)
class _Middle:
    """What stands between the launches: one axis is resized, the other is as it was.

    Attributes:
        axis: which is resized.
        height: px.
        width: px.
        left: its first column.
        pitch: from one row to the next, bytes.
    """

    axis: Literal["width", "height"]
    height: int
    width: int
    left: int
    pitch: int


def _middle_of(height: int, width: int, canvas: Canvas, tile_px: int) -> _Middle:
    new_height, new_width = canvas.shown
    if is_height_first((height, width), canvas.size):
        return _Middle(axis="height", height=new_height, width=width, left=0, pitch=_pitch(width))
    # At the canvas's columns, where the second launch reads and writes alike.
    pitch = _pitch(canvas.grid.cols * tile_px)
    left = canvas.offset[1]
    return _Middle(axis="width", height=height, width=new_width, left=left, pitch=pitch)


def _pitch(width: int) -> int:
    return -(-width // _PITCH_BYTES) * _PITCH_BYTES


def _check(
    frames: torch.Tensor, tiles: torch.Tensor, values: torch.Tensor, wanted: tuple[int, ...]
) -> None:
    if frames.dtype is not torch.uint8 or not has_whole_rows(frames):
        raise ValueError(
            f"frames {tuple(frames.shape)} of {frames.dtype}, strides {frames.stride()}: uint8, "
            "the bytes of a row side by side."
        )
    is_whole = tiles.shape == wanted and tiles[0].is_contiguous()
    if not is_whole or tiles.dtype not in TILE_DTYPES or values.dtype is not tiles.dtype:
        raise ValueError(
            f"tiles {tuple(tiles.shape)} of {tiles.dtype}, strides {tiles.stride()}, of values of "
            f"{values.dtype}: {wanted} of one of {TILE_DTYPES}, a frame's in one run."
        )


def has_whole_rows(frames: torch.Tensor) -> bool:
    """Say whether the bytes of each row of frames (T, H, W, 3) lie side by side."""
    return frames.shape[3] == 3 and frames[0, 0].is_contiguous()


def program_shape(tile_px: int, dtype: torch.dtype) -> tuple[int, int]:
    """Return rows and columns of a program of the second launch: 128 bits of tiles a thread."""
    cols: int = min(triton.next_power_of_2(tile_px), _COLS)
    per_thread = 16 // dtype.itemsize
    return max(1, 32 * _NUM_WARPS * per_thread // cols), cols


def windows(
    old_px: int, new_px: int, kind: Filter, first: int = 0, num_kept: int | None = None
) -> tuple[_Idxs, _Idxs]:
    """Return a pass's weights such that every tap of every new pixel lies inside.

    As many taps for all as the most that one has, begun earlier where they would end outside.
    `first` and `num_kept` are those of `taps`.

    Returns:
        starts (kept,) and weights (taps, kept), the weights of one tap side by side.
    """
    if old_px == new_px:  # each pixel is its own: Pillow leaves the pass out
        starts = np.arange(first, new_px if num_kept is None else first + num_kept, dtype=np.int32)
        return starts, np.full((1, len(starts)), 1 << PRECISION_BITS, dtype=np.int32)
    found = taps(old_px, new_px, kind, first, num_kept)
    num_taps = int(found.counts.max())
    starts = np.minimum(found.starts, np.int32(old_px - num_taps))
    # A window that begins d earlier has its weights d places later.
    places = np.arange(num_taps)[:, None] - (found.starts - starts)
    weights = np.take_along_axis(found.weights.T, np.maximum(places, 0), axis=0)
    return starts, np.where(places < 0, np.int32(0), weights)


@functools.lru_cache(maxsize=32)
def _on_device(
    old_px: int, new_px: int, first: int, num_kept: int, kind: Filter, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `windows` of the new pixels that are kept there: 65 kB for 3840 px to 384.

    Kept for the sizes used last.
    """
    starts, weights = windows(old_px, new_px, kind, first, num_kept)
    return torch.from_numpy(starts).to(device), torch.from_numpy(weights).to(device)
