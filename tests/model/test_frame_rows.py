"""One frame's rows, against the same layout written out patch by patch in Python."""

import dataclasses

import pytest
import torch
from seeded_models import video_plan

from llava_video.model.frame_rows import frame_rows
from llava_video.ops.pool import pool_map_reference
from llava_video.values import Grid, Newline, VisualPlan

SIDE, WIDTH = 7, 3
NEWLINE = torch.tensor([9.0, 9.0, 9.0])
SEPARATOR = torch.tensor([-5.0, -5.0, -5.0])


def seeded(num_tiles: int) -> torch.Tensor:
    return torch.randn(num_tiles, SIDE**2, WIDTH, generator=torch.Generator().manual_seed(1))


def by_hand(features: torch.Tensor, plan: VisualPlan, stride: int, ends: bool) -> torch.Tensor:
    """Write the rows one by one: overview, merged map in raster order, newlines."""
    maps = features.view(-1, SIDE, SIDE, WIDTH)
    rows = []
    if plan.overview:
        rows += list(
            pool_map_reference(maps[:1], plan.pool_stride, plan.pool_mode)[0].flatten(0, 1)
        )
        maps = maps[1:]
    top, bottom, left, right = plan.crop
    merged = torch.empty(bottom - top, right - left, WIDTH)
    for y in range(top, bottom):
        for x in range(left, right):
            tile = (y // SIDE) * plan.grid.cols + x // SIDE
            merged[y - top, x - left] = maps[tile, y % SIDE, x % SIDE]
    size = plan.map_size if plan.pool_mode == "bilinear" and stride == plan.pool_stride else None
    pooled = pool_map_reference(merged[None], stride, plan.pool_mode, size)[0]
    for line in pooled:
        rows += list(line)
        rows += [NEWLINE] if plan.newline is Newline.ROW else []
    rows += [NEWLINE] if ends else []
    return torch.stack(rows)


ONE_TILE = video_plan(3, 0)
GRID = dataclasses.replace(
    ONE_TILE,
    fit="letterbox",
    grid=Grid(2, 3),
    overview=True,
    overview_side=4,
    crop=(1, 13, 0, 21),
    map_size=(6, 11),
)


@pytest.mark.parametrize(
    ("plan", "ends"),
    [
        (ONE_TILE, False),
        (dataclasses.replace(ONE_TILE, newline=Newline.FRAME), True),
        (dataclasses.replace(ONE_TILE, newline=Newline.NONE), False),
        (dataclasses.replace(ONE_TILE, newline=Newline.CLIP), False),
        (dataclasses.replace(ONE_TILE, pool_mode="average", map_size=(3, 3)), False),
        (dataclasses.replace(ONE_TILE, pool_mode="max", map_size=(3, 3)), False),
        (GRID, False),
        (dataclasses.replace(GRID, newline=Newline.FRAME), True),
        # A picture: no pooling, the whole map or one resized bilinearly.
        (dataclasses.replace(GRID, pool_stride=1, overview_side=7, map_size=(12, 21)), False),
        (dataclasses.replace(GRID, pool_stride=1, overview_side=7, map_size=(9, 16)), False),
    ],
)
def test_equals_the_layout_by_hand(plan: VisualPlan, ends: bool):
    features = seeded(plan.tiles_per_frame)
    rows = frame_rows(features, plan, 1, newline=NEWLINE, separator=None)
    expected = by_hand(features, plan, plan.pool_stride, ends)
    assert rows.shape == expected.shape
    assert torch.allclose(rows, expected, atol=2e-6)


def test_the_clip_ends_with_its_last_frame():
    plan = dataclasses.replace(ONE_TILE, newline=Newline.CLIP)
    lengths = [
        len(frame_rows(seeded(1), plan, idx, newline=NEWLINE, separator=None)) for idx in range(3)
    ]
    assert lengths == [16, 16, 17]


def test_slow_and_fast_frames_take_turns_and_end_with_the_separator():
    plan = dataclasses.replace(ONE_TILE, slow_every=2, fast_side=2)
    features = seeded(1)
    for idx, (side, stride) in enumerate([(4, 2), (2, 4), (4, 2)]):
        rows = frame_rows(features, plan, idx, newline=NEWLINE, separator=SEPARATOR)
        assert len(rows) == side * (side + 1) + 1
        assert torch.equal(rows[-1], SEPARATOR)
        assert torch.allclose(rows[:-1], by_hand(features, plan, stride, ends=False), atol=2e-6)
    # Fast from the full map, not from the slow one (stride 4, not 2 after 2).
    slow = frame_rows(features, ONE_TILE, 0, newline=NEWLINE, separator=None)
    slow_map = slow.view(4, 5, WIDTH)[:, :4]
    mutant = pool_map_reference(slow_map[None], 2, "bilinear")[0]
    fast = frame_rows(features, plan, 1, newline=NEWLINE, separator=SEPARATOR)
    assert not torch.allclose(fast[:-1].view(2, 3, WIDTH)[:, :2], mutant, atol=1e-3)


def test_tiles_in_column_order_are_rejected():
    features = seeded(GRID.tiles_per_frame)
    rows = frame_rows(features, GRID, 0, newline=NEWLINE, separator=None)
    columns = torch.cat([features[:1], features[1:][[0, 2, 4, 1, 3, 5]]])
    mutant = frame_rows(columns, GRID, 0, newline=NEWLINE, separator=None)
    assert not torch.allclose(rows, mutant, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid": Grid(1, 2), "fit": "letterbox"}, "for 2 tiles"),
        ({"crop": (0, 8, 0, 7)}, "crop \\(0, 8, 0, 7\\) of a map of 7 x 7"),
        ({"crop": (3, 3, 0, 7)}, "crop"),
        ({"slow_every": 2, "fast_side": 2}, "separator"),
        ({"pool_mode": "average", "map_size": (4, 4)}, "average pooling by 2"),
    ],
)
def test_plans_that_do_not_fit_are_refused(changes: dict[str, object], words: str):
    plan = dataclasses.replace(ONE_TILE, **changes)
    with pytest.raises(ValueError, match=words):
        frame_rows(seeded(1), plan, 0, newline=NEWLINE, separator=None)
