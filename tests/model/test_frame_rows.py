"""Rows of frames, many at once, against the same layout written out patch by patch in Python."""

import dataclasses

import pytest
import torch
from rows_by_hand import rows_by_hand
from seeded_models import video_plan

from llava_video.model.frame_rows import grouped, layout_of, pooled_rows
from llava_video.ops.pool import pool_map_reference
from llava_video.values import Grid, Newline, VisualPlan

SIDE, WIDTH = 7, 3
NEWLINE = torch.tensor([9.0, 9.0, 9.0])
SEPARATOR = torch.tensor([-5.0, -5.0, -5.0])


def seeded(num_tiles: int) -> torch.Tensor:
    return torch.randn(num_tiles, SIDE**2, WIDTH, generator=torch.Generator().manual_seed(1))


def made(
    features: torch.Tensor,
    plan: VisualPlan,
    frame_idxs: range,
    *,
    newline: torch.Tensor | None = NEWLINE,
    separator: torch.Tensor | None = SEPARATOR,
    gelu: bool = False,
) -> list[torch.Tensor]:
    """Return the rows of each frame of features (frames x tiles, P, D), in order of the frames."""
    groups = grouped(plan, frame_idxs)
    order = [idx - frame_idxs.start for group in groups for idx in group.frame_idxs]
    tiles = features.unflatten(0, (-1, plan.tiles_per_frame))[order].flatten(0, 1)
    rows = pooled_rows(tiles, groups, gelu=gelu)
    found = {}
    for group in groups:
        group.layout.write_learned(group.rows_of(rows), newline=newline, separator=separator)
        found |= dict(zip(group.frame_idxs, group.rows_of(rows), strict=True))
    return [found[idx] for idx in frame_idxs]


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
LAYOUTS = [
    ONE_TILE,
    *(dataclasses.replace(ONE_TILE, newline=newline) for newline in Newline),
    dataclasses.replace(ONE_TILE, pool_mode="average", map_size=(3, 3)),
    dataclasses.replace(ONE_TILE, pool_mode="max", map_size=(3, 3)),
    GRID,
    *(dataclasses.replace(GRID, newline=newline) for newline in Newline),
    dataclasses.replace(GRID, pool_mode="average", overview_side=3, map_size=(6, 10)),
    dataclasses.replace(GRID, pool_mode="max", overview_side=3, map_size=(6, 10)),
    # A picture: no pooling, the whole map or one resized bilinearly.
    dataclasses.replace(GRID, pool_stride=1, overview_side=7, map_size=(12, 21)),
    dataclasses.replace(GRID, pool_stride=1, overview_side=7, map_size=(9, 16)),
    dataclasses.replace(ONE_TILE, pool_mode="max", pool_stride=1, map_size=(7, 7)),
    *(
        dataclasses.replace(ONE_TILE, slow_every=2, fast_side=2, newline=newline)
        for newline in Newline
    ),
    dataclasses.replace(GRID, slow_every=3, fast_side=2, newline=Newline.FRAME),
    dataclasses.replace(
        ONE_TILE, slow_every=2, pool_stride=1, map_size=(7, 7), pool_mode="max", fast_side=3
    ),
]


@pytest.mark.parametrize("plan", LAYOUTS)
def test_all_frames_at_once_equal_each_by_hand(plan: VisualPlan):
    features = seeded(plan.num_frames * plan.tiles_per_frame)
    rows = made(features, plan, range(plan.num_frames))
    for idx, own in enumerate(torch.split(features, plan.tiles_per_frame)):
        expected = rows_by_hand(own, plan, idx, NEWLINE, SEPARATOR)
        assert rows[idx].shape == expected.shape
        assert layout_of(plan, idx).num_rows == len(expected)
        assert torch.allclose(rows[idx], expected, atol=2e-6)


@pytest.mark.parametrize(
    ("changes", "newline", "num_ends"),
    [
        # 6 x 900 px and 900 x 6 px: no column, and no row, is left of three tiles.
        ({"grid": Grid(3, 1), "crop": (0, 21, 3, 3), "map_size": (21, 0)}, Newline.ROW, 21),
        ({"grid": Grid(1, 3), "crop": (3, 3, 0, 21), "map_size": (0, 21)}, Newline.ROW, 0),
        ({"grid": Grid(3, 1), "crop": (0, 21, 3, 3), "map_size": (21, 0)}, Newline.NONE, 0),
        ({"grid": Grid(1, 3), "crop": (3, 3, 0, 21), "map_size": (0, 21)}, Newline.CLIP, 1),
    ],
)
@pytest.mark.parametrize("gelu", [True, False])
def test_a_sliver_of_a_picture_is_its_overview_and_row_ends(changes, newline, num_ends, gelu):
    plan = video_plan(1, 0, fit="letterbox", overview=True, overview_side=7, pool_stride=1)
    plan = dataclasses.replace(plan, **changes, newline=newline)
    features = seeded(4)
    (rows,) = made(features.clone(), plan, range(1), gelu=gelu)
    overview = torch.nn.functional.gelu(features[0]) if gelu else features[0]
    assert torch.equal(rows, torch.cat((overview, NEWLINE.expand(num_ends, WIDTH))))
    assert layout_of(plan, 0).num_rows == 49 + num_ends
    assert layout_of(plan, 0).is_linear


def test_the_gelu_comes_before_the_pooling():
    features = seeded(3)
    rows = made(features.clone(), ONE_TILE, range(3), gelu=True)
    activated = torch.nn.functional.gelu(features)
    for idx in range(3):
        expected = rows_by_hand(activated[idx : idx + 1], ONE_TILE, idx, NEWLINE)
        assert torch.allclose(rows[idx], expected, atol=2e-6)
    after = made(features.clone(), ONE_TILE, range(3))[0][0]
    assert not torch.allclose(rows[0][0], torch.nn.functional.gelu(after), atol=1e-3)


