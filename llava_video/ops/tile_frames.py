"""uint8 frames on a device -> the tiles of all of them there: the GPU's twin of ops/tiles.

Formula: two passes of uint8 as in ops/resample.py, in its order; on the canvas u;
    y = (float32(u (1/255) in float64) - mean) / std in float32, rounded once more to 16 bits.
Source: Pillow, src/libImaging/Resample.c, and LLaVA-NeXT, as told in ops/tiles.py.

Shapes: frames (T, H, W, 3) uint8; tiles (T x n, 3, px, px), n = rows x cols + overview, equal to
`ops.tiles.frame_tiles` bit for bit. A frame is 4 times smaller than its pixels in float32, so where
it has fewer than the tiles it becomes, it is what should be copied up. The gain is not measured
yet on a GPU.
"""

import functools
from collections.abc import Iterator

import torch

from llava_video.ops.dispatch import uses_triton
from llava_video.ops.resample import PRECISION_BITS, Filter, is_height_first, taps
from llava_video.ops.tiles import crop_size, filter_of, letterbox_offset, letterbox_size
from llava_video.ops.tiles_kernel import (
    TILE_DTYPES,
    Canvas,
    has_whole_rows,
    middle_bytes,
    tiles_triton,
)
from llava_video.values import Fit, Grid

Rgb = tuple[float, float, float]


