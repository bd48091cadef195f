"""A frame's height and width → canvas, grid of tiles, the part its map shows, the map's size.

The arithmetic of AnyRes, operation by operation as the reference does it: the checkpoints were
trained with these very roundings, so each `int`, `ceil` and `//` here is part of the model. Sizes
are (height, width); maps are counted in patches. Knows no budget and no request.
"""

import math
from collections.abc import Sequence

from llava_video.values import Grid, PoolMode

# A map is shrunk only when it is more than 1.1 times too large per side.
_SHRINK_FROM = 1.1


def choose_canvas(
    height_px: int, width_px: int, canvases: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    """Choose the canvas that keeps most of the picture, and of those the one that wastes least.

    Effective pixels are those of the picture scaled to the canvas, at most its own; wasted ones are
    the rest of the canvas. The first of equals wins.

    Source: LLaVA-NeXT, llava/mm_utils.py, select_best_resolution.

    >>> choose_canvas(1080, 1920, [(768, 1536), (1152, 1920), (1536, 1920)])
    (1152, 1920)
    """
    best, best_effective, best_wasted = canvases[0], -1, 0
    for canvas_height_px, canvas_width_px in canvases:
        scale = min(canvas_width_px / width_px, canvas_height_px / height_px)
        fitted = int(width_px * scale) * int(height_px * scale)
        effective = min(fitted, width_px * height_px)
        wasted = canvas_width_px * canvas_height_px - effective
        if effective > best_effective or (effective == best_effective and wasted < best_wasted):
            best = (canvas_height_px, canvas_width_px)
            best_effective, best_wasted = effective, wasted
    return best


def choose_grid(
    height_px: int, width_px: int, canvases: Sequence[tuple[int, int]], tile_px: int
) -> Grid:
    """Return the chosen canvas counted in tiles.

    >>> choose_grid(1080, 1920, [(1152, 1920)], 384)
    Grid(rows=3, cols=5)
    """
    canvas_height_px, canvas_width_px = choose_canvas(height_px, width_px, canvases)
    return Grid(canvas_height_px // tile_px, canvas_width_px // tile_px)


def coarser_grids(
    height_px: int, width_px: int, canvases: Sequence[tuple[int, int]], tile_px: int
) -> list[Grid]:
    """List the chosen grid, then the best one of fewer tiles, and so on while there are two tiles.

    Every entry has fewer tiles than the one before it. One tile is no grid: it is the layout videos
    are trained with.
    """
    grids: list[Grid] = []
    left = list(canvases)
    while left:
        grid = choose_grid(height_px, width_px, left, tile_px)
        num_tiles = grid.rows * grid.cols
        if num_tiles > 1:
            grids.append(grid)
        left = [(h, w) for h, w in left if (h // tile_px) * (w // tile_px) < num_tiles]
    return grids


def unpad_window(
    height_px: int, width_px: int, map_rows: int, map_cols: int, *, keeps_line: bool = True
) -> tuple[int, int, int, int]:
    """Return (top, bottom, left, right) of the part of a merged map that shows the picture.

    The product is truncated as it stands (transformers rounds it to 7 decimals first, which is two
    rows off for 832 x 1872 pictures).

    Args:
        height_px: of the picture.
        width_px: of the picture.
        map_rows: of the whole canvas.
        map_cols: of the whole canvas.
        keeps_line: keep one line of a sliver that rounds to nothing; the reference keeps none of an
            even side.

    Source: LLaVA-NeXT, llava/model/llava_arch.py, unpad_image.

    >>> unpad_window(1080, 1920, 81, 135)  # int(1080 * (135 / 1920)) = 75, (81 - 75) // 2 = 3
    (3, 78, 0, 135)
    """
    if width_px / height_px > map_cols / map_rows:
        kept = int(height_px * (map_cols / width_px))
        border = _border(map_rows, kept, keeps_line=keeps_line)
        return border, map_rows - border, 0, map_cols
    kept = int(width_px * (map_rows / height_px))
    border = _border(map_cols, kept, keeps_line=keeps_line)
    return 0, map_rows, border, map_cols - border


def _border(side: int, kept: int, *, keeps_line: bool) -> int:
    border = (side - kept) // 2
    return min(border, (side - 1) // 2) if keeps_line else border


def shrunk_size(
    rows: int, cols: int, anyres_max: int | None, patches_per_side: int
) -> tuple[int, int]:
    """Return the size a picture's map is brought to, about `anyres_max` tiles of patches.

    Floor division of floats, on purpose: 135 // (135 / 81) is 80 (1600 x 1600 pictures).

    Source: LLaVA-NeXT, llava/model/llava_arch.py, anyres_max.

    >>> shrunk_size(135, 135, 9, 27)
    (80, 80)
    """
    if anyres_max is None:
        return rows, cols
    times = math.sqrt(rows * cols / (anyres_max * patches_per_side**2))
    if times <= _SHRINK_FROM:
        return rows, cols
    # At least 1: with tiles of a few patches a thin map could vanish.
    return max(1, int(rows // times)), max(1, int(cols // times))


def pooled_side(side: int, stride: int, mode: PoolMode) -> int:
    """Return a map side after pooling; bilinear rounds up, average and max drop what is left over.

    Source: LLaVA-NeXT, llava/model/llava_arch.py, get_2dPool.

    >>> pooled_side(27, 2, "bilinear"), pooled_side(27, 2, "average")
    (14, 13)
    """
    return math.ceil(side / stride) if mode == "bilinear" else side // stride
