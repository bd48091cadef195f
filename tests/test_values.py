"""The arithmetic and the printed form of the values that cross a floor."""

import dataclasses
import pickle

import numpy as np
import pytest

from llava_video import values
from llava_video.values import (
    Clip,
    Description,
    FrameRef,
    Grid,
    MemoryEstimate,
    Newline,
    Plan,
    TokenUsage,
    VideoInfo,
    VisualPlan,
)


def visual_plan(**changes: object) -> VisualPlan:
    """Return the trained layout of two frames: 27 patches, stride 2, rounded up -> 14 * 15."""
    plan = VisualPlan(
        kind="video",
        source="clip.mp4",
        height_px=360,
        width_px=640,
        times_s=(0.0, 1.0),
        frame_idxs=(0, 25),
        fit="squeeze",
        grid=Grid(1, 1),
        overview=False,
        pool_mode="bilinear",
        pool_stride=2,
        newline=Newline.ROW,
        crop=(0, 27, 0, 27),
        map_size=(14, 14),
        num_tokens=420,
    )
    return dataclasses.replace(plan, **changes)


def plan_of(*visuals: VisualPlan) -> Plan:
    return Plan(
        model="tiny",
        prompt="<image>",
        visuals=visuals,
        text_tokens=30,
        max_new_tokens=16,
        context_tokens=1000,
        budget_tokens=900,
        memory=MemoryEstimate(100, 20, 3),
    )


def video_info(**changes: object) -> VideoInfo:
    info = VideoInfo(
        duration_s=2.0,
        num_frames=2,
        frame_rate_hz=1.0,
        height_px=4,
        width_px=6,
        codec="raw",
        container="array",
        pts_s=np.array([0.0, 1.0]),
        tick_s=0.5,
    )
    return dataclasses.replace(info, **changes)


def clip() -> Clip:
    frames = np.zeros((2, 4, 6, 3), np.uint8)
    return Clip(frames, np.array([0.5, 1.5]), np.array([1, 3]))


def test_every_value_is_frozen_and_slotted():
    classes = [c for c in vars(values).values() if dataclasses.is_dataclass(c)]
    assert len(classes) >= 10
    for cls in classes:
        assert cls.__dataclass_params__.frozen, cls
        assert "__slots__" in vars(cls), cls


def test_visual_plan_counts():
    plan = visual_plan()
    assert (plan.num_frames, plan.tiles_per_frame) == (2, 1)
    # 2 rows of 3 tiles and the overview.
    assert visual_plan(grid=Grid(2, 3), overview=True).tiles_per_frame == 7


def test_plan_sums_its_visuals():
    plan = plan_of(visual_plan(), visual_plan(num_tokens=5))
    assert (plan.visual_tokens, plan.tokens) == (425, 455)
    assert plan_of().tokens == 30
    assert plan.memory.total_bytes == 123


def test_newlines_are_words():
    assert [newline.value for newline in Newline] == ["row", "frame", "clip", "none"]
    assert Newline("frame") is Newline.FRAME


@pytest.mark.parametrize("value", [video_info(), clip()], ids=["VideoInfo", "Clip"])
def test_values_with_arrays_compare_by_identity(value: object):
    twin = pickle.loads(pickle.dumps(value))
    assert value == value
    assert value != twin
    assert len({value, twin}) == 2


def test_printed_forms_show_shapes_not_contents():
    assert repr(clip()) == "Clip(frames=(2, 4, 6, 3) uint8, 0.500 s to 1.500 s)"
    assert "pts_s" not in repr(video_info())
    answer = Description(
        text="x" * 100,
        plan=plan_of(visual_plan()),
        frames=(FrameRef(0, 0.0), FrameRef(25, 1.0)),
        usage=TokenUsage(30, 420, 16),
        finish_reason="stop",
        thumbnails=np.zeros((2, 4, 6, 3), np.uint8),
    )
    assert repr(answer) == f"Description({'x' * 60!r}, 2 frames, 420 visual tokens, stop)"
    # Pictures are no part of what was answered; arrays would have no truth value.
    assert answer == dataclasses.replace(answer, thumbnails=None)
