"""Frames that go together through tower, pooling and projector: any number gives the same rows."""

import dataclasses
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import interpreted
from rows_by_hand import rows_by_hand
from seeded_models import DIMENSIONS, GRID, VISION, clips_of, filled, noise_frames, video_plan

from llava_video.errors import CapacityError, ConfigError
from llava_video.model.llava import LlavaModel
from llava_video.model.preprocess import make_tiles
from llava_video.ops import newline, pool_rows
from llava_video.values import Newline, VisualPlan

MAX = {"pool_mode": "max", "map_size": (3, 3)}
LAYOUTS = [
    *({"newline": newline} for newline in Newline),
    {"pool_mode": "average", "map_size": (3, 3)},
    MAX,
    {"pool_stride": 1, "map_size": (7, 7)},
    GRID,
    {**GRID, "newline": Newline.FRAME},
    {**GRID, "pool_mode": "max", "overview_side": 3, "map_size": (3, 6)},
    *({"slow_every": 3, "fast_side": 2, "newline": newline} for newline in Newline),
    {**MAX, "slow_every": 2, "fast_side": 1},
    {**MAX, "pool_stride": 1, "map_size": (7, 7), "slow_every": 2, "fast_side": 3},
]


def model_of(num_layers: int = 2) -> LlavaModel:
    changes = {"has_separator": True, "projector_layers": num_layers}
    return filled(LlavaModel(dataclasses.replace(DIMENSIONS, **changes)))


MODELS = {num_layers: model_of(num_layers) for num_layers in (1, 2, 3)}
MODEL = MODELS[2]


def by_hand(plan: VisualPlan, model: LlavaModel = MODEL) -> torch.Tensor:
    """Return all rows of noise by the order of the reference, frame by frame."""
    return torch.cat(
        [
            rows_by_hand(
                model.encode(make_tiles(clip, plan, tile_px=VISION.image_px)),
                plan,
                idx,
                model.image_newline,
                model.separator,
            )
            for idx, clip in enumerate(clips_of(noise_frames(plan.num_frames), 1))
        ]
    )


def all_rows(model: LlavaModel, plan: VisualPlan, tile_chunk: int) -> torch.Tensor:
    frames = noise_frames(plan.num_frames)
    return torch.cat(list(model.visual_rows(plan, clips_of(frames, 4), tile_chunk)))


