"""Plans of every member: frames as pictures, stretched positions, fused frames, hours of video."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_fixtures import FAMILY, LLAVA_1_7B, LLAVA_15_7B, MINI_8B, MINI_HD_8B, NEXT_VIDEO_7B

from llava_video.errors import BudgetError, ConfigError
from llava_video.planning.amount import parse_bytes
from llava_video.planning.geometry import Geometry
from llava_video.planning.layout import count_tokens
from llava_video.planning.memory import KV_FORMATS, WEIGHT_FORMATS, Setup, fixed_bytes
from llava_video.planning.planner import ImageItem, Item, VideoItem, plan_request
from llava_video.planning.precision import choose_weights
from llava_video.planning.settings import PlanningSettings, SamplingSettings
from llava_video.values import Grid, Newline, Plan, VisualPlan

MakeInfo = Callable[..., object]
# The engine's own chunks for 24 patches a side, on a GPU.
SETUP = Setup(prefill_chunk_tokens=2048, tile_chunk=20, workspace_bytes=375_809_638)
PICTURE = ImageItem(height_px=480, width_px=640, name="p.png")
PICTURES = "This model was not trained on video: each frame is given as a picture of its own"


def plan_items(items: list[Item], geometry: Geometry, text_of: Callable, **knobs: object) -> Plan:
    return plan_request(items, geometry, PlanningSettings(**knobs), SamplingSettings(), text_of)


# --- frames as pictures


@pytest.mark.parametrize(
    ("model", "fit", "per_frame"), [(LLAVA_1_7B, "crop", 256), (LLAVA_15_7B, "pad", 576)]
)
def test_models_of_pictures_get_frames_as_pictures(
    make_info: MakeInfo, plan_one: Callable, model: Geometry, fit: str, per_frame: int
):
    plan = plan_one(make_info(), model=model)
    (visual,) = plan.visuals
    assert (visual.fit, visual.grid, visual.pool_stride) == (fit, Grid(1, 1), 1)
    assert (visual.num_frames, visual.num_tokens) == (8, 8 * per_frame)
    assert plan.reasons[0].startswith(PICTURES)
    assert plan.prompt.count("<image>") == 1


def test_next_ends_each_of_its_frames_with_a_newline(
    make_info: MakeInfo, plan_one: Callable, next_pictures: Geometry
):
    (visual,) = plan_one(make_info(), model=next_pictures).visuals
    assert (visual.newline, visual.num_tokens) == (Newline.FRAME, 8 * 577)


def test_a_model_of_videos_says_no_such_thing(
    make_info: MakeInfo, plan_one: Callable, next_video: Geometry, text_of: Callable
):
    plan = plan_one(make_info(), model=next_video)
    (visual,) = plan.visuals
    assert (visual.num_frames, visual.num_tokens, visual.pool_of) == (32, 32 * 144, "features")
    assert not any(PICTURES in reason for reason in plan.reasons)
    still = plan_items([PICTURE], LLAVA_15_7B, text_of)
    assert still.reasons == ()


def test_several_pictures_of_next_are_tiled_each(
    next_pictures: Geometry, geometry: Geometry, text_of: Callable
):
    """36 x 48 patches, a newline a row and an overview; two do not fit 4,096 without stretching."""
    plan = plan_items([PICTURE] * 2, next_pictures, text_of)
    assert [visual.num_tokens for visual in plan.visuals] == [2340, 2340]
    assert plan.position_scale == math.ceil((4680 + 512 + plan.text_tokens) * 100 / 4096) / 100
    padded = plan_items([PICTURE] * 2, next_pictures, text_of, image_aspect="pad")
    assert [visual.num_tokens for visual in padded.visuals] == [577, 577]
    assert "as several are trained" in plan_items([PICTURE] * 2, geometry, text_of).reasons[0]


def test_a_grid_of_pictures_is_not_compared_with_training(
    make_info: MakeInfo, plan_one: Callable, next_pictures: Geometry, next_video: Geometry
):
    few = SamplingSettings(num_frames=1)
    words = "finer than the one tile that videos are trained with"
    for model, is_said in ((next_pictures, False), (next_video, True)):
        plan = plan_one(make_info(), model=model, sampling=few, grid=Grid(2, 2))
        assert (plan.visuals[0].fit, plan.visuals[0].tiles_per_frame) == ("letterbox", 5)
        assert any(words in reason for reason in plan.reasons) == is_said
    with pytest.raises(ConfigError, match="joins tiles flat"):
        plan_one(make_info(), model=LLAVA_15_7B, grid=Grid(2, 2))


# --- stretched positions


def test_positions_are_stretched_where_the_context_is_short(
    make_info: MakeInfo, plan_one: Callable
):
    """4,608 visual tokens, 512 for the answer and the prompt's, in 4,096 positions."""
    plan = plan_one(make_info(), model=LLAVA_15_7B)
    tokens = 4608 + 512 + plan.text_tokens
    assert plan.position_scale == math.ceil(tokens * 100 / 4096) / 100
    assert plan.position_scale > 1
    (reason,) = [reason for reason in plan.reasons if reason.startswith("position_scale=")]
    assert reason.endswith("Taken unasked: position_scale=1 keeps positions as trained.")
    assert any("lie closer than in training" in warning for warning in plan.warnings)
    roomy = plan_one(make_info(), model=replace(LLAVA_15_7B, context_tokens=32_768))
    assert (roomy.position_scale, roomy.warnings) == (1.0, ())


