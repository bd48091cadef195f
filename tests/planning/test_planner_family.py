"""Plans of every member: frames as pictures, stretched positions, and whatever is asked."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_fixtures import FAMILY, LLAVA_1_7B, LLAVA_15_7B

from llava_video.errors import BudgetError, ConfigError
from llava_video.planning.geometry import Geometry
from llava_video.planning.layout import count_tokens
from llava_video.planning.memory import KV_FORMATS
from llava_video.planning.planner import ImageItem, Item, plan_request
from llava_video.planning.settings import PlanningSettings, SamplingSettings
from llava_video.values import Grid, Newline, Plan, VisualPlan

MakeInfo = Callable[..., object]
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


def test_a_model_without_grids_says_so(make_info: MakeInfo, plan_one: Callable):
    plan = plan_one(make_info(size_px=(1080, 1920)), model=LLAVA_15_7B, detail="high")
    assert plan.visuals[0].grid == Grid(1, 1)
    assert "This model has no grids: a frame is one tile." in plan.reasons
    assert not any("so small a frame" in reason for reason in plan.reasons)


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
