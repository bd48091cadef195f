"""Plans of frames that are fused with the prompt: tokens, refusals, hours of video in memory."""

import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_fixtures import MINI_8B, MINI_HD_8B, NEXT_VIDEO_7B

from llava_video.errors import BudgetError, ConfigError
from llava_video.planning.amount import parse_bytes
from llava_video.planning.geometry import Geometry
from llava_video.planning.memory import KV_FORMATS, WEIGHT_FORMATS, Setup, fixed_bytes
from llava_video.planning.planner import ImageItem, Item, VideoItem, plan_request
from llava_video.planning.precision import choose_weights
from llava_video.planning.settings import PlanningSettings, SamplingSettings
from llava_video.values import Grid, Newline, Plan

MakeInfo = Callable[..., object]
# The engine's own chunks for 24 patches a side, on a GPU.
SETUP = Setup(prefill_chunk_tokens=2048, tile_chunk=20, workspace_bytes=375_809_638)
PICTURE = ImageItem(height_px=480, width_px=640, name="p.png")


def plan_items(items: list[Item], geometry: Geometry, text_of: Callable) -> Plan:
    return plan_request(items, geometry, PlanningSettings(), SamplingSettings(), text_of)


def test_a_second_is_a_token(make_info: MakeInfo, plan_one: Callable, mini: Geometry):
    plan = plan_one(make_info(300 * 30), model=mini)
    (visual,) = plan.visuals
    assert (visual.num_frames, visual.num_tokens, visual.fit) == (300, 300, "nearest")
    assert visual.times_s[:3] == (0.0, 1.0, 2.0)
    assert plan_one(make_info(20), model=mini).visuals[0].num_frames == 1
    assert (plan.reusable_prefix, visual.is_fused, visual.note_every) == (False, True, 0)
    assert "another question looks at every frame again" in plan.reasons[0]


def test_the_whole_and_its_parts(make_info: MakeInfo, plan_one: Callable, mini_hd: Geometry):
    plan = plan_one(make_info(), model=mini_hd)
    (visual,) = plan.visuals
    assert (visual.grid, visual.overview, visual.tiles_per_frame) == (Grid(2, 2), True, 5)
    assert (visual.map_size, visual.overview_side, visual.num_tokens) == ((8, 8), 0, 10 * 64)
    assert not any("finer than the one tile" in reason for reason in plan.reasons)


def test_only_what_sees_is_bound_to_its_question(
    mini: Geometry, geometry: Geometry, text_of: Callable
):
    words, picture = plan_items([], mini, text_of), plan_items([PICTURE], mini, text_of)
    assert (words.reusable_prefix, words.reasons) == (True, ())
    assert (picture.reusable_prefix, picture.visual_tokens) == (False, 1)
    assert plan_items([PICTURE], geometry, text_of).reusable_prefix


def test_what_a_fused_model_cannot_be_asked(
    make_info: MakeInfo, plan_one: Callable, mini: Geometry, text_of: Callable
):
    info = make_info()
    knobs = (
        {"grid": Grid(2, 2)},
        {"grid": "auto"},
        {"detail": "high"},
        {"pool_stride": 2},
        {"pool_mode": "max"},
        {"newline": Newline.ROW},
    )
    for knob in knobs:
        with pytest.raises(ConfigError, match="tokens of every frame") as refusal:
            plan_one(info, model=mini, **knob)
        assert next(iter(knob)) in refusal.value.hint
    for items in ([PICTURE] * 2, [PICTURE, VideoItem(info=info, name="clip.mp4")]):
        with pytest.raises(ConfigError, match="fuses one with the prompt"):
            plan_items(items, mini, text_of)


def test_only_frames_can_be_given_up(make_info: MakeInfo, plan_one: Callable, mini: Geometry):
    plan = plan_one(make_info(300 * 30), model=mini, max_video_tokens=100)
    (visual,) = plan.visuals
    assert (visual.num_frames, visual.frame_idxs[-1]) == (100, 8999)
    given_up = [reason.split(":")[0] for reason in plan.reasons if "→" in reason]
    assert given_up == ["Frames 300 → 100"]
    with pytest.raises(BudgetError, match="one frame needs 1 tokens") as refusal:
        plan_one(make_info(), model=replace(mini, context_tokens=530), max_new_tokens=517)
    assert refusal.value.need_tokens == 1


def test_the_references_frames_of_mini(make_info: MakeInfo, plan_one: Callable, mini: Geometry):
    """Four seconds: the middles of four parts; three of them where three fit."""
    reference = SamplingSettings(compat="reference")
    info = make_info(100, 25.0)
    assert plan_one(info, model=mini, sampling=reference).visuals[0].frame_idxs == (12, 37, 62, 86)
    three = plan_one(info, model=mini, sampling=reference, max_video_tokens=3)
    assert three.visuals[0].frame_idxs == (16, 49, 82)  # borders 0, 33, 66, 99


# --- hours


def plan_hours(make_info, plan_one, hours: float, setup: Setup, model: Geometry, **knobs) -> Plan:
    """Plan a video of two frames a second, at the model's own rate of one."""
    info = make_info(round(hours * 7200), 2.0)
    return plan_one(info, model=model, setup=setup, **knobs)


def setup_of(memory: str | None, weights: str | None = None, model: Geometry = MINI_8B) -> Setup:
    return choose_weights(model, replace(SETUP, limit_bytes=parse_bytes(memory)), weights)


