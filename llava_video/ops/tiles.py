"""uint8 frames -> the squares the vision tower sees: resized, padded, cut, normalised.

Formula: u = Pillow's antialiased resize on uint8 (rounded to uint8 after each of its two passes);
    y = (float32(u (1/255) in float64) - mean) / std in float32, then rounded to the asked dtype.
Source: LLaVA-NeXT, `SigLipImageProcessor` and `process_anyres_image`; exactness comes
first, one grey level moves a sharp model's logits by half a unit. 640 x 360 px on a 1 x 2 grid of
384: 683 x 384 px of picture in a canvas of 768 x 384, 42 black columns left and 43 right.

The plain twin is NumPy and Pillow. The native one (`csrc/`) gives the same numbers in one pass
over a frame's rows: 1080 x 1920 to one tile in 0.66 ms, 39 times as fast as SigLIP's processor on
Pillow (AVX-512, 2 cores; benchmarks/results/tiling.jsonl). Knows no torch and no plan.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from llava_video.cores import num_cores
from llava_video.ops.levels import STORED, Dtype, Pixels, Rgb, tables_of
from llava_video.ops.native import native
from llava_video.ops.native_tiles import Field, Levels, Picture, make_tiler, whole_rows
from llava_video.ops.resample import Filter, taps
from llava_video.ops.thin_frames import thin_tile
from llava_video.values import Fit, Grid

Tiles = npt.NDArray[np.float32]
_RESAMPLING: dict[Filter, Image.Resampling] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
_OVERVIEW_AND_PAD: tuple[Fit, Fit] = ("squeeze", "pad")
# Pillow makes all of the picture that a tile is cropped from, and both read all of a padded square:
# so many times more than need be as a frame is longer than thick. Thinner frames go without.
_MOST_ASPECT: Final = 16
_MOST_NATIVE_ASPECT: Final = 256


class Tiling(NamedTuple):
    """How every frame of a clip is tiled.

    Attributes:
        fit: "squeeze" the whole frame to one tile; "letterbox" it, undistorted, on the grid's black
            canvas; "pad" it to a square of the mean's colour first; "crop" a square out of the
            middle of the frame, whose shorter edge becomes a tile's; or "nearest": "squeeze" it
            without a filter.
        grid: tiles of the canvas; (1, 1) unless `fit` is "letterbox".
        tile_px: side of a tile, px.
        mean: per channel, in 0..1.
        std: per channel.
        overview: put the whole frame, squeezed to one tile, before the others.
        dtype: of the tiles.
        kind: the filter of the resize, unless `fit` is "nearest".
    """

    fit: Fit
    grid: Grid
    tile_px: int
    mean: Rgb
    std: Rgb
    overview: bool = False
    dtype: Dtype = "float32"
    kind: Filter = "bicubic"

    @property
    def num_tiles(self) -> int:
        """Tiles of one frame."""
        return self.grid.rows * self.grid.cols + int(self.overview)

    @property
    def filter(self) -> Filter:
        """The filter of every resize."""
        return filter_of(self.fit, self.kind)


def frame_tiles(
    frame: Pixels,
    fit: Fit,
    grid: Grid,
    tile_px: int,
    mean: Rgb,
    std: Rgb,
    *,
    overview: bool = False,
) -> Tiles:
    """Return the tiles of one frame: the overview first, then the grid's row by row.

    Args:
        frame: (H, W, 3) uint8, RGB.
        fit: see `Tiling`, as the following.
        grid: tiles of the canvas.
        tile_px: side of a tile, px.
        mean: per channel, in 0..1.
        std: per channel.
        overview: put the whole frame, squeezed to one tile, before the others.

    Returns:
        (n, 3, tile_px, tile_px) float32, n = rows x cols + overview.

    Raises:
        ValueError: when a grid is asked of a fit that has none.
    """
    tiling = Tiling(fit, grid, tile_px, mean, std, overview)
    tiles: Tiles = clip_tiles(frame[None], tiling)[0]
    return tiles


def split_tiles(frame: Pixels, fit: Fit, split: int, tile_px: int, mean: Rgb, std: Rgb) -> Tiles:
    """Return the tiles of one frame's blocks, row by row, and of the whole frame, the last.

    A picture is cut first and every block fitted as the whole is, rows and columns that are left
    over dropped. A frame of a video ("nearest") is made a tile first, which is cut.

    Source: LLaVA-Mini's high resolution, of pictures and of videos.

    Args:
        frame: (H, W, 3) uint8, RGB, H and W >= split.
        fit: how a block, and the whole, reaches its tile; one of those without a grid.
        split: rows and columns of blocks; 1 for the whole frame alone.
        tile_px: side of a tile, px.
        mean: per channel, in 0..1.
        std: per channel.

    Returns:
        (split^2 + 1, 3, tile_px, tile_px) float32, or (1, ...) of the whole alone.

    Raises:
        ValueError: a frame of fewer pixels than blocks.
    """
    if fit == "nearest":
        tiling = Tiling(fit, Grid(1, 1), tile_px, mean, std, dtype="uint8")
        frame, fit = clip_tiles(frame[None], tiling)[0, 0].transpose(1, 2, 0), "squeeze"
    height_px, width_px = (side // split for side in frame.shape[:2])
    blocks = [
        frame[row * height_px : (row + 1) * height_px, col * width_px : (col + 1) * width_px]
        for row in range(split)
        for col in range(split)
    ]
    parts = [frame] if split == 1 else [*blocks, frame]
    options = (fit, Grid(1, 1), tile_px, mean, std)
    return np.concatenate([frame_tiles(part, *options) for part in parts])


def clip_tiles(
    frames: Pixels,
    tiling: Tiling,
    *,
    out: npt.NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> npt.NDArray[Any]:
    """Return the tiles of every frame of a clip, by the native part where it is there.

    Args:
        frames: (T, H, W, 3) uint8, RGB; rows may be any distance apart, in either direction, other
            views are copied.
        tiling: how a frame becomes tiles.
        out: where to write, of the shape and dtype that is returned, contiguous; None for a new
            array.
        num_threads: at most so many work at once, >= 1; None for as many as this process has cores.

    Returns:
        (T, n, 3, tile_px, tile_px) of `tiling.dtype`, n = rows x cols + overview; bfloat16 as its
        bits in uint16.

    Raises:
        ValueError: frames or `out` of another shape or dtype, or a grid for a fit that has none.
    """
    is_thin = tiling.fit == "pad" and _is_thin(frames.shape[1:3], _MOST_NATIVE_ASPECT)
    if native() is None or is_thin:
        return clip_tiles_reference(frames, tiling, out=out)
    return clip_tiles_native(frames, tiling, out=out, num_threads=num_threads)


def clip_tiles_reference(
    frames: Pixels, tiling: Tiling, *, out: npt.NDArray[Any] | None = None
) -> npt.NDArray[Any]:
    """Do what `clip_tiles` does with NumPy and Pillow: the definition."""
    tiles = _checked(frames, tiling, out)
    tables = tables_of(tiling.mean, tiling.std, tiling.dtype)
    for frame, its_tiles in zip(frames, tiles, strict=True):
        for tile, pixels in zip(its_tiles, _squares(frame, tiling), strict=True):
            for channel, table in enumerate(tables):
                # A table of the 256 levels gives the very same numbers, ten times sooner.
                np.take(table, pixels[..., channel], out=tile[channel], mode="clip")
    return tiles


def clip_tiles_native(
    frames: Pixels,
    tiling: Tiling,
    *,
    out: npt.NDArray[Any] | None = None,
    num_threads: int | None = None,
    isa: str = "auto",
) -> npt.NDArray[Any]:
    """Do what `clip_tiles` does with the native part.

    Args:
        frames: (T, H, W, 3) uint8, RGB.
        tiling: how a frame becomes tiles.
        out: where to write, or None.
        num_threads: at most so many, or None.
        isa: the instructions: "auto" for the fastest, "plain", "avx2" or "avx512".

    Raises:
        ValueError: as `clip_tiles`, or an `isa` that this processor has not.
    """
    tiles = _checked(frames, tiling, out)
    if num_threads is not None and num_threads < 1:
        raise ValueError(f"num_threads = {num_threads}, allowed: >= 1, or None.")
    if tiling.fit == "pad" and tiling.overview:
        # The one shows the frame, the other the padded square: two passes.
        for idx, fit in enumerate(_OVERVIEW_AND_PAD):
            part = tiling._replace(fit=fit, overview=False)
            tiles[:, idx : idx + 1] = clip_tiles_native(
                frames, part, num_threads=num_threads, isa=isa
            )
        return tiles
    tiler = _tiler(frames.shape[1], frames.shape[2], tiling, isa)
    tiler.run(whole_rows(frames), tiles, num_threads or num_cores())
    return tiles


def filter_of(fit: Fit, kind: Filter) -> Filter:
    """Return the filter of a fit's resizes: the asked one, but where the fit means none."""
    return "nearest" if fit == "nearest" else kind


