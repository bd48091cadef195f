"""Rows of visual tokens, against the counts of the family's layouts and an independent recount."""

import doctest
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_video.errors import ConfigError
from llava_video.planning import layout as layout_module
from llava_video.planning.geometry import Geometry
from llava_video.planning.layout import (
    Layout,
    count_tokens,
    fused_layout,
    image_layout,
    layout_tokens,
    refuse_knobs,
    single_layout,
    tiled_layout,
    video_layout,
    visual_plan,
)
from llava_video.values import Grid, Newline, VisualPlan


def plan_of(layout: Layout, num_frames: int, kind: str = "video") -> VisualPlan:
    return visual_plan(
        layout,
        kind=kind,
        source="clip.mp4",
        size_px=(720, 1280),
        frame_idxs=tuple(range(num_frames)),
        times_s=tuple(float(idx) for idx in range(num_frames)),
        duration_s=float(num_frames),
    )


def rows_in_order(visual: VisualPlan) -> str:
    """Write one letter per row of the sequence: patch, newline, separator."""
    text = ""
    for idx in range(visual.num_frames):
        fast = visual.slow_every and idx % visual.slow_every
        rows, cols = (visual.fast_side,) * 2 if fast else visual.map_size
        text += "p" * visual.overview_side**2 if visual.overview else ""
        for _ in range(rows):
            text += "p" * cols + ("n" if visual.newline is Newline.ROW else "")
        text += "n" if visual.newline is Newline.FRAME else ""
        text += "s" if visual.slow_every else ""
    return text + ("n" if visual.newline is Newline.CLIP else "")


def test_the_doctests_of_the_formula():
    result = doctest.testmod(layout_module)
    assert result.attempted == 3
    assert result.failed == 0


@pytest.mark.parametrize(
    ("newline", "mode", "num_frames", "num_tokens"),
    [
        (Newline.CLIP, "bilinear", 32, 6273),  # 196 T + 1
        (Newline.ROW, "bilinear", 64, 13440),  # 210 T
        (Newline.ROW, "bilinear", 110, 23100),
        (Newline.ROW, "average", 64, 11648),  # 182 T
        (Newline.ROW, "max", 64, 11648),
        (Newline.FRAME, "bilinear", 8, 1576),  # 197 T
        (Newline.FRAME, "average", 8, 1360),  # 170 T
        (Newline.NONE, "bilinear", 8, 1568),  # 196 T
        (Newline.NONE, "average", 8, 1352),  # 169 T
    ],
)
def test_trained_video_layouts(
    geometry: Geometry, newline: Newline, mode: str, num_frames: int, num_tokens: int
):
    model = replace(geometry, newline=newline, pool_mode=mode)
    layout = video_layout(720, 1280, model)
    assert (layout.fit, layout.grid, layout.overview) == ("squeeze", Grid(1, 1), False)
    assert layout_tokens(layout, num_frames) == num_tokens
    visual = plan_of(layout, num_frames)
    assert visual.num_tokens == count_tokens(visual) == len(rows_in_order(visual)) == num_tokens


def test_slow_and_fast_frames(geometry: Geometry):
    layout = video_layout(720, 1280, replace(geometry, slow_every=10))
    assert (layout.map_size, layout.fast_side) == ((14, 14), 7)
    assert layout_tokens(layout, 64) == 7 * 211 + 57 * 57 == 4726
    visual = plan_of(layout, 21)
    rows = rows_in_order(visual)
    assert len(rows) == visual.num_tokens == 3 * 211 + 18 * 57
    assert rows.count("s") == 21


def test_fast_frames_need_row_newlines_and_one_tile(geometry: Geometry):
    model = replace(geometry, slow_every=10)
    assert video_layout(720, 1280, model, newline=Newline.FRAME).slow_every == 0
    assert video_layout(720, 1280, model, grid=Grid(1, 2)).slow_every == 0


@pytest.mark.parametrize(
    ("size_px", "num_tokens"),
    [
        ((200, 300), 1261),
        ((480, 640), 2929),
        ((720, 1280), 5967),
        ((1024, 1024), 7371),
        ((1600, 1600), 7209),
        ((1080, 1920), 7269),
        ((3024, 4032), 7309),
        ((832, 1872), 7248),  # 7263 where the product is rounded first
        ((2538, 1880), 7309),  # 7332 where it is
    ],
)
def test_still_pictures(geometry: Geometry, size_px: tuple[int, int], num_tokens: int):
    layout = image_layout(*size_px, geometry, "anyres")
    assert (layout.fit, layout.overview, layout.overview_side) == ("letterbox", True, 27)
    visual = plan_of(layout, 1, "image")
    assert visual.num_tokens == count_tokens(visual) == len(rows_in_order(visual)) == num_tokens