def test_three_hours_in_24_gb(make_info: MakeInfo, plan_one: Callable):
    """10,800 tokens of 131,072 bytes of cache and 8,192 of rows; weights as they are chosen."""
    plan = plan_hours(make_info, plan_one, 3, setup_of("24GB"), MINI_8B)
    assert (plan.visuals[0].num_frames, plan.visual_tokens) == (10_800, 10_800)
    assert (plan.weight_format, plan.kv_format) == ("int8", "plain")
    assert plan.memory.total_bytes < 15 * 10**9
    assert not any("→" in reason for reason in plan.reasons if "Weights" not in reason)
    plain = plan_hours(make_info, plan_one, 3, setup_of("24GB", "plain"), MINI_8B)
    assert (plain.visuals[0].num_frames, plain.kv_format) == (10_800, "plain")
    assert plain.memory.total_bytes < 22 * 10**9


@pytest.mark.parametrize(
    ("weights", "cache"), [(None, "int8"), ("int8", "int8"), ("int4", "plain"), ("plain", "int4")]
)
def test_a_day_in_24_gb(make_info: MakeInfo, plan_one: Callable, weights: str, cache: str):
    """86,400 tokens of a context of 131,072: nothing has to be asked but the memory."""
    plan = plan_hours(make_info, plan_one, 24, setup_of("24GB", weights), MINI_8B)
    assert plan.visuals[0].num_frames == plan.visual_tokens == 86_400
    assert (plan.weight_format, plan.kv_format) == (weights or "int8", cache)
    assert plan.memory.total_bytes <= 24 * 10**9
    assert plan.position_scale == 1.0


@pytest.mark.parametrize(
    ("kv_format", "ratio"), [("plain", 1.0625), ("int8", 1.1231), ("int4", 1.2222)]
)
def test_memory_of_one_more_frame(make_info: MakeInfo, plan_one: Callable, kv_format, ratio):
    """A token of cache and a row of 4,096 numbers: nothing else of a frame stays."""
    setup = setup_of(None, "plain")
    found = [
        plan_hours(make_info, plan_one, hours, setup, MINI_8B, kv_cache=kv_format).memory
        for hours in (1, 2)
    ]
    cache = (found[1].kv_bytes - found[0].kv_bytes) / 3600
    total = (found[1].total_bytes - found[0].total_bytes) / 3600
    assert total - cache == 8192
    assert total / cache == pytest.approx(ratio, abs=1e-4)


def test_what_does_not_fit_memory_says_what_takes_it(make_info: MakeInfo, plan_one: Callable):
    plan = plan_hours(make_info, plan_one, 24, setup_of("20GB", "plain"), MINI_8B)
    words = " ".join(plan.reasons)
    assert plan.visuals[0].num_frames < 86_400
    assert "of int4 cache and waiting rows)" in words
    assert "plain or 6.1 GiB int8 with their waiting rows" in words
    assert 19.9 * 10**9 < plan.memory.total_bytes <= 20 * 10**9


def test_a_long_prompt_is_within_memory_too(make_info: MakeInfo, mini: Geometry):
    """5,000 tokens of words go through the fusion with each frame, and wait with all of them."""
    item = VideoItem(info=make_info(86_400, 1.0), name="day.mp4")
    setup = replace(SETUP, limit_bytes=12 * 10**9, weight_format="int4")
    for words in (50, 5000):
        plan = plan_request(
            [item], mini, PlanningSettings(), SamplingSettings(), lambda _, n=words: ("", n), setup
        )
        assert 0 < plan.visual_tokens < 86_400
        assert 11.99 * 10**9 < plan.memory.total_bytes <= 12 * 10**9


# --- properties


def fineness(plan: Plan) -> tuple[int, int, int]:
    (visual,) = plan.visuals
    return -KV_FORMATS.index(plan.kv_format), -visual.pool_stride, visual.num_frames


@settings(max_examples=60)
@given(
    model=st.sampled_from((MINI_8B, MINI_HD_8B, NEXT_VIDEO_7B)),
    gib=st.floats(8, 30),
    more=st.floats(0, 8),
    weights=st.sampled_from(WEIGHT_FORMATS),
    num_frames=st.integers(1, 30_000),
    answer=st.integers(1, 2000),
)
def test_any_memory(make_info, plan_one, model, gib, more, weights, num_frames, answer):
    """A fused plan stays within it with its rows; more memory never gives a coarser plan."""
    info = make_info(num_frames, 1.0)
    many = SamplingSettings(num_frames=num_frames)

    def plan(gib: float) -> Plan | None:
        setup = replace(SETUP, limit_bytes=int(gib * 2**30), weight_format=weights)
        with contextlib.suppress(BudgetError):
            return plan_one(info, model=model, sampling=many, setup=setup, max_new_tokens=answer)
        return None

    found, finer = plan(gib), plan(gib + more)
    if found is None:
        return
    assert found.memory.total_bytes <= gib * 2**30
    assert fineness(finer) >= fineness(found)
    setup = replace(SETUP, weight_format=weights)
    rows = found.tokens * model.hidden_size * 2 if model.compressed_side else 0
    beside = fixed_bytes(model, setup, found.visuals, found.text_tokens) + rows
    assert found.memory.total_bytes - found.memory.kv_bytes <= beside