def letterbox_size(
    height_px: int, width_px: int, canvas_height_px: int, canvas_width_px: int
) -> tuple[int, int]:
    """Return the (height, width) that a frame takes on a canvas without distortion.

    Source: LLaVA-NeXT, llava/mm_utils.py, resize_and_pad_image (the free side rounds up).

    >>> letterbox_size(360, 640, 384, 768)
    (384, 683)
    """
    scale_width = canvas_width_px / width_px
    scale_height = canvas_height_px / height_px
    if scale_width < scale_height:
        return min(math.ceil(height_px * scale_width), canvas_height_px), canvas_width_px
    return canvas_height_px, min(math.ceil(width_px * scale_height), canvas_width_px)


def letterbox_offset(
    size_px: tuple[int, int], canvas_height_px: int, canvas_width_px: int
) -> tuple[int, int]:
    """Return (top, left) of a picture of this (height, width) in the middle of a canvas."""
    return (canvas_height_px - size_px[0]) // 2, (canvas_width_px - size_px[1]) // 2


def crop_size(height_px: int, width_px: int, tile_px: int) -> tuple[int, int]:
    """Return the (height, width) of a frame whose shorter edge is a tile's.

    Source: transformers, `get_resize_output_image_size` (the longer edge rounds down).

    >>> crop_size(360, 640, 336)
    (336, 597)
    """
    long_px = int(tile_px * max(height_px, width_px) / min(height_px, width_px))
    return (long_px, tile_px) if width_px <= height_px else (tile_px, long_px)