@pytest.mark.parametrize(("aspect", "fit"), [("pad", "pad"), ("square", "squeeze")])
def test_single_tile_pictures(geometry: Geometry, aspect: str, fit: str):
    layout = image_layout(1080, 1920, geometry, aspect)
    assert (layout.fit, layout.grid, layout.pool_stride) == (fit, Grid(1, 1), 1)
    assert layout_tokens(layout, 1) == 730
    assert layout_tokens(image_layout(9, 9, replace(geometry, has_newline=False), aspect), 1) == 729


def test_pictures_of_other_merges(geometry: Geometry):
    plain = replace(geometry, unpad=False)  # no unpadding, no shrinking, no newline
    layout = image_layout(1080, 1920, plain, "anyres")
    assert layout_tokens(layout, 1) == 729 + 81 * 135
    unlimited = image_layout(1080, 1920, replace(geometry, anyres_max=None), "anyres")
    assert layout_tokens(unlimited, 1) == 729 + 75 * (135 + 1)
    flat = replace(geometry, merge="flat")
    assert layout_tokens(image_layout(1080, 1920, flat, "pad"), 1) == 729
    with pytest.raises(ConfigError, match="flat"):
        image_layout(1080, 1920, flat, "anyres")
    with pytest.raises(ConfigError, match="canvases"):
        image_layout(9, 9, replace(geometry, aspect="pad", canvases=()), "anyres")


def test_the_recorded_pictures(shared: Path, geometry: Geometry):
    cases = json.loads((shared / "golden/onevision_video/cases/anyres_geometry.json").read_text())
    assert len(cases) == 10
    for case in cases:
        model = replace(geometry, anyres_max=int(case["image_aspect_ratio"].rsplit("_", 1)[1]))
        layout = image_layout(case["height"], case["width"], model, "anyres")
        visual = plan_of(layout, 1, "image")
        assert visual.tiles_per_frame == case["n_tiles"]
        assert [*layout.map_size] == case["final_hw"]
        rows = rows_in_order(visual)
        assert rows.count("n") == case["n_newlines"]
        assert visual.num_tokens == len(rows) == case["n_tokens"]


@pytest.mark.parametrize(
    ("newline", "per_frame", "at_end"),
    [
        (Newline.ROW, 2818, 0),  # 14 * 14 + 38 * 68 + 38
        (Newline.FRAME, 2781, 0),
        (Newline.CLIP, 2780, 1),
        (Newline.NONE, 2780, 0),
    ],
)
def test_the_worked_example(geometry: Geometry, newline: Newline, per_frame: int, at_end: int):
    layout = video_layout(1080, 1920, geometry, grid=Grid(3, 5), newline=newline)
    assert (layout.crop, layout.map_size) == ((3, 78, 0, 135), (38, 68))
    visual = plan_of(layout, 3)
    assert visual.tiles_per_frame == 16
    assert visual.num_tokens == len(rows_in_order(visual)) == 3 * per_frame + at_end


def test_wrong_formulas_of_the_worked_example_would_be_noticed(geometry: Geometry):
    truth = layout_tokens(video_layout(1080, 1920, geometry, grid=Grid(3, 5)), 1)
    overview, rows, cols = 14 * 14, 38, 68
    mutants = {
        "floor": 13 * 13 + 37 * 67 + 37,
        "no unpadding": overview + 41 * 68 + 41,
        "newlines on the overview": overview + 14 + rows * cols + rows,
        "no overview": rows * cols + rows,
        "a newline per column": overview + rows * cols + cols,
        "tiles pooled before they are merged": overview + (3 * 14 - 4) * (5 * 14) + 38,
    }
    assert truth == 2818
    assert [name for name, count in mutants.items() if count == truth] == []


def test_average_pooling_of_tiles(geometry: Geometry):
    layout = video_layout(1080, 1920, geometry, grid=Grid(3, 5), pool_mode="average")
    assert (layout.map_size, layout.overview_side) == ((37, 67), 13)


