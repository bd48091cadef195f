"""A plan written as JSON is read back equal, and a broken one is refused."""

import json
from collections.abc import Callable

import pytest

from llava_video.errors import ConfigError
from llava_video.planning.geometry import Geometry
from llava_video.planning.plan_json import plan_from_json
from llava_video.planning.planner import ImageItem, VideoItem, plan_request
from llava_video.planning.settings import PlanningSettings, SamplingSettings
from llava_video.values import Grid, Newline, Plan


@pytest.fixture
def plan(make_info: Callable, geometry: Geometry, text_of: Callable) -> Plan:
    """A plan of a video of tiles and a picture, with times that have no short decimals."""
    items = [
        VideoItem(info=make_info(299, 29.97, size_px=(1080, 1920)), name="Katze äöü.mp4"),
        ImageItem(height_px=600, width_px=800, name="b.png"),
    ]
    planning = PlanningSettings(detail="high", position_scale=1.25, newline=Newline.FRAME)
    return plan_request(items, geometry, planning, SamplingSettings(num_frames=7), text_of)


def test_round_trip(plan: Plan):
    again = plan_from_json(plan.to_json())
    assert again == plan
    assert isinstance(again.visuals[0].grid, Grid)
    assert again.visuals[0].newline is Newline.FRAME
    assert again.visuals[0].times_s == plan.visuals[0].times_s
    assert again.visual_tokens == plan.visual_tokens
    assert again.to_json() == plan.to_json()


def test_the_text_is_for_people_too(plan: Plan):
    values = json.loads(plan.to_json())
    assert values["visuals"][0]["source"] == "Katze äöü.mp4"
    assert "Katze äöü" in plan.to_json()
    assert values["visuals"][0]["newline"] == "frame"
    assert values["position_scale"] == 1.25


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[]", "not list"),
        ("{}", "lacks"),
        ('{"modle": "x"}', "modle"),
    ],
)
def test_what_is_no_plan(text: str, words: str):
    with pytest.raises(ConfigError, match=words):
        plan_from_json(text)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_tokens": 1}, "its parts give"),
        ({"pool_stride": "two"}, "pool_stride"),
        ({"newline": "word"}, "newline"),
        ({"kind": "film"}, "kind"),
        ({"grid": {"rows": 1}}, "cols"),
        ({"frame_idxs": [0]}, "7 times for 1 frames"),
        ({"times_s": [], "frame_idxs": [], "num_tokens": 0}, "0 times"),
        ({"crop": [0, 1]}, "crop"),
    ],
)
def test_edited_plans_are_refused(plan: Plan, change: dict, words: str):
    values = json.loads(plan.to_json())
    values["visuals"][0] |= change
    with pytest.raises(ConfigError, match=words):
        plan_from_json(json.dumps(values))


def test_missing_parts_are_named(plan: Plan):
    values = json.loads(plan.to_json())
    del values["visuals"][0]["map_size"]
    with pytest.raises(ConfigError, match="map_size"):
        plan_from_json(json.dumps(values))