def _checked(frames: Pixels, tiling: Tiling, out: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    """Return what the tiles are written to; refuse what cannot be tiled."""
    if (
        frames.dtype != np.uint8
        or frames.ndim != 4
        or frames.shape[3] != 3
        or 0 in frames.shape[1:]
    ):
        raise ValueError(f"frames are {_words(frames)}, allowed: (T, H, W, 3) uint8.")
    fit, grid = tiling.fit, tiling.grid
    if fit != "letterbox" and grid != Grid(1, 1):
        raise ValueError(f"fit {fit!r} has one tile, the grid asks {grid.rows} x {grid.cols}.")
    shape = (len(frames), tiling.num_tiles, 3, tiling.tile_px, tiling.tile_px)
    dtype = np.dtype(STORED[tiling.dtype])
    if out is None:
        return np.empty(shape, dtype=dtype)
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(f"out is {_words(out)}, allowed: {shape} {dtype}.")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError("out is a view with gaps or read only, allowed: contiguous and writeable.")
    return out


def _words(array: npt.NDArray[Any]) -> str:
    return f"{array.shape} {array.dtype}"


def _squares(frame: Pixels, tiling: Tiling) -> Iterator[Pixels]:
    """Yield (tile_px, tile_px, 3) uint8 squares, overview first."""
    tile_px, kind = tiling.tile_px, tiling.filter
    if tiling.overview:
        yield _resized(frame, tile_px, tile_px, kind)
    if tiling.fit in ("pad", "crop") and _is_thin(frame.shape[:2], _MOST_ASPECT):
        field = _field(frame.shape[:2], tiling)
        yield thin_tile(frame, field, _pictures(field.field_px, tiling)[-1], kind)
    elif tiling.fit in ("squeeze", "nearest"):
        yield _resized(frame, tile_px, tile_px, kind)
    elif tiling.fit == "pad":
        yield _resized(_padded_square(frame, tiling.mean), tile_px, tile_px, kind)
    elif tiling.fit == "crop":
        size = crop_size(frame.shape[0], frame.shape[1], tile_px)
        top, left = (size[0] - tile_px) // 2, (size[1] - tile_px) // 2
        yield _resized(frame, *size, kind)[top : top + tile_px, left : left + tile_px]
    else:
        canvas = _letterboxed(frame, tiling.grid.rows * tile_px, tiling.grid.cols * tile_px, kind)
        for top in range(0, canvas.shape[0], tile_px):
            for left in range(0, canvas.shape[1], tile_px):
                yield canvas[top : top + tile_px, left : left + tile_px]


def _is_thin(size_px: tuple[int, ...], most_aspect: int) -> bool:
    return max(size_px, default=0) > most_aspect * min(size_px, default=0)


def _resized(frame: Pixels, height_px: int, width_px: int, kind: Filter) -> Pixels:
    """Resize with Pillow's filter, or none; a frame of that size is returned as it is."""
    if frame.shape[:2] == (height_px, width_px):
        return frame
    if kind == "nearest":
        rows = taps(frame.shape[0], height_px, kind).starts
        return frame[rows[:, None], taps(frame.shape[1], width_px, kind).starts]
    picture = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(picture.resize((width_px, height_px), _RESAMPLING[kind]))


def _letterboxed(
    frame: Pixels, canvas_height_px: int, canvas_width_px: int, kind: Filter
) -> Pixels:
    """Put the undistorted frame in the middle of a black canvas."""
    size = letterbox_size(frame.shape[0], frame.shape[1], canvas_height_px, canvas_width_px)
    canvas = np.zeros((canvas_height_px, canvas_width_px, 3), dtype=np.uint8)
    return _pasted(canvas, _resized(frame, *size, kind))


def _padded_square(frame: Pixels, mean: Rgb) -> Pixels:
    """Put the frame in the middle of a square of the mean's colour (127 for 0.5)."""
    side = max(frame.shape[:2])
    square = np.empty((side, side, 3), dtype=np.uint8)
    square[:] = _colour(mean)
    return _pasted(square, frame)


def _colour(mean: Rgb) -> tuple[int, int, int]:
    red, green, blue = (int(m * 255) for m in mean)
    return red, green, blue


def _pasted(canvas: Pixels, picture: Pixels) -> Pixels:
    height_px, width_px = picture.shape[:2]
    top, left = letterbox_offset((height_px, width_px), *canvas.shape[:2])
    canvas[top : top + height_px, left : left + width_px] = picture
    return canvas


@functools.lru_cache(maxsize=64)
def _tiler(height_px: int, width_px: int, tiling: Tiling, isa: str) -> Any:
    """Return a native tiler for frames of a size, kept for the sizes used last."""
    field = _field((height_px, width_px), tiling)
    return make_tiler(
        field,
        _pictures(field.field_px, tiling),
        tiling.filter,
        Levels(
            tiling.dtype, tiling.mean, tiling.std, tables_of(tiling.mean, tiling.std, tiling.dtype)
        ),
        tiling.tile_px,
        isa,
    )


def _field(frame_px: tuple[int, int], tiling: Tiling) -> Field:
    field_px = (max(frame_px), max(frame_px)) if tiling.fit == "pad" else frame_px
    return Field(frame_px, field_px, letterbox_offset(frame_px, *field_px), _colour(tiling.mean))


def _pictures(field_px: tuple[int, int], tiling: Tiling) -> list[Picture]:
    square = (tiling.tile_px, tiling.tile_px)
    overviews = [Picture(square, square)] if tiling.overview else []
    if tiling.fit == "crop":
        return [*overviews, Picture(crop_size(*field_px, tiling.tile_px), square)]
    if tiling.fit != "letterbox":
        return [*overviews, Picture(square, square)]
    canvas = (tiling.grid.rows * tiling.tile_px, tiling.grid.cols * tiling.tile_px)
    size = letterbox_size(*field_px, *canvas)
    return [*overviews, Picture(size, size, letterbox_offset(size, *canvas), tiling.grid)]
