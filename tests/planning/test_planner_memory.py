"""Whole plans within a memory and at a position scale: they fit, are as fine as can be, say why."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.errors import BudgetError
from llava_video.planning.amount import parse_bytes
from llava_video.planning.geometry import Geometry
from llava_video.planning.memory import KV_FORMATS, WEIGHT_FORMATS, Setup, fixed_bytes
from llava_video.planning.planner import ImageItem, VideoItem, plan_request
from llava_video.planning.precision import choose_weights
from llava_video.planning.settings import PlanningSettings, SamplingSettings
from llava_video.values import Grid, Plan

GIB = 2**30
SETUP = Setup(prefill_chunk_tokens=2048, tile_chunk=8, workspace_bytes=375_809_638)
KV_BYTES = {"plain": 57_344, "int8": 29_120, "int4": 16_128}
MakeInfo = Callable[..., object]


def setup_of(gib: float | None, weight_format: str = "plain") -> Setup:
    limit_bytes = None if gib is None else int(gib * GIB)
    return replace(SETUP, limit_bytes=limit_bytes, weight_format=weight_format)


def plan_hour(make_info, plan_one, setup: Setup, num_frames: int = 3600, **knobs) -> Plan:
    info = make_info(num_frames, 1.0)
    sampling = SamplingSettings(num_frames=num_frames)
    return plan_one(info, sampling=sampling, setup=setup, **knobs)


# --- by hand


@pytest.mark.parametrize(
    ("weights", "kv", "frames"),
    [
        ("plain", "plain", 525),
        ("plain", "int8", 1034),
        ("int8", "int8", 2100),
        ("int4", "int8", 2601),
        ("int4", "plain", 1321),
    ],
)
def test_frames_in_21_5_gib(make_info, plan_one, weights: str, kv: str, frames: int):
    """The published table of 210 tokens a frame, without times and with a short prompt."""
    plan = plan_hour(
        make_info,
        plan_one,
        setup_of(21.5, weights),
        position_scale="auto",
        kv_cache=kv,
        pool_stride=2,
        time_instruction=False,
    )
    assert plan.visuals[0].num_frames == pytest.approx(frames, rel=0.02)
    assert 21.4 * GIB < plan.memory.total_bytes <= 21.5 * GIB
    assert plan.kv_format == kv
    assert plan.weight_format == weights
    tokens = plan.tokens + plan.max_new_tokens
    assert tokens <= 32768 * plan.position_scale < tokens + 328 + 1  # the next hundredth


def test_the_order_of_sacrifice(make_info, plan_one):
    """Cache, then grid and stride, then frames: each stands in the plan, with its bytes."""
    lavish = plan_hour(make_info, plan_one, setup_of(80), position_scale="auto")
    assert (lavish.kv_format, lavish.visuals[0].pool_stride) == ("plain", 2)
    found = []
    for gib in (80, 40, 30, 22, 20, 18, 16.5):
        plan = plan_hour(make_info, plan_one, setup_of(gib), position_scale="auto")
        found.append((plan.kv_format, plan.visuals[0].pool_stride, plan.visuals[0].num_frames))
        assert plan.memory.total_bytes <= gib * GIB
    # 787 thousand tokens are 42.1, 21.4 or 11.8 GiB of cache, beside 15.5 GiB of all else.
    assert found[:3] == [("plain", 2, 3600), ("int8", 2, 3600), ("int4", 2, 3600)]
    assert [kv for kv, _, _ in found[3:]] == ["int4"] * 4
    strides, frames = [stride for _, stride, _ in found], [count for _, _, count in found]
    assert strides == sorted(strides)
    assert (strides[-1], frames[-1]) == (4, frames[-1]) == (4, min(frames))
    assert [count for stride, count in zip(strides, frames, strict=True) if stride < 4] == [
        3600
    ] * strides.index(4)
    words = " ".join(plan.reasons)
    assert "Pool stride 2 → 4: 3600 frames would take 756,000 tokens (11.4 GiB of int4 cache)" in (
        words
    )
    assert re.search(r"Frames 3600 → \d+: 3600 frames would take 201,600 tokens \(3.0 GiB", words)
    assert re.search(r"Cache plain → int4: .* 42.1 GiB plain or 21.4 GiB int8, .* 16.5 GiB", words)


def test_what_other_weights_would_hold_is_true(make_info, plan_one):
    plan = plan_hour(make_info, plan_one, setup_of(21.5), position_scale="auto")
    (hint,) = [reason for reason in plan.reasons if reason.startswith("quantize=")]
    assert hint == "quantize='int8' would hold all 3,600 frames at pool stride 2."
    other = plan_hour(make_info, plan_one, setup_of(21.5, "int8"), position_scale="auto")
    assert (other.visuals[0].num_frames, other.visuals[0].pool_stride) == (3600, 2)


def test_what_a_scale_would_hold_is_true(make_info, plan_one):
    plan = plan_hour(make_info, plan_one, setup_of(None), num_frames=512, pool_stride=2)
    assert plan.visuals[0].num_frames < 512
    (hint,) = [reason for reason in plan.reasons if reason.startswith("position_scale=")]
    scale, rest = re.fullmatch(r"position_scale=([\d.]+) would hold (.*)\.", hint).groups()
    assert rest == "all 512 frames"

    def frames_at(asked: float) -> int:
        knobs = {"position_scale": asked, "pool_stride": 2}
        again = plan_hour(make_info, plan_one, setup_of(None), num_frames=512, **knobs)
        return again.visuals[0].num_frames

    assert frames_at(float(scale)) == 512 > frames_at(float(scale) - 0.01)


def test_a_stretched_plan_says_so_and_warns(make_info, plan_one):
    plan = plan_hour(make_info, plan_one, setup_of(None), num_frames=512, position_scale="auto")
    assert plan.visuals[0].pool_stride == 2
    assert 3.4 < plan.position_scale < 3.5
    assert any(f"position_scale={plan.position_scale:g} is the" in r for r in plan.reasons)
    assert "LLaVA-NeXT-Video blog" in plan.warnings[-1]
    plain = plan_hour(make_info, plan_one, setup_of(None), num_frames=60, position_scale="auto")
    assert (plain.position_scale, plain.warnings) == (1.0, ())


def test_pictures_and_words_are_stretched_for_too(geometry: Geometry, text_of: Callable):
    """Three tiled pictures of 7,269 tokens in a context of 16,384 need 1.37 of it."""
    picture = ImageItem(height_px=1080, width_px=1920, name="a.png")
    small = replace(geometry, context_tokens=16_384)

    def plan(num_images: int, **knobs: object) -> Plan:
        planning = PlanningSettings(image_aspect="anyres", **knobs)
        items = [picture] * num_images
        return plan_request(items, small, planning, SamplingSettings(), text_of, SETUP)

    with pytest.raises(BudgetError):
        plan(3)
    found = plan(3, position_scale="auto")
    assert found.position_scale == 1.37
    assert plan(0, position_scale="auto").position_scale == 1.0


def test_weights_and_cache_of_a_plan_are_told(make_info, plan_one, geometry: Geometry):
    setup = choose_weights(geometry, setup_of(12), None)
    plan = plan_hour(make_info, plan_one, setup, num_frames=64)
    assert plan.weight_format == "int8"
    assert plan.reasons[-1].startswith("Weights plain → int8, 8.9 GiB instead of 15.0 GiB")


# --- refusals


def refused(make_info, geometry: Geometry, text_of, setup: Setup, **knobs) -> BudgetError:
    item = VideoItem(info=make_info(), name="clip.mp4")
    with pytest.raises(BudgetError) as refusal:
        plan_request(
            [item], geometry, PlanningSettings(**knobs), SamplingSettings(), text_of, setup
        )
    return refusal.value


def test_no_room_for_a_frame_has_ways_out(make_info, geometry: Geometry, text_of, plan_one):
    """600 tokens of int4 cache hold no prompt, answer and frame."""
    limit = fixed_bytes(geometry, SETUP) + 600 * 16_128
    setup = replace(SETUP, limit_bytes=limit)
    error = refused(make_info, geometry, text_of, setup)
    assert error.have_tokens < error.need_tokens < 700
    assert "of int4 cache)" in error.message
    ways = dict(re.findall(r"(\w+)='?([\w.]+)'? \(", error.hint))
    assert list(ways) == ["max_new_tokens", "quantize", "memory"]
    plan_one(make_info(), setup=setup, max_new_tokens=int(ways["max_new_tokens"]))
    plan_one(make_info(), setup=replace(setup, weight_format=ways["quantize"]))
    plan_one(make_info(), setup=replace(setup, limit_bytes=parse_bytes(ways["memory"])))


def test_a_pinned_cache_may_be_let_go(make_info, geometry: Geometry, text_of, plan_one):
    limit = fixed_bytes(geometry, SETUP) + 600 * 57_344
    setup = replace(SETUP, limit_bytes=limit)
    error = refused(make_info, geometry, text_of, setup, kv_cache="plain", pool_stride=2)
    assert "kv_cache='auto' (" in error.hint
    assert plan_one(make_info(), setup=setup, pool_stride=2).kv_format == "int4"


# --- properties

MEMORY = {
    "gib": st.floats(6.5, 45),
    "weights": st.sampled_from(WEIGHT_FORMATS),
    "num_frames": st.integers(1, 2500),
    "knobs": st.fixed_dictionaries(
        {},
        optional={
            "position_scale": st.just("auto") | st.integers(100, 800).map(lambda h: h / 100),
            "kv_cache": st.sampled_from(["auto", *KV_FORMATS]),
            "pool_stride": st.integers(1, 4),
            "grid": st.just("auto") | st.builds(Grid, st.integers(1, 6), st.integers(1, 6)),
            "max_video_tokens": st.integers(50, 10**6),
            "max_new_tokens": st.integers(1, 2000),
        },
    ),
}


def planned(make_info, plan_one, gib: float, weights: str, num_frames: int, knobs) -> Plan | None:
    try:
        return plan_hour(make_info, plan_one, setup_of(gib, weights), num_frames, **knobs)
    except BudgetError:
        return None


def fineness(plan: Plan) -> tuple[int, ...]:
    """Rank what was kept; larger is finer, number by number."""
    visual = plan.visuals[0]
    tiles = visual.grid.rows * visual.grid.cols
    return -KV_FORMATS.index(plan.kv_format), tiles, -visual.pool_stride, visual.num_frames


@settings(max_examples=60)
@given(**MEMORY, more=st.floats(0, 10))
def test_any_memory(make_info, plan_one, geometry, gib, weights, num_frames, knobs, more):
    plan = planned(make_info, plan_one, gib, weights, num_frames, knobs)
    finer = planned(make_info, plan_one, gib + more, weights, num_frames, knobs)
    if plan is None:
        return
    tokens = plan.text_tokens + plan.visual_tokens + plan.max_new_tokens
    assert plan.memory.kv_bytes == tokens * KV_BYTES[plan.kv_format]
    assert plan.memory.total_bytes <= gib * GIB
    assert tokens <= int(32768 * plan.position_scale)
    assert plan.weight_format == weights
    if knobs.get("kv_cache", "auto") != "auto":
        assert plan.kv_format == knobs["kv_cache"]
    assert finer is not None
    assert all(b >= a for a, b in zip(fineness(plan), fineness(finer), strict=True))


@settings(max_examples=40)
@given(**MEMORY)
def test_any_smallest_scale(make_info, plan_one, gib, weights, num_frames, knobs):
    """A hundredth less holds not what was asked, or, where memory set the limit, not the plan."""
    knobs = {**knobs, "position_scale": "auto"}
    plan = planned(make_info, plan_one, gib, weights, num_frames, knobs)
    if plan is None or plan.position_scale == 1:
        return
    less = round(plan.position_scale - 0.01, 2)
    tokens = plan.tokens + plan.max_new_tokens
    if tokens > int(32768 * less):
        return
    smaller = planned(
        make_info, plan_one, gib, weights, num_frames, {**knobs, "position_scale": less}
    )
    assert smaller is None or fineness(smaller)[1:] != fineness(plan)[1:]