def test_newlines_a_model_does_not_have(geometry: Geometry):
    bare = replace(geometry, has_newline=False)
    assert video_layout(9, 9, bare).newline is Newline.NONE
    assert video_layout(9, 9, bare, newline=Newline.NONE).newline is Newline.NONE
    with pytest.raises(ConfigError, match="no newline token"):
        video_layout(9, 9, bare, newline=Newline.ROW)
    assert video_layout(9, 9, replace(geometry, merge="flat")).newline is Newline.NONE
    # "one_token" ends the clip only where the merge type says "unpad".
    clip = replace(geometry, newline=Newline.CLIP, unpad=False)
    assert video_layout(9, 9, clip).newline is Newline.NONE


def test_what_cannot_be_laid_out(geometry: Geometry):
    with pytest.raises(ConfigError, match="pool_stride = 28"):
        video_layout(9, 9, geometry, pool_stride=28)
    with pytest.raises(ConfigError, match="pool_stride = 99"):
        video_layout(9, 9, geometry, pool_stride=99, grid=Grid(2, 2))
    with pytest.raises(ConfigError, match="leaves nothing of 1 patches"):
        video_layout(1, 2000, geometry, pool_mode="average", grid=Grid(1, 2))
    assert video_layout(1, 2000, geometry, grid=Grid(1, 2)).map_size == (1, 27)
    with pytest.raises(ConfigError, match="joins tiles flat"):
        video_layout(9, 9, replace(geometry, merge="flat"), grid=Grid(2, 2))


@given(
    size_px=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 5),
    newline=st.sampled_from(Newline),
    num_frames=st.integers(1, 3),
    unpad=st.booleans(),
)
def test_counted_as_built(size_px, grid, stride, newline, num_frames, unpad):
    layout = tiled_layout(
        *size_px, Grid(*grid), patches_per_side=27, pool_stride=stride, newline=newline, unpad=unpad
    )
    visual = plan_of(layout, num_frames)
    assert visual.num_tokens == count_tokens(visual) == len(rows_in_order(visual))


@given(
    side=st.integers(4, 40),
    stride=st.integers(1, 4),
    mode=st.sampled_from(["bilinear", "average", "max"]),
    newline=st.sampled_from(Newline),
    slow_every=st.integers(0, 5),
    num_frames=st.integers(1, 12),
)
def test_single_tiles_counted_as_built(side, stride, mode, newline, slow_every, num_frames):
    if mode != "bilinear" and slow_every and side < 2 * stride:
        slow_every = 0
    layout = single_layout(
        patches_per_side=side,
        pool_stride=stride,
        pool_mode=mode,
        newline=newline,
        slow_every=slow_every,
    )
    visual = plan_of(layout, num_frames)
    assert visual.num_tokens == count_tokens(visual) == len(rows_in_order(visual))


# --- the other members


def test_the_recorded_pictures_of_next(shared: Path, next_pictures: Geometry):
    recorded = json.loads((shared / "golden/family/cases/anyres_tokens.json").read_text())
    model = replace(
        next_pictures, canvases=tuple((height, width) for width, height in recorded["pinpoints_wh"])
    )
    assert len(recorded["rows"]) == 24
    for row in recorded["rows"]:
        width_px, height_px = row["size_wh"]
        layout = image_layout(height_px, width_px, model, "anyres")
        assert (layout.grid.cols, layout.grid.rows) == tuple(row["grid_wh"])
        assert [*layout.map_size] == row["rows_cols_after_unpad"]
        visual = plan_of(layout, 1, "image")
        assert visual.num_tokens == len(rows_in_order(visual)) == row["image_tokens"]


def test_pictures_of_next_by_hand(next_pictures: Geometry):
    """An overview of 576, and rows of the map with a newline each; a square takes two tiles."""

    def tokens(height_px: int, width_px: int) -> int:
        return layout_tokens(image_layout(height_px, width_px, next_pictures, "anyres"), 1)

    assert tokens(336, 336) == 576 + 24 * 25
    assert tokens(480, 640) == 576 + 36 * 49
    assert tokens(900, 6) == 576 + 72  # no column is left, and a newline for each row
    assert tokens(6, 900) == 576  # no row is left