def test_plain_positions_can_be_asked_for(make_info: MakeInfo, plan_one: Callable):
    """Then frames are pooled: 8 of 12 x 12."""
    plan = plan_one(make_info(), model=LLAVA_15_7B, position_scale=1.0)
    (visual,) = plan.visuals
    assert (plan.position_scale, visual.pool_stride, visual.num_tokens) == (1.0, 2, 8 * 144)
    assert "Pool stride 1 → 2" in " ".join(plan.reasons)
    unstretched = plan_one(make_info(), model=replace(LLAVA_15_7B, stretches=False))
    assert unstretched.visuals == plan.visuals


def test_no_further_than_what_is_published(make_info: MakeInfo, plan_one: Callable):
    """64 frames of 576 are beyond four contexts; of 144 they are 9,216, two and a half."""

    def plan(num_frames: int, **knobs: object) -> Plan:
        many = SamplingSettings(num_frames=num_frames)
        info = make_info(num_frames)
        return plan_one(info, model=LLAVA_15_7B, sampling=many, **knobs)

    plan_64 = plan(64)
    assert plan_64.visuals[0].pool_stride == 2
    assert plan_64.position_scale == math.ceil((plan_64.tokens + 512) * 100 / 4096) / 100 < 2.5
    far = plan(1000)
    assert (far.visuals[0].pool_stride, far.position_scale <= 4.0) == (4, True)
    assert far.visuals[0].num_frames == (4 * 4096 - 512 - far.text_tokens) // 36
    (hint,) = [reason for reason in far.reasons if "would hold" in reason]
    assert hint.startswith("position_scale=")  # further than anything published, where it is asked
    asked = plan(1000, position_scale="auto")
    assert asked.position_scale > 4.0
    assert (asked.visuals[0].num_frames, asked.visuals[0].pool_stride) == (1000, 2)


@pytest.mark.parametrize(("num_frames", "scale"), [(21, 1.0), (22, 2.0), (49, 2.0), (50, 3.0)])
def test_the_rule_of_the_demo(
    make_info: MakeInfo, plan_one: Callable, next_video: Geometry, num_frames: int, scale: float
):
    sampling = SamplingSettings(num_frames=num_frames)
    plan = plan_one(make_info(), model=next_video, sampling=sampling, position_scale="reference")
    assert plan.position_scale == scale
    assert plan.visuals[0].num_frames == num_frames
    assert any("rule of LLaVA-NeXT-Video's demo" in r for r in plan.reasons) == (scale > 1)
    own = replace(next_video, context_tokens=8192, rope_scale=2.0)
    plan = plan_one(make_info(), model=own, sampling=sampling, position_scale="reference")
    assert plan.position_scale == max(1.0, scale / 2)


def test_the_rule_of_the_demo_counts_the_stride_that_was_asked(
    make_info: MakeInfo, plan_one: Callable, next_video: Geometry
):
    """87 frames of 6 x 6 and 1,000 are 4,132."""
    for num_frames, scale in ((86, 1.0), (87, 2.0)):
        sampling = SamplingSettings(num_frames=num_frames)
        knobs = {"model": next_video, "sampling": sampling, "position_scale": "reference"}
        for stride in ({"pool_stride": 4}, {"detail": "low"}):
            assert plan_one(make_info(), **knobs, **stride).position_scale == scale


