"""What a refusal suggests really fits, in every kind of refusal."""

import ast
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.errors import BudgetError
from llava_video.planning.geometry import Geometry
from llava_video.planning.planner import ImageItem, VideoItem, plan_request
from llava_video.planning.settings import PlanningSettings, SamplingSettings
from llava_video.planning.time_note import TimeNote
from llava_video.planning.way_out import way_out
from llava_video.values import Grid, Plan


def ways_of(hint: str) -> list[dict[str, object]]:
    """Read the settings of each way a hint names."""
    found = []
    for way in hint.split(", or "):
        named = re.findall(r"(\w+)=(\S+)", way.split(" (")[0])
        found.append({name: ast.literal_eval(value) for name, value in named})
    return [way for way in found if way]


def refuse_and_follow(plan: Callable[[PlanningSettings], Plan], knobs: dict) -> list[dict]:
    """Plan, expect a refusal, and plan again by each of its ways out."""
    with pytest.raises(BudgetError) as refusal:
        plan(PlanningSettings(**knobs))
    assert refusal.value.need_tokens > refusal.value.have_tokens >= 0
    assert f"{refusal.value.need_tokens:,}" in refusal.value.message
    assert f"{refusal.value.have_tokens:,}" in refusal.value.message
    ways = ways_of(refusal.value.hint)
    for way in ways:
        plan(PlanningSettings(**{**knobs, **way}))
    return ways


def hint_of(plan: Callable[[PlanningSettings], Plan], knobs: dict) -> str:
    """Return the hint of a refusal, or "" when the request fits."""
    try:
        plan(PlanningSettings(**knobs))
    except BudgetError as refusal:
        return refusal.hint
    return ""


def one_video(make_info: Callable, geometry: Geometry, text_of: Callable) -> Callable:
    item = VideoItem(info=make_info(size_px=(1080, 1920)), name="clip.mp4")
    return lambda planning: plan_request([item], geometry, planning, SamplingSettings(), text_of)


@pytest.mark.parametrize(
    ("knobs", "first"),
    [
        ({"max_video_tokens": 40}, {"max_video_tokens": 56}),  # 7 * (7 + 1)
        ({"max_video_tokens": 209, "pool_stride": 2}, {"pool_stride": 3}),  # 9 * 10 fits
        ({"max_video_tokens": 80, "pool_stride": 1}, {"pool_stride": 4}),
        ({"max_video_tokens": 2000, "grid": Grid(3, 5), "pool_stride": 2}, {"pool_stride": 3}),
        ({"max_video_tokens": 100, "grid": Grid(3, 5)}, {"grid": "off"}),
        (
            {"max_video_tokens": 100, "grid": Grid(3, 5), "pool_stride": 1},
            {"grid": "off", "pool_stride": 3},
        ),
    ],
)
def test_pinned_knobs_and_caps(
    make_info: Callable, geometry: Geometry, text_of: Callable, knobs: dict, first: dict
):
    ways = refuse_and_follow(one_video(make_info, geometry, text_of), knobs)
    assert ways[0] == first


def test_the_least_cap_that_fits(make_info: Callable, geometry: Geometry, text_of: Callable):
    plan = one_video(make_info, geometry, text_of)
    with pytest.raises(BudgetError):
        plan(PlanningSettings(max_video_tokens=55))
    assert plan(PlanningSettings(max_video_tokens=56)).visual_tokens == 56


def test_a_shorter_answer_is_the_longest_that_fits(
    make_info: Callable, geometry: Geometry, text_of: Callable
):
    plan = one_video(make_info, replace(geometry, context_tokens=600), text_of)
    answer, scale = refuse_and_follow(plan, {})
    with pytest.raises(BudgetError):
        plan(PlanningSettings(max_new_tokens=answer["max_new_tokens"] + 1))
    with pytest.raises(BudgetError):
        plan(PlanningSettings(position_scale=scale["position_scale"] - 0.01))


def test_pictures_may_be_padded(geometry: Geometry, text_of: Callable):
    item = ImageItem(height_px=1080, width_px=1920, name="a.png")
    small = replace(geometry, context_tokens=4096)

    def plan(planning: PlanningSettings) -> Plan:
        return plan_request([item], small, planning, SamplingSettings(), text_of)

    assert refuse_and_follow(plan, {})[0] == {"image_aspect": "pad"}


def long_prompt(num_tokens: int) -> Callable[[Sequence[TimeNote | None]], tuple[str, int]]:
    return lambda notes: ("…", num_tokens + sum(40 for note in notes if note))


