"""What was seen is kept by key, the oldest goes first, and what is forgotten is as planned."""

import dataclasses

import numpy as np

from llava_video import seen as seen_module
from llava_video.seen import SeenVisuals
from llava_video.values import Clip, FrameRef, Grid, Newline, VisualPlan
from llava_video.video.evidence import Evidence

PLAN = VisualPlan(
    kind="video",
    source="bars",
    height_px=4,
    width_px=6,
    times_s=(0.0, 0.5),
    frame_idxs=(3, 8),
    fit="squeeze",
    grid=Grid(1, 1),
    overview=False,
    pool_mode="bilinear",
    pool_stride=2,
    newline=Newline.NONE,
    crop=(0, 4, 0, 4),
    map_size=(2, 2),
    num_tokens=8,
)


def watched(level: int) -> Evidence:
    evidence = Evidence(1)
    clip = Clip(np.full((1, 4, 6, 3), level, np.uint8), np.array([1.5]), np.array([7]))
    list(evidence.watch(iter([clip])))
    return evidence


def test_what_was_seen_is_recalled_with_its_pictures_and_doubts():
    seen = SeenVisuals()
    seen.remember("dark", watched(0))
    recalled = seen.recall("dark", PLAN)
    assert recalled.frames == (FrameRef(7, 1.5),)
    assert recalled.thumbnails is not None
    assert recalled.warnings() == ("The frame is black.",)


def test_what_is_forgotten_is_as_planned_without_pictures():
    recalled = SeenVisuals().recall("never seen", PLAN)
    assert recalled.frames == (FrameRef(3, 0.0), FrameRef(8, 0.5))
    assert recalled.thumbnails is None
    assert recalled.warnings() == ()
    [span] = recalled.coverage(PLAN.frame_idxs, PLAN.times_s, 1.25)
    assert (span.start_s, span.end_s) == (0.0, 1.25)


def test_the_oldest_goes_and_what_is_asked_again_stays():
    seen, most = SeenVisuals(), seen_module._MOST_VISUALS
    for idx in range(most):
        seen.remember(str(idx), watched(200))
    seen.remember("0", watched(200))  # again: now the newest
    seen.remember("new", watched(200))
    assert seen.recall("0", PLAN).frames == (FrameRef(7, 1.5),)
    one_frame = dataclasses.replace(PLAN, times_s=(9.0,), frame_idxs=(90,))
    assert seen.recall("1", one_frame).frames == (FrameRef(90, 9.0),)  # forgotten
