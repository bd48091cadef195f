"""Canvas, placement and map sizes are the reference's, rounding by rounding."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_video.planning.geometry import Geometry
from llava_video.planning.grid import (
    choose_canvas,
    choose_grid,
    coarser_grids,
    pooled_side,
    shrunk_size,
    unpad_window,
)
from llava_video.values import Grid, PoolMode

SIDES_PX = st.integers(1, 5000)


def window_size(window: tuple[int, int, int, int]) -> tuple[int, int]:
    top, bottom, left, right = window
    return bottom - top, right - left


@pytest.mark.parametrize(
    ("size_px", "canvas"),
    [
        ((200, 300), (384, 384)),
        ((360, 640), (384, 768)),
        ((768, 1024), (768, 1152)),
        ((1600, 1600), (1920, 1920)),
        ((500, 3000), (384, 2304)),  # nothing keeps all 1.5 Mpx; this wastes nothing
        ((1900, 100), (1920, 384)),
        ((1080, 1920), (1152, 1920)),
    ],
)
def test_canvases(geometry: Geometry, size_px: tuple[int, int], canvas: tuple[int, int]):
    assert choose_canvas(*size_px, geometry.canvases) == canvas


def test_the_first_of_equal_canvases_wins():
    # 100 x 100 on 200 x 300 and on 300 x 200: 10,000 effective pixels, 50,000 wasted, both.
    assert choose_canvas(100, 100, [(200, 300), (300, 200)]) == (200, 300)
    assert choose_canvas(100, 100, [(300, 200), (200, 300)]) == (300, 200)


def test_least_waste_decides_only_among_equals():
    # 384 x 384 wastes nothing of itself, but keeps a quarter of the pixels.
    assert choose_canvas(768, 768, [(384, 384), (1152, 1152)]) == (1152, 1152)


def test_scaled_sides_are_truncated(geometry: Geometry):
    """On 1536 x 2304 the frame is 2303.5 px wide: 2303, so 1920 x 2304 keeps more of it."""
    assert choose_canvas(1563, 2344, geometry.canvases) == (1920, 2304)
    assert round(2344 * (1536 / 1563)) == 2304  # rounded, both keep the same, and this wastes less


@pytest.mark.parametrize(
    ("size_px", "map_size", "kept"),
    [
        ((200, 300), (27, 27), (19, 27)),  # int(18.0) = 18, border 4, 19 rows stay
        ((360, 640), (27, 54), (27, 48)),
        ((1080, 1920), (81, 135), (75, 135)),
        ((1200, 1600), (108, 135), (102, 135)),  # int(101.25) = 101, border 3
        ((500, 3000), (27, 162), (27, 162)),
    ],
)
def test_unpadding(size_px: tuple, map_size: tuple, kept: tuple):
    assert window_size(unpad_window(*size_px, *map_size)) == kept


@pytest.mark.parametrize(
    ("size_px", "grid", "kept", "rounded_first"),
    [((832, 1872), (3, 5), (59, 135), 61), ((2538, 1880), (6, 5), (162, 119), 121)],
)
def test_rounding_before_truncating_would_be_noticed(
    geometry: Geometry, size_px: tuple, grid: tuple, kept: tuple, rounded_first: int
):
    """832 * (135 / 1872) is 59.999… in floating point; transformers rounds it to 60 first."""
    assert choose_grid(*size_px, geometry.canvases, 384) == Grid(*grid)
    rows, cols = 27 * grid[0], 27 * grid[1]
    assert window_size(unpad_window(*size_px, rows, cols)) == kept
    height, width = size_px
    wide = width / height > cols / rows
    product = height * (cols / width) if wide else width * (rows / height)
    side = rows if wide else cols
    border = (side - int(round(product, 7))) // 2
    assert side - 2 * border == rounded_first


def test_a_sliver_keeps_a_line():
    assert window_size(unpad_window(1, 10000, 54, 54)) == (2, 54)
    assert window_size(unpad_window(10000, 1, 27, 27)) == (27, 1)


def test_a_sliver_may_vanish_as_in_the_reference():
    """6 of 900 px are int(6 * 72 / 900) = 0 of 24 patches, 24 of 600 px one: two stay."""
    assert window_size(unpad_window(6, 900, 24, 72, keeps_line=False)) == (0, 72)
    assert window_size(unpad_window(900, 6, 72, 24, keeps_line=False)) == (72, 0)
    assert window_size(unpad_window(6, 900, 24, 72)) == (2, 72)
    assert window_size(unpad_window(600, 24, 48, 24, keeps_line=False)) == (48, 2)


@given(SIDES_PX, SIDES_PX)
def test_only_what_vanishes_is_kept(height_px: int, width_px: int):
    kept = window_size(unpad_window(height_px, width_px, 48, 72))
    bare = window_size(unpad_window(height_px, width_px, 48, 72, keeps_line=False))
    assert kept == bare or (0 in bare and 0 not in kept)


def test_shrinking():
    assert shrunk_size(75, 135, 9, 27) == (60, 108)
    assert shrunk_size(102, 135, 4, 27) == (46, 62)
    assert shrunk_size(98, 81, 9, 27) == (98, 81)  # 1.0999 times: just left alone
    assert shrunk_size(162, 162, None, 27) == (162, 162)
    assert shrunk_size(1, 24, 1, 4) == (1, 19)  # 1 // 1.22 would be no row


def test_shrinking_by_whole_division_would_be_noticed():
    """135 // (135 / 81) is 80 in floating point, though 135 / (135 / 81) is 81."""
    assert shrunk_size(135, 135, 9, 27) == (80, 80)
    times = math.sqrt(135 * 135 / (9 * 27**2))
    assert round(135 / times) == int(135 / times + 1e-9) == 81


