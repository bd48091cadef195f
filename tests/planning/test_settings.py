"""Every knob is documented, ranged, and refuses to contradict another."""

import dataclasses
import math

import pytest

from llava_video.config import from_mapping, to_mapping
from llava_video.errors import ConfigError
from llava_video.planning.settings import MemorySettings, PlanningSettings, SamplingSettings
from llava_video.values import Grid, Newline


@pytest.mark.parametrize("cls", [SamplingSettings, PlanningSettings, MemorySettings])
def test_every_field_is_documented_and_none_by_default(cls: type):
    for field in dataclasses.fields(cls):
        assert len(field.metadata["doc"]) > 20, field.name
    assert from_mapping(cls, to_mapping(cls())) == cls()


def test_plain_values_round_trip():
    planning = PlanningSettings(grid=Grid(2, 3), newline=Newline.FRAME, time_share=0.1)
    assert from_mapping(PlanningSettings, to_mapping(planning)) == planning
    sampling = SamplingSettings(times_s=(0.5, 2.0), max_frames=3)
    assert from_mapping(SamplingSettings, to_mapping(sampling)) == sampling


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_frames", 0),
        ("num_frames", -3),
        ("num_frames", 2.5),
        ("num_frames", 10**9),
        ("num_frames", True),
        ("max_frames", 0),
        ("max_frames", "64"),
        ("fps", 0),
        ("fps", -1.0),
        ("fps", math.nan),
        ("fps", math.inf),
        ("fps", 1e6),
        ("start_s", -0.1),
        ("start_s", math.inf),
        ("start_s", math.nan),
        ("end_s", 0),
        ("end_s", math.inf),
        ("times_s", ()),
        ("times_s", (1.0, -1.0)),
        ("times_s", (1.0, math.nan)),
        ("times_s", (math.inf,)),
        ("times_s", 3.0),
        ("compat", "decord"),
        ("rule", "random"),
        ("rule", None),
        ("rule", 3),
        ("scan_fps", 0),
        ("max_scan_frames", 1),
        ("dedupe_threshold", -1.0),
        ("dedupe_threshold", 256),
    ],
)
def test_absurd_sampling_is_refused(field: str, value: object):
    # What users call it: the fields of times add their unit.
    called = {"rule": "sampling"}.get(field, field.removesuffix("_s"))
    with pytest.raises(ConfigError, match=called + " = ") as refusal:
        SamplingSettings(**{field: value})
    assert field not in refusal.value.message or not field.endswith("_s")
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("grid", "on"),
        ("grid", Grid(0, 1)),
        ("grid", Grid(1, -2)),
        ("grid", Grid(1, 13)),
        ("grid", Grid(1.0, 2)),  # type: ignore[arg-type]  # what a caller may hand over
        ("pool_stride", 0),
        ("pool_stride", 1.5),
        ("pool_mode", "nearest"),
        ("newline", "tile"),
        ("detail", "ultra"),
        ("max_video_tokens", 0),
        ("max_video_tokens", -5),
        ("max_new_tokens", 0),
        ("max_new_tokens", None),
        ("position_scale", 0.5),
        ("position_scale", math.nan),
        ("position_scale", 1000),
        ("position_scale", "auto "),
        ("kv_cache", "int2"),
        ("kv_cache", None),
        ("time_share", -0.01),
        ("time_share", 1.01),
        ("image_aspect", "tiles"),
    ],
)
def test_absurd_planning_is_refused(field: str, value: object):
    with pytest.raises(ConfigError, match=field) as refusal:
        PlanningSettings(**{field: value})
    assert refusal.value.hint


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"start_s": 5.0, "end_s": 5.0}, "start = 5.0 is not before end = 5.0"),
        ({"start_s": 6.0, "end_s": 5.0}, "start = 6.0"),
        ({"times_s": (1.0,), "num_frames": 4}, "num_frames = 4"),
        ({"times_s": (1.0,), "fps": 1.0}, "fps = 1.0"),
        ({"times_s": (1.0,), "compat": "reference"}, "explicit times"),
        ({"times_s": (1.0,), "rule": "scene"}, "explicit times and sampling = 'scene'"),
        ({"times_s": (1.0,), "rule": max}, "explicit times and sampling = 'max'"),
        ({"compat": "reference", "rule": "keyframe"}, "'reference' with sampling = 'keyframe'"),
        ({"scan_fps": 3.0}, "sampling = 'uniform' makes nothing of scan_fps = 3.0"),
        ({"rule": "keyframe", "max_scan_frames": 9}, "'keyframe' .* max_scan_frames = 9"),
        ({"rule": "scene", "dedupe_threshold": 9}, "'scene' .* dedupe_threshold = 9"),
        ({"rule": max, "fps": 2.0}, "'max' .* fps = 2.0"),
        ({"rule": "dedupe", "fps": 2.0, "scan_fps": 1.0}, "fps = 2 and scan_fps = 1 .* 'dedupe'"),
    ],
)
def test_contradicting_sampling_is_refused(knobs: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        SamplingSettings(**knobs)


@pytest.mark.parametrize(
    "knobs",
    [
        {"detail": "low", "pool_stride": 2},
        {"detail": "medium", "pool_stride": 3},
        {"detail": "medium", "grid": "auto"},
        {"detail": "low", "grid": Grid(2, 2)},
        {"detail": "high", "grid": "off"},
    ],
)
def test_detail_does_not_share_its_knobs(knobs: dict):
    with pytest.raises(ConfigError, match="detail = "):
        PlanningSettings(**knobs)


def test_the_rest_combines():
    """Every value stays what was given: nothing is dropped for another's sake."""
    for cls, knobs in (
        (SamplingSettings, {"fps": 2.0, "num_frames": 8, "max_frames": 4, "start_s": 1.0}),
        (SamplingSettings, {"times_s": (1.0, 2.0), "max_frames": 1, "start_s": 0.5, "end_s": 9.0}),
        (SamplingSettings, {"rule": "scene", "fps": 2.0, "scan_fps": 3.0, "num_frames": 8}),
        (SamplingSettings, {"rule": "dedupe", "fps": 2.0, "dedupe_threshold": 0.0}),
        (SamplingSettings, {"rule": "keyframe", "fps": 2.0, "max_frames": 4, "end_s": 9.0}),
        (SamplingSettings, {"rule": max, "num_frames": 8, "start_s": 1.0}),
        (
            PlanningSettings,
            {"detail": "high", "pool_stride": 1, "max_video_tokens": 1, "newline": Newline.NONE},
        ),
    ):
        made = cls(**knobs)
        assert {name: getattr(made, name) for name in knobs} == knobs


def test_the_scale_is_a_number_or_a_rule():
    assert PlanningSettings().position_scale is None
    for asked in ("auto", "reference", 64):
        assert PlanningSettings(position_scale=asked).position_scale == asked


def test_memory_is_an_amount():
    assert MemorySettings().limit_bytes is None
    assert MemorySettings(memory="24GiB").limit_bytes == 24 * 2**30
    assert MemorySettings(memory=1000).limit_bytes == 1000
    for wrong in (0, 1.5, "much", True):
        with pytest.raises(ConfigError, match="memory = "):
            MemorySettings(memory=wrong)


@pytest.mark.parametrize(
    ("asked", "pinned"),
    [("auto", None), (None, "plain"), ("plain", "plain"), ("int8", "int8"), ("int4", "int4")],
)
def test_weights_are_named_or_chosen(asked: object, pinned: object):
    assert MemorySettings(quantize=asked).pinned == pinned


def test_other_weights_are_refused():
    with pytest.raises(ConfigError, match="quantize = 'fp8'"):
        MemorySettings(quantize="fp8")