def tile_frames_reference(
    frames: torch.Tensor,
    fit: Fit,
    grid: Grid,
    tile_px: int,
    mean: Rgb,
    std: Rgb,
    *,
    overview: bool = False,
    kind: Filter = "bicubic",
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return the tiles, step by step, by integers of 32 bits. Arguments as in `tile_frames`."""
    kind = filter_of(fit, kind)
    num_frames, height_px, width_px, _ = frames.shape
    parts: list[torch.Tensor] = []
    for is_padded, canvas in _canvases(height_px, width_px, fit, grid, tile_px, overview=overview):
        rows, cols = canvas.grid.rows, canvas.grid.cols
        (height, width), (top, left) = canvas.shown, canvas.offset
        pixels = frames.new_zeros(num_frames, rows * tile_px, cols * tile_px, 3)
        of = _padded_square(frames, mean) if is_padded else frames
        pixels[:, top : top + height, left : left + width] = _resized(of, canvas, kind)
        cut = pixels.view(num_frames, rows, tile_px, cols, tile_px, 3)
        parts.append(cut.permute(0, 1, 3, 5, 2, 4).flatten(1, 2))  # (T, n, 3, px, px)
    levels = torch.cat(parts, dim=1).flatten(0, 1)
    return levels if dtype is torch.uint8 else normalised(levels, mean, std).to(dtype)


def tile_frames(
    frames: torch.Tensor,
    fit: Fit,
    grid: Grid,
    tile_px: int,
    mean: Rgb,
    std: Rgb,
    *,
    overview: bool = False,
    kind: Filter = "bicubic",
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return the tiles of some frames, frame by frame: its overview first, then its grid's.

    Args:
        frames: (T, H, W, 3) uint8, RGB, T >= 1.
        fit: as in `ops.tiles.Tiling`.
        grid: tiles of the canvas; (1, 1) unless `fit` is "letterbox".
        tile_px: side of a tile, px.
        mean: per channel, in 0..1.
        std: per channel.
        overview: put the whole frame, squeezed to one tile, before the others.
        kind: the filter, antialiased as Pillow does it, unless `fit` is "nearest".
        dtype: of the tiles; torch.uint8 for levels, without normalisation.

    Returns:
        (T x n, 3, tile_px, tile_px), n = rows x cols + overview.

    Raises:
        ValueError: frames that are no uint8 pictures, a grid asked of a fit that has none, or a
            dtype that tiles cannot have.
    """
    _check(frames, fit, grid, dtype)
    if not uses_triton(frames):
        options = (fit, grid, tile_px, mean, std)
        return tile_frames_reference(frames, *options, overview=overview, kind=kind, dtype=dtype)
    if not has_whole_rows(frames):
        frames = frames.contiguous()
    num_frames, height, width, _ = frames.shape
    values = _values(mean, std, dtype, frames.device)
    shape = (num_frames, grid.rows * grid.cols + overview, 3, tile_px, tile_px)
    tiles = torch.empty(shape, dtype=dtype, device=frames.device)
    left = tiles
    for is_padded, canvas in _canvases(height, width, fit, grid, tile_px, overview=overview):
        own, left = left.tensor_split([canvas.num_tiles], dim=1)
        of = _padded_square(frames, mean) if is_padded else frames
        tiles_triton(of, own, values, canvas, filter_of(fit, kind))
    return tiles.flatten(0, 1)


def normalised(levels: torch.Tensor, mean: Rgb, std: Rgb) -> torch.Tensor:
    """Return what levels become: the very numbers of tiles that were never levels.

    Args:
        levels: (..., 3, px, px) uint8.
        mean: per channel, in 0..1.
        std: per channel.

    Returns:
        (..., 3, px, px) float32, (levels / 255 - mean) / std.
    """
    # Tensors: torch divides by a number as it multiplies by its inverse.
    means, stds = (
        torch.tensor(of_rgb, dtype=torch.float32, device=levels.device).view(3, 1, 1)
        for of_rgb in (mean, std)
    )
    return ((levels.double() * (1 / 255)).float() - means) / stds


def working_bytes(
    height_px: int, width_px: int, fit: Fit, grid: Grid, tile_px: int, *, overview: bool = False
) -> int:
    """Return what the kernels hold of one frame beside its tiles: itself, and between two passes.

    >>> working_bytes(1080, 1920, "squeeze", Grid(1, 1), 384) - 3 * 1080 * 1920  # 384 columns
    1244160
    """
    most = 0
    for is_padded, canvas in _canvases(height_px, width_px, fit, grid, tile_px, overview=overview):
        side = max(height_px, width_px)
        size = (side, side) if is_padded else (height_px, width_px)
        square = 3 * side**2 if is_padded else 0
        most = max(most, square + middle_bytes(*size, canvas, tile_px))
    return 3 * height_px * width_px + most


def _check(frames: torch.Tensor, fit: Fit, grid: Grid, dtype: torch.dtype) -> None:
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype is not torch.uint8:
        raise ValueError(f"frames {tuple(frames.shape)} of {frames.dtype}: (T, H, W, 3), uint8.")
    if fit != "letterbox" and grid != Grid(1, 1):
        raise ValueError(f"fit {fit!r} has one tile, the grid asks {grid.rows} x {grid.cols}.")
    if dtype not in TILE_DTYPES:
        raise ValueError(f"tiles of {dtype}: one of {TILE_DTYPES}.")


def _canvases(
    height: int, width: int, fit: Fit, grid: Grid, tile_px: int, *, overview: bool
) -> Iterator[tuple[bool, Canvas]]:
    """Yield the canvases of a frame in their tiles' order, and whether it is padded for each."""
    one = Canvas(grid=Grid(1, 1), size=(tile_px, tile_px), offset=(0, 0))
    if overview:
        yield False, one
    if fit == "crop":
        size = crop_size(height, width, tile_px)
        yield False, Canvas(grid=Grid(1, 1), size=size, kept=(tile_px, tile_px), offset=(0, 0))
    elif fit == "letterbox":
        sides = (grid.rows * tile_px, grid.cols * tile_px)
        size = letterbox_size(height, width, *sides)
        yield False, Canvas(grid=grid, size=size, offset=letterbox_offset(size, *sides))
    else:
        yield fit == "pad", one


def _resized(frames: torch.Tensor, canvas: Canvas, kind: Filter) -> torch.Tensor:
    """Return what is shown of frames (T, H, W, 3) on a canvas, by both passes."""
    dims = (1, 2) if is_height_first((frames.shape[1], frames.shape[2]), canvas.size) else (2, 1)
    for dim in dims:
        frames = _one_pass(frames, dim, canvas, kind)
    return frames


def _one_pass(levels: torch.Tensor, dim: int, canvas: Canvas, kind: Filter) -> torch.Tensor:
    """Return frames (T, H, W, 3) resized along one dimension, rounded to uint8."""
    old_px, new_px = levels.shape[dim], canvas.size[dim - 1]
    first, num_kept = canvas.cut[dim - 1], canvas.shown[dim - 1]
    if new_px == old_px:
        return levels.narrow(dim, first, num_kept)
    found = taps(old_px, new_px, kind, first, num_kept)
    starts, weights = torch.tensor(found.starts), torch.tensor(found.weights)
    along = [1, 1, 1, 1]
    along[dim] = num_kept
    shape = [*levels.shape]
    shape[dim] = num_kept
    half = 1 << (PRECISION_BITS - 1)
    totals = torch.full(shape, half, dtype=torch.int32, device=levels.device)
    for tap in range(weights.shape[1]):
        places = (starts + tap).clamp(max=old_px - 1)  # a tap past the end has no weight
        own = weights[:, tap].view(along).to(levels.device)
        totals += levels.index_select(dim, places.to(levels.device)).int() * own
    return (totals >> PRECISION_BITS).clamp(0, 255).to(torch.uint8)


def _padded_square(frames: torch.Tensor, mean: Rgb) -> torch.Tensor:
    """Put each frame in the middle of a square of the mean's colour (127 for 0.5)."""
    num_frames, height, width, _ = frames.shape
    side = max(height, width)
    colour = torch.tensor([int(m * 255) for m in mean], dtype=torch.uint8)
    square = colour.to(frames.device).expand(num_frames, side, side, 3).contiguous()
    top, left = letterbox_offset((height, width), side, side)
    square[:, top : top + height, left : left + width] = frames
    return square


@functools.lru_cache(maxsize=16)
def _values(mean: Rgb, std: Rgb, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return (3, 256) what a level of each channel becomes, by the definition on the CPU."""
    levels = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    made = levels if dtype is torch.uint8 else normalised(levels, mean, std).to(dtype)
    return made.reshape(3, 256).contiguous().to(device)