@pytest.mark.parametrize(
    ("mode", "sides"),
    [
        ("bilinear", {1: 27, 2: 14, 3: 9, 4: 7}),
        ("average", {1: 27, 2: 13, 3: 9, 4: 6}),
        ("max", {1: 27, 2: 13, 3: 9, 4: 6}),
    ],
)
def test_pooled_sides(mode: PoolMode, sides: dict[int, int]):
    assert {stride: pooled_side(27, stride, mode) for stride in sides} == sides


def test_wrong_roundings_of_pooling_would_be_noticed():
    modes = get_args(PoolMode)
    truth = [pooled_side(27, 2, mode) for mode in modes]
    for wrong in (math.ceil, math.floor):
        assert [wrong(27 / 2) for _ in modes] != truth


def test_the_recorded_cases(shared: Path, geometry: Geometry):
    cases = json.loads((shared / "golden/onevision_video/cases/anyres_geometry.json").read_text())
    assert len(cases) == 10
    for case in cases:
        size_px = case["height"], case["width"]
        # One case has N = 4, whose checkpoints list fewer canvases; this list is the 6 x 6 one.
        canvas = choose_canvas(*size_px, geometry.canvases)
        assert [*canvas[::-1]] == case["best_resolution_wh"]
        grid = choose_grid(*size_px, geometry.canvases, 384)
        assert [grid.cols, grid.rows] == case["grid_wh"]
        kept = window_size(unpad_window(*size_px, 27 * grid.rows, 27 * grid.cols))
        assert [*kept] == case["unpadded_hw"]
        most = int(case["image_aspect_ratio"].rsplit("_", 1)[1])
        assert [*shrunk_size(*kept, most, 27)] == case["final_hw"]


@given(height_px=SIDES_PX, width_px=SIDES_PX)
def test_a_picture_lies_inside_its_map(geometry: Geometry, height_px: int, width_px: int):
    canvas = choose_canvas(height_px, width_px, geometry.canvases)
    rows, cols = 27 * canvas[0] // 384, 27 * canvas[1] // 384
    top, bottom, left, right = unpad_window(height_px, width_px, rows, cols)
    assert 0 <= top < bottom <= rows
    assert 0 <= left < right <= cols
    assert top == rows - bottom
    assert left == cols - right


@given(height_px=SIDES_PX, width_px=SIDES_PX)
def test_coarser_grids_have_fewer_tiles(geometry: Geometry, height_px: int, width_px: int):
    grids = coarser_grids(height_px, width_px, geometry.canvases, 384)
    num_tiles = [grid.rows * grid.cols for grid in grids]
    assert num_tiles == sorted(set(num_tiles), reverse=True)
    assert all(count > 1 for count in num_tiles)
    best = choose_grid(height_px, width_px, geometry.canvases, 384)
    assert grids[:1] == ([] if best == Grid(1, 1) else [best])


def test_coarser_grids_by_hand(geometry: Geometry):
    # Of a square: 768 x 768 keeps all of 600 x 600; below four tiles, three in a row keep no more
    # than 384 x 384 px of it, and waste more than one tile does.
    assert coarser_grids(600, 600, geometry.canvases, 384) == [Grid(2, 2)]
    assert coarser_grids(240, 320, geometry.canvases, 384) == []


def test_coarser_grids_miss_no_number_of_tiles(geometry: Geometry):
    """A frame six times as wide as high keeps 384 n columns of n tiles in a row."""
    rows_of_tiles = [Grid(1, cols) for cols in (6, 5, 4, 3, 2)]
    assert coarser_grids(500, 3000, geometry.canvases, 384) == rows_of_tiles


def test_coarser_grids_of_full_hd(geometry: Geometry):
    """Pixels kept, at 16:9: 1920, 1536, 1365 (768 rows), 1152, 768 and 768 columns of them."""
    assert coarser_grids(1080, 1920, geometry.canvases, 384) == [
        Grid(3, 5),
        Grid(3, 4),  # 1536 x 864
        Grid(2, 4),  # 1365 x 768
        Grid(2, 3),  # 1152 x 648
        Grid(2, 2),  # 768 x 432, and no better with three in a row: 682 x 384
        Grid(1, 2),  # 682 x 384
    ]


def test_no_canvas_no_grid(make_info: Callable):
    assert coarser_grids(1080, 1920, (), 384) == []