def test_a_prompt_too_long_for_anything(make_info: Callable, geometry: Geometry):
    def plan(prompt_tokens: int) -> Plan:
        text_of = long_prompt(prompt_tokens)
        knobs = PlanningSettings(position_scale=4.0, max_new_tokens=1)
        return one_video(make_info, replace(geometry, context_tokens=1000), text_of)(knobs)

    # 4000 - 1 answer - 56 visual - 40 time sentence = 3903.
    with pytest.raises(BudgetError) as refusal:
        plan(5000)
    assert refusal.value.hint == "shorten the prompt by 1,097 tokens."
    assert plan(3903).tokens == 3999
    with pytest.raises(BudgetError):
        plan(3904)


def test_a_context_too_short_for_anything(make_info: Callable, geometry: Geometry):
    plan = one_video(make_info, replace(geometry, context_tokens=20), long_prompt(5))
    with pytest.raises(BudgetError, match="a model with a longer context"):
        plan(PlanningSettings(max_new_tokens=1))


def test_two_knobs_where_one_is_not_enough():
    """Only the coarsest stride together with the larger cap fits."""
    asked = PlanningSettings(pool_stride=1, max_video_tokens=10)
    tried = []

    def plan_with(planning: PlanningSettings, shorter_by: int) -> object:
        tried.append(planning)
        if planning.pool_stride == 4 and planning.max_video_tokens is None and not shorter_by:
            return type("Plan", (), {"visuals": (), "visual_tokens": 56})
        raise BudgetError("no", "", 2, 1)

    assert way_out(asked, plan_with, prompt_tokens=9) == (
        "pool_stride=4 and image_aspect='pad' and max_video_tokens=None (56 visual tokens)."
    )
    assert len(tried) < 40


def test_a_cache_that_was_pinned_may_be_chosen():
    """Only with the cache chosen by memory does it fit."""

    def plan_with(planning: PlanningSettings, shorter_by: int) -> object:
        if planning.kv_cache == "auto":
            return type("Plan", (), {"visuals": (), "visual_tokens": 56})
        raise BudgetError("no", "", 2, 1)

    pinned = PlanningSettings(kv_cache="plain")
    assert way_out(pinned, plan_with, prompt_tokens=9) == "kv_cache='auto' (56 visual tokens)."


def test_other_ways_come_after_the_settings_and_alone(make_info, plan_one):
    """A way that is no setting of the plan, with what it plans; no scale above "auto"."""
    plan = plan_one(make_info(90))

    def never(planning: PlanningSettings, shorter_by: int) -> Plan:
        assert planning.position_scale == "auto"
        raise BudgetError("no", "", 2, 1)

    def answer_only(planning: PlanningSettings, shorter_by: int) -> Plan:
        if planning.max_new_tokens < 512:
            return plan
        raise BudgetError("no", "", 2, 1)

    asked, others = PlanningSettings(position_scale="auto"), [({"memory": "9GiB"}, plan)]
    words = "memory='9GiB' (64 frames, 13,440 visual tokens)."
    assert way_out(asked, never, prompt_tokens=9, others=others) == words
    both = way_out(PlanningSettings(), answer_only, prompt_tokens=9, others=others)
    assert both.startswith("max_new_tokens=511 (64 frames")
    assert both.endswith(", or " + words)


@settings(max_examples=60)
@given(
    context=st.integers(50, 3000),
    cap=st.none() | st.integers(1, 3000),
    stride=st.none() | st.integers(1, 5),
    grid=st.none() | st.just("auto") | st.builds(Grid, st.integers(1, 3), st.integers(1, 3)),
    answer=st.integers(1, 1000),
    num_videos=st.integers(0, 3),
    num_images=st.integers(0, 2),
)
def test_every_way_out_fits(
    make_info: Callable,
    geometry: Geometry,
    text_of: Callable,
    context, cap, stride, grid, answer, num_videos, num_images,
):  # fmt: skip
    video = VideoItem(info=make_info(90, size_px=(1080, 1920)), name="clip.mp4")
    image = ImageItem(height_px=600, width_px=800, name="a.png")
    items = [video] * num_videos + [image] * num_images
    small = replace(geometry, context_tokens=context)
    knobs = {"max_video_tokens": cap, "pool_stride": stride, "grid": grid, "max_new_tokens": answer}

    def plan(planning: PlanningSettings) -> Plan:
        return plan_request(items, small, planning, SamplingSettings(), text_of)

    hint = hint_of(plan, knobs)
    if hint:
        ways = refuse_and_follow(plan, knobs)
        assert ways or "the prompt" in hint or "a longer context" in hint
