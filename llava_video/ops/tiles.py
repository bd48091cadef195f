"""A uint8 frame -> the squares the vision tower sees: resized, padded, cut, normalised.

Formula: u = Pillow's bicubic resize on uint8 (antialiased, rounded to uint8);
    y = (float32(u (1/255) in float64) - mean) / std in float32.
Source: LLaVA-NeXT, `SigLipImageProcessor` and `process_anyres_image`; exactness comes
first, one grey level moves a sharp model's logits by half a unit. 640 x 360 px on a 1 x 2 grid of
384: 683 x 384 px of picture in a canvas of 768 x 384, 42 black columns left and 43 right.

Plain NumPy and Pillow; a native twin is not measured yet. Knows no torch and no plan.
"""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from llava_video.values import Fit, Grid

Pixels = npt.NDArray[np.uint8]
Tiles = npt.NDArray[np.float32]

_LEVELS = np.arange(256, dtype=np.uint8)


def normalise_reference(pixels: Pixels, mean: float, std: float) -> Tiles:
    """Return (pixels / 255 - mean) / std in the reference's own order and precisions.

    Args:
        pixels: any shape, uint8.
        mean: of one channel, in 0..1.
        std: of one channel.
    """
    unit = (pixels.astype(np.float64) * (1 / 255)).astype(np.float32)
    normalised: Tiles = (unit - np.float32(mean)) / np.float32(std)
    return normalised


def frame_tiles(
    frame: Pixels,
    fit: Fit,
    grid: Grid,
    tile_px: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    *,
    overview: bool = False,
) -> Tiles:
    """Return the tiles of one frame: the overview first, then the grid's row by row.

    Args:
        frame: (H, W, 3) uint8, RGB.
        fit: "squeeze" the whole frame to one tile; "letterbox" it, undistorted, on the grid's black
            canvas; or "pad" it to a grey square first.
        grid: tiles of the canvas; (1, 1) unless `fit` is "letterbox".
        tile_px: side of a tile, px.
        mean: per channel, in 0..1.
        std: per channel.
        overview: put the whole frame, squeezed to one tile, before the others.

    Returns:
        (n, 3, tile_px, tile_px) float32, n = rows x cols + overview.

    Raises:
        ValueError: when a grid is asked of a fit that has none.
    """
    num_tiles = grid.rows * grid.cols + int(overview)
    tiles = np.empty((num_tiles, 3, tile_px, tile_px), dtype=np.float32)
    tables = [normalise_reference(_LEVELS, m, s) for m, s in zip(mean, std, strict=True)]
    for tile, pixels in zip(
        tiles, _squares(frame, fit, grid, tile_px, mean, overview=overview), strict=True
    ):
        for channel, table in enumerate(tables):
            # A table of the 256 levels gives the very same numbers, ten times sooner.
            np.take(table, pixels[..., channel], out=tile[channel], mode="clip")
    return tiles


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


def _squares(
    frame: Pixels,
    fit: Fit,
    grid: Grid,
    tile_px: int,
    mean: tuple[float, float, float],
    *,
    overview: bool,
) -> Iterator[Pixels]:
    """Yield (tile_px, tile_px, 3) uint8 squares, overview first."""
    if fit != "letterbox" and grid != Grid(1, 1):
        raise ValueError(f"fit {fit!r} has one tile, the grid asks {grid.rows} x {grid.cols}.")
    if overview:
        yield _resized(frame, tile_px, tile_px)
    if fit == "squeeze":
        yield _resized(frame, tile_px, tile_px)
    elif fit == "pad":
        yield _resized(_padded_square(frame, mean), tile_px, tile_px)
    else:
        canvas = _letterboxed(frame, grid.rows * tile_px, grid.cols * tile_px)
        for top in range(0, canvas.shape[0], tile_px):
            for left in range(0, canvas.shape[1], tile_px):
                yield canvas[top : top + tile_px, left : left + tile_px]


def _resized(frame: Pixels, height_px: int, width_px: int) -> Pixels:
    """Resize with Pillow's bicubic filter; a frame of that size is returned as it is."""
    if frame.shape[:2] == (height_px, width_px):
        return frame
    picture = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(picture.resize((width_px, height_px), Image.Resampling.BICUBIC))


def _letterboxed(frame: Pixels, canvas_height_px: int, canvas_width_px: int) -> Pixels:
    """Put the undistorted frame in the middle of a black canvas."""
    size = letterbox_size(frame.shape[0], frame.shape[1], canvas_height_px, canvas_width_px)
    canvas = np.zeros((canvas_height_px, canvas_width_px, 3), dtype=np.uint8)
    return _pasted(canvas, _resized(frame, *size))


def _padded_square(frame: Pixels, mean: tuple[float, float, float]) -> Pixels:
    """Put the frame in the middle of a square of the mean's colour (127 for 0.5)."""
    side = max(frame.shape[:2])
    square = np.empty((side, side, 3), dtype=np.uint8)
    square[:] = [int(m * 255) for m in mean]
    return _pasted(square, frame)


def _pasted(canvas: Pixels, picture: Pixels) -> Pixels:
    height_px, width_px = picture.shape[:2]
    top, left = letterbox_offset((height_px, width_px), *canvas.shape[:2])
    canvas[top : top + height_px, left : left + width_px] = picture
    return canvas
