"""Frames move to the nearest keyframe inside the span, and it is said by how much."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.planning.keyframes import to_keyframes
from llava_video.values import VideoInfo

MakeInfo = Callable[..., VideoInfo]


def test_by_hand(make_info: MakeInfo):
    info = make_info(50, 10.0, keyframe_idxs=(0, 12, 25, 40))
    moved = to_keyframes(info, (0, 50), np.array([0, 6, 7, 30, 49]))
    assert moved is not None
    # 6 lies as near to 0 as to 12 and goes back; 7 goes on; 30 to 25; 49 back to 40.
    assert moved.frame_idxs.tolist() == [0, 12, 25, 40]
    assert moved.largest_shift_s == pytest.approx(0.9)
    assert moved.mean_shift_s == pytest.approx((0 + 0.6 + 0.5 + 0.5 + 0.9) / 5)


def test_nearest_in_time_is_not_nearest_by_index(make_info: MakeInfo):
    """Frame 5 is one frame before a keyframe but 8 s from it; the one behind is at 0.5 s."""
    pts_s = [*(np.arange(6) / 10), 8.5, 8.6]
    info = make_info(pts_s=pts_s, duration_s=9.0, keyframe_idxs=(0, 6))
    moved = to_keyframes(info, (0, 8), np.array([5]))
    assert moved is not None
    assert moved.frame_idxs.tolist() == [0]
    assert min((0, 6), key=lambda key: abs(key - 5)) == 6  # by index


def test_only_keyframes_inside_the_span(make_info: MakeInfo):
    info = make_info(50, 10.0, keyframe_idxs=(0, 12, 25, 40))
    moved = to_keyframes(info, (10, 40), np.array([10, 39]))
    assert moved is not None
    assert moved.frame_idxs.tolist() == [12, 25]  # 40 would be nearer to 39, but is outside
    assert to_keyframes(info, (13, 25), np.array([13, 20])) is None
    assert to_keyframes(make_info(50, 10.0), (0, 50), np.array([3])) is None  # none is known


@settings(max_examples=200)
@given(
    gaps=st.lists(st.integers(1, 400), max_size=120),
    keys=st.sets(st.integers(0, 120), min_size=1),
    wanted=st.sets(st.integers(0, 120), min_size=1),
    ends=st.tuples(st.integers(0, 120), st.integers(1, 121)),
)
def test_no_keyframe_is_nearer(make_info: MakeInfo, gaps, keys, wanted, ends):
    pts_s = np.cumsum([0, *gaps]) / 1000
    num_frames = len(pts_s)
    info = make_info(pts_s=pts_s, keyframe_idxs=tuple(sorted(k for k in keys if k < num_frames)))
    span = (
        min(ends[0], num_frames - 1),
        max(min(ends[1], num_frames), min(ends[0], num_frames - 1) + 1),
    )
    idxs = [idx for idx in sorted(wanted) if span[0] <= idx < span[1]] or [span[0]]
    inside = [key for key in info.keyframe_idxs if span[0] <= key < span[1]]
    moved = to_keyframes(info, span, np.array(idxs))
    if not inside:
        assert moved is None
        return
    assert moved is not None
    nearest = [min(inside, key=lambda key: (abs(pts_s[key] - pts_s[i]), key)) for i in idxs]
    assert moved.frame_idxs.tolist() == sorted(set(nearest))
    shifts_s = [abs(pts_s[key] - pts_s[i]) for key, i in zip(nearest, idxs, strict=True)]
    assert moved.largest_shift_s == pytest.approx(max(shifts_s))
    assert moved.mean_shift_s == pytest.approx(sum(shifts_s) / len(shifts_s))