def test_room_for_learned_vectors_is_zero_until_they_are_written():
    """A matrix product reads it before."""
    plan = dataclasses.replace(ONE_TILE, slow_every=2, fast_side=2)
    groups = grouped(plan, range(3))
    rows = pooled_rows(seeded(3), groups, gelu=False)
    slow = groups[0].rows_of(rows)
    assert slow.shape == (2, 21, WIDTH)
    is_empty = (slow == 0).all(dim=2)
    assert is_empty.nonzero()[:, 1].tolist() == [4, 9, 14, 19, 20] * 2


def test_groups_are_frames_of_one_layout_in_order():
    plan = video_plan(6, 0, slow_every=3, fast_side=2, newline=Newline.CLIP)
    groups = grouped(plan, range(1, 6))
    assert [group.frame_idxs for group in groups] == [(1, 2, 4), (3,), (5,)]
    # Fast 4 rows and a separator, slow 16 and one, the last fast and the clip's newline.
    assert [group.layout.num_rows for group in groups] == [5, 17, 6]
    assert [group.first_row for group in groups] == [0, 15, 32]
    assert len(grouped(video_plan(50, 0), range(50))) == 1


@pytest.mark.parametrize(
    ("changes", "is_linear"),
    [
        ({}, True),
        ({"pool_mode": "average", "map_size": (3, 3)}, True),
        ({"pool_mode": "max", "map_size": (3, 3)}, False),
        ({"pool_mode": "max", "pool_stride": 1, "map_size": (7, 7)}, True),
        ({"pool_mode": "max", "pool_stride": 1, "map_size": (5, 6)}, True),
    ],
)
def test_only_means_of_patches_commute_with_a_linear_layer(changes, is_linear: bool):
    assert layout_of(dataclasses.replace(ONE_TILE, **changes), 0).is_linear is is_linear


def test_a_fast_frame_of_a_map_left_as_it_is_is_pooled():
    changes = {"pool_mode": "max", "pool_stride": 1, "map_size": (7, 7), "slow_every": 2}
    plan = dataclasses.replace(ONE_TILE, **changes, fast_side=3)
    assert [layout_of(plan, idx).is_linear for idx in (0, 1)] == [True, False]
    overview = dataclasses.replace(GRID, pool_mode="max", overview_side=3, map_size=(12, 21))
    assert not layout_of(overview, 0).is_linear  # its merged map is, its overview is not


def test_the_clip_ends_with_its_last_frame():
    plan = dataclasses.replace(ONE_TILE, newline=Newline.CLIP)
    assert [len(rows) for rows in made(seeded(3), plan, range(3))] == [16, 16, 17]


def test_slow_and_fast_frames_take_turns_and_end_with_the_separator():
    plan = dataclasses.replace(ONE_TILE, slow_every=2, fast_side=2)
    features = seeded(1).expand(3, -1, -1).contiguous()
    rows = made(features, plan, range(3))
    for own, side in zip(rows, (4, 2, 4), strict=True):
        assert len(own) == side * (side + 1) + 1
        assert torch.equal(own[-1], SEPARATOR)
    # Fast from the full map, not from the slow one (stride 4, not 2 after 2).
    slow_map = rows[0][:-1].view(4, 5, WIDTH)[:, :4]
    mutant = pool_map_reference(slow_map[None], 2, "bilinear")[0]
    assert not torch.allclose(rows[1][:-1].view(2, 3, WIDTH)[:, :2], mutant, atol=1e-3)


def test_tiles_in_column_order_are_rejected():
    features = seeded(GRID.tiles_per_frame)
    (rows,) = made(features, GRID, range(1))
    columns = torch.cat([features[:1], features[1:][[0, 2, 4, 1, 3, 5]]])
    (mutant,) = made(columns, GRID, range(1))
    assert not torch.allclose(rows, mutant, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crop": (0, 8, 0, 7)}, "crop \\(0, 8, 0, 7\\) of a map of 7 x 7"),
        ({"crop": (3, 3, 0, 7)}, "no patch left"),
        ({"crop": (4, 3, 0, 7)}, "crop"),
        ({"slow_every": 2, "fast_side": 2}, "separator"),
        ({"newline": Newline.FRAME}, "there is no newline"),
        ({"pool_mode": "average", "map_size": (4, 4)}, "average pooling by 2"),
    ],
)
def test_plans_that_do_not_fit_are_refused(changes: dict[str, object], words: str):
    plan = dataclasses.replace(ONE_TILE, **{"newline": Newline.NONE, **changes})
    with pytest.raises(ValueError, match=words):
        made(seeded(plan.tiles_per_frame), plan, range(1), newline=None, separator=None)


def test_features_of_other_frames_are_refused():
    plan = dataclasses.replace(GRID, grid=Grid(1, 2))
    with pytest.raises(ValueError, match="for 3 tiles"):
        pooled_rows(seeded(2), grouped(plan, range(1)), gelu=False)
    with pytest.raises(ValueError, match="for 2 tiles"):
        pooled_rows(seeded(2)[:, :-1], grouped(ONE_TILE, range(2)), gelu=False)


def test_rows_of_another_number_are_refused():
    layout = layout_of(ONE_TILE, 0)
    maps = seeded(1).view(1, 1, SIDE, SIDE, WIDTH)
    with pytest.raises(ValueError, match="20 rows"):
        layout.pool(maps, torch.empty(1, 19, WIDTH), gelu=False)