def test_one_tile_of_next_ends_with_a_newline(next_pictures: Geometry):
    for aspect, fit in (("square", "crop"), ("pad", "pad")):
        layout = image_layout(480, 640, next_pictures, aspect)
        assert (layout.fit, layout.newline, layout_tokens(layout, 1)) == (fit, Newline.CLIP, 577)


def test_a_frame_reaches_its_tile_as_the_model_wants(geometry: Geometry, next_video: Geometry):
    assert video_layout(720, 1280, geometry).fit == "squeeze"
    layout = video_layout(720, 1280, next_video)
    assert (layout.fit, layout.pool_of, layout.map_size) == ("crop", "features", (12, 12))
    assert layout_tokens(layout, 32) == 32 * 144
    assert plan_of(layout, 32).pool_of == "features"
    tiled = video_layout(720, 1280, next_video, grid=Grid(2, 2))
    assert (tiled.fit, tiled.pool_of) == ("letterbox", "features")


def test_newlines_of_next_video(next_video: Geometry):
    """The four spellings of its configuration, of 4 frames of 12 x 12."""
    expected = {Newline.NONE: 576, Newline.ROW: 624, Newline.FRAME: 580, Newline.CLIP: 577}
    for newline, num_tokens in expected.items():
        assert layout_tokens(video_layout(9, 9, next_video, newline=newline), 4) == num_tokens


@pytest.mark.parametrize("size_px", [(2, 2), (720, 1280), (4000, 30)])
def test_a_fused_frame_is_as_many_tokens_whatever_its_size(
    mini: Geometry, mini_hd: Geometry, size_px: tuple[int, int]
):
    for model, tiles, side in ((mini, 1, 24), (mini_hd, 5, 48)):
        queries = model.compressed_side
        video = video_layout(*size_px, model)
        picture = image_layout(*size_px, model, "pad")
        assert (video.fit, picture.fit) == ("nearest", "pad")
        assert image_layout(*size_px, model, "square").fit == "crop"
        assert replace(picture, fit="nearest") == video == fused_layout(model, "nearest")
        assert (video.crop, video.map_size) == ((0, side, 0, side), (queries, queries))
        visual = plan_of(video, 7)
        assert (visual.tiles_per_frame, visual.is_fused) == (tiles, True)
        assert visual.num_tokens == len(rows_in_order(visual)) == 7 * queries**2


@pytest.mark.parametrize("size_px", [(1, 1), (1, 9), (9, 1)])
def test_a_picture_of_fewer_pixels_than_blocks_is_refused(
    mini: Geometry, mini_hd: Geometry, size_px: tuple[int, int]
):
    height_px, width_px = size_px
    for aspect in ("pad", "square"):
        with pytest.raises(ConfigError, match=f"of {height_px} x {width_px} px, and ") as refusal:
            image_layout(*size_px, mini_hd, aspect)
        assert "2 x 2 blocks" in refusal.value.message
        assert refusal.value.hint == "enlarge it: 2 px or more on either side."
    # Where nothing is cut, and where a frame is made a tile before it is cut, any size will do.
    assert image_layout(*size_px, mini, "pad").is_fused
    assert video_layout(*size_px, mini_hd).grid == Grid(2, 2)


def test_a_fused_frame_has_no_other_layout(mini: Geometry):
    for knobs in (
        {"grid": Grid(2, 2)},
        {"pool_stride": 1},
        {"pool_mode": "average"},
        {"newline": Newline.NONE},
    ):
        with pytest.raises(ConfigError, match=next(iter(knobs))) as refusal:
            video_layout(720, 1280, mini, **knobs)
        assert "makes 1 x 1 tokens of every frame" in refusal.value.message
    with pytest.raises(ConfigError, match="image_aspect = 'anyres', and llava-mini") as refusal:
        image_layout(720, 1280, mini, "anyres")
    assert "makes 1 x 1 tokens of every picture" in refusal.value.message
    assert refusal.value.hint == "leave image_aspect out."  # a picture has no frames to lose
    refuse_knobs(mini, grid=None, newline=None)
    with pytest.raises(ConfigError, match="grid = 2 x 3, newline = 'row', and llava") as refusal:
        refuse_knobs(mini, grid=Grid(2, 3), detail=None, newline=Newline.ROW)
    assert refusal.value.hint == "leave grid and newline out; fewer frames take fewer tokens."