# --- fused frames


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


# --- properties

KNOBS = st.fixed_dictionaries(
    {},
    optional={
        "max_video_tokens": st.integers(1, 40_000),
        "max_new_tokens": st.integers(1, 2000),
        "position_scale": st.sampled_from([None, "auto", "reference"]) | st.floats(1, 4),
        "kv_cache": st.sampled_from(["auto", *KV_FORMATS]),
        "time_instruction": st.booleans(),
    },
)
SAMPLING = st.fixed_dictionaries(
    {},
    optional={
        "num_frames": st.integers(1, 300),
        "max_frames": st.integers(1, 300),
        "compat": st.sampled_from(["pts", "reference"]),
    },
)
REQUESTS = {
    "model": st.sampled_from(FAMILY),
    "own_scale": st.sampled_from([1.0, 2.0, 2.5]),
    "num_frames": st.integers(1, 3000),
    "size_px": st.tuples(st.integers(1, 2500), st.integers(1, 2500)),
    "knobs": KNOBS,
    "sampling": SAMPLING,
}


def scaled(model: Geometry, own_scale: float) -> Geometry:
    tokens = int(model.context_tokens * own_scale)
    return replace(model, context_tokens=tokens, rope_scale=own_scale)


def tokens_by_hand(visual: VisualPlan, model: Geometry) -> int:
    """Count what the family's facts say of frames without a grid."""
    if model.compressed_side:
        return visual.num_frames * model.compressed_side**2
    side = -(-model.patches_per_side // visual.pool_stride)
    if model.pool_mode == "average":
        side = model.patches_per_side // visual.pool_stride
    return visual.num_frames * (side**2 + (model.newline is Newline.FRAME))


def fineness(plan: Plan) -> tuple[int, int]:
    (visual,) = plan.visuals
    return -visual.pool_stride, visual.num_frames


@settings(max_examples=150)
@given(**REQUESTS)
def test_any_video_of_any_member(
    make_info, plan_one, model, own_scale, num_frames, size_px, knobs, sampling
):
    """It fits and is counted right; more room never gives a coarser plan."""
    model = scaled(model, own_scale)
    info, asked = make_info(num_frames, size_px=size_px), SamplingSettings(**sampling)

    def plan(**changed: object) -> Plan | None:
        with contextlib.suppress(BudgetError):
            return plan_one(info, model=model, sampling=asked, **{**knobs, **changed})
        return None

    found = plan()
    if found is None:
        return
    (visual,) = found.visuals
    answer = knobs.get("max_new_tokens", 512)
    assert visual.num_tokens == count_tokens(visual) == tokens_by_hand(visual, model)
    assert found.tokens + answer <= int(model.context_tokens * found.position_scale)
    assert found.visual_tokens <= found.budget_tokens
    assert found.visual_tokens <= knobs.get("max_video_tokens", found.visual_tokens)
    assert found.reusable_prefix == (not model.compressed_side)
    assert (visual.num_tokens, visual.fit) == (found.visual_tokens, model.video_fit)
    assert model.is_video_trained == (not found.reasons[0].startswith(PICTURES))
    if knobs.get("position_scale") is None:
        most = max(1.0, 4.0 / own_scale) if model.stretches else 1.0
        assert 1.0 <= found.position_scale <= most
    finer = plan(max_new_tokens=(answer + 1) // 2)
    assert fineness(finer) >= fineness(found)
    if "max_video_tokens" in knobs:
        assert fineness(plan(max_video_tokens=knobs["max_video_tokens"] + 500)) >= fineness(found)


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
    rank = KV_FORMATS.index
    assert (-rank(finer.kv_format), *fineness(finer)) >= (-rank(found.kv_format), *fineness(found))
    setup = replace(SETUP, weight_format=weights)
    rows = found.tokens * model.hidden_size * 2 if model.compressed_side else 0
    beside = fixed_bytes(model, setup, found.visuals, found.text_tokens) + rows
    assert found.memory.total_bytes - found.memory.kv_bytes <= beside