@settings(max_examples=50)
@given(
    layout=st.sampled_from(LAYOUTS),
    num_frames=st.integers(1, 7),
    tile_chunk=st.integers(1, 12),
)
def test_any_tile_chunk_gives_the_same_rows(layout, num_frames, tile_chunk):
    expected = by_hand(video_plan(num_frames, 0, **layout))
    rows = all_rows(MODEL, video_plan(num_frames, len(expected), **layout), tile_chunk)
    assert (rows - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_every_layout(layout: dict[str, object], num_layers: int):
    model = MODELS[num_layers]
    expected = by_hand(video_plan(5, 0, **layout), model)
    rows = all_rows(model, video_plan(5, len(expected), **layout), 6)
    assert (rows - expected).abs().max() <= 1e-5 * expected.abs().max()


def features_by_hand(model: LlavaModel, plan: VisualPlan) -> torch.Tensor:
    """Pool the tower's features frame by frame, then project the rows; learned rows come last."""
    zero, mark = (torch.full((VISION.hidden_size,), value) for value in (0.0, torch.inf))
    rows = []
    for idx, clip in enumerate(clips_of(noise_frames(plan.num_frames), 1)):
        features = model.vision_tower(make_tiles(clip, plan, tile_px=VISION.image_px))
        marked = rows_by_hand(features, plan, idx, mark, -mark)
        own = model.projector(torch.where(marked.isinf(), zero, marked))
        own[marked[:, 0] == torch.inf] = model.image_newline
        own[marked[:, 0] == -torch.inf] = model.separator
        rows.append(own)
    return torch.cat(rows)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@torch.inference_mode()
def test_features_are_pooled_before_every_layer_of_the_projector(layout, num_layers: int):
    model = MODELS[num_layers]
    expected = features_by_hand(model, video_plan(5, 0, **layout))
    plan = video_plan(5, len(expected), pool_of="features", **layout)
    rows = all_rows(model, plan, 3)
    assert (rows - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_only_a_linear_projector_may_pool_either(num_layers: int):
    plan = video_plan(5, 5 * 20)
    either = [
        all_rows(MODELS[num_layers], dataclasses.replace(plan, pool_of=pool_of), 3)
        for pool_of in ("tokens", "features")
    ]
    is_equal = (either[0] - either[1]).abs().max() <= 1e-5 * either[0].abs().max()
    assert is_equal == (num_layers == 1)
    largest = dataclasses.replace(plan, **MAX, num_tokens=5 * 12)
    either = [
        all_rows(MODELS[num_layers], dataclasses.replace(largest, pool_of=pool_of), 3)
        for pool_of in ("tokens", "features")
    ]
    assert (either[0] - either[1]).abs().max() > 0.01


@interpreted
@pytest.mark.parametrize("layout", [{}, GRID, MAX, {"slow_every": 2, "fast_side": 2}])
def test_the_kernels_make_the_same_rows(monkeypatch, layout: dict[str, object]):
    expected = by_hand(video_plan(3, 0, **layout))
    plan = video_plan(3, len(expected), **layout)
    model = model_of()
    if torch.cuda.is_available():
        model = model.cuda()
    for op in (pool_rows, newline):
        monkeypatch.setattr(op, "uses_triton", lambda tensor: True)
    rows = all_rows(model, plan, 6).cpu()
    assert (rows - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_no_tiles_a_call_are_refused():
    with pytest.raises(ConfigError, match="tile_chunk = 0"):
        all_rows(MODEL, video_plan(2, 40), 0)


class Calls:
    """The rows that go into a model's tower and into its projector's last layer."""

    def __init__(self, model: LlavaModel) -> None:
        self.tiles: list[int] = []
        self.rows: list[int] = []
        self._made: list[weakref.ref] = []
        model.vision_tower.register_forward_hook(self._after_tower)
        model.projector.linear1.register_forward_hook(self._note)
        model.projector.linear2.register_forward_pre_hook(self._before_last)

    def _after_tower(self, module, args, features):
        self.tiles.append(len(args[0]))
        self._note(module, args, features)

    def _note(self, module, args, out):
        self._made.append(weakref.ref(out))

    def _before_last(self, module, args):
        self.rows.append(args[0].flatten(0, -2).shape[0])
        self.alive = [ref() for ref in self._made if ref() is not None]


def test_frames_go_together_through_every_stage():
    model = model_of()
    calls = Calls(model)
    all_rows(model, video_plan(7, 7 * 20), 4)
    assert calls.tiles == [4, 3]
    assert calls.rows == [4 * 20, 3 * 20]  # with room for the newlines: 16 and 4 a frame
    assert calls.alive == []  # features and what the first layer made of them


def test_frames_of_more_tiles_than_a_call_go_in_pieces():
    model = model_of()
    calls = Calls(model)
    all_rows(model, video_plan(2, 2 * 44, **GRID), 2)
    assert calls.tiles == [2, 1, 2, 1]
    assert calls.rows == [44, 44]
    together = model_of()
    calls = Calls(together)
    all_rows(together, video_plan(5, 5 * 44, **GRID), 7)
    assert calls.tiles == [6, 6, 3]


def test_max_pooling_stays_behind_the_projector():
    model = model_of()
    calls = Calls(model)
    plan = video_plan(2, 2 * 12, pool_mode="max", map_size=(3, 3))
    rows = all_rows(model, plan, 2)
    assert calls.rows == [2 * 49]
    as_average = dataclasses.replace(plan, pool_mode="average")
    assert (all_rows(model, as_average, 2) - rows).abs().max() > 1e-2


def short_of_memory(model: LlavaModel, room_tiles: int) -> list[int]:
    """Let the tower find no memory for more tiles than that; return what it was asked for."""
    asked: list[int] = []

    def refuse(module, args):
        asked.append(len(args[0]))
        if len(args[0]) > room_tiles:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    model.vision_tower.register_forward_pre_hook(refuse)
    return asked


@pytest.mark.parametrize(
    ("layout", "rows_per_frame", "room_tiles", "expected"),
    [
        ({}, 20, 8, [8, 1]),
        ({}, 20, 3, [8, 4, 2, 2, 2, 2, 1]),
        (GRID, 44, 2, [6, 3, 1, 1, 1, *[1] * 24]),
    ],
)
def test_less_memory_gives_the_same_rows(layout, rows_per_frame, room_tiles, expected):
    plan = video_plan(9, 9 * rows_per_frame, **layout)
    right = all_rows(model_of(), plan, 8)
    model = model_of()
    asked = short_of_memory(model, room_tiles)
    rows = all_rows(model, plan, 8)
    assert asked == expected
    assert (rows - right).abs().max() <= 1e-5


def test_no_memory_for_a_tile_is_an_error_and_the_model_stays_usable():
    model = model_of()
    handle = short_of_memory(model, 0)
    with pytest.raises(CapacityError, match="no memory for the vision tower") as raised:
        all_rows(model, video_plan(4, 80), 4)
    assert handle == [4, 2, 1]
    assert "fewer" in raised.value.hint
    model.vision_tower._forward_pre_hooks.clear()
    assert len(all_rows(model, video_plan(4, 80), 4)) == 80
