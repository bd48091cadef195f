"""Changes become cuts, cuts shots, and frames are shared out to shots by their duration."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.planning.shots import (
    Shot,
    cut_words,
    find_shots,
    frames_of_shots,
    frames_per_shot,
    is_cut,
)
from llava_video.values import Scan, VideoInfo

MakeInfo = Callable[..., VideoInfo]
INF = np.inf


def scan_of(idxs: object, changes: object) -> Scan:
    idxs = np.asarray(idxs, dtype=np.int64)
    return Scan(frame_idxs=idxs, changes=np.asarray(changes, dtype=float), num_asked=len(idxs))


@pytest.mark.parametrize(
    ("changes", "cuts"),
    [
        ([INF], []),
        ([INF, 19.9], []),  # too little, however still the rest is
        ([INF, 20.0], [1]),
        ([INF, 0, 0, 20, 0, 0], [3]),
        ([INF, 7, 7, 20, 7, 7], []),  # under three times the median of 7
        ([INF, 7, 7, 21, 7, 7], [3]),
        ([INF, 30, 30, 30, 30, 30], []),  # a camera that is shaken
        ([INF, 30, 30, 52, 30, 30], [3]),  # another picture all the same
        ([INF, 60, 60, 60, 60], [1, 2, 3, 4]),  # a cut at every look
        # Two looks of five are cuts: the median of the others is still small.
        ([INF, 3, 40, 3, 40, 3], [2, 4]),
        # Neighbours farther than four looks away are not asked.
        ([INF, *[15] * 5, 1, 1, 1, 1, 21, 1, 1, 1, 1, *[15] * 5], [10]),
    ],
)
def test_what_is_a_cut(changes: list[float], cuts: list[int]):
    assert np.flatnonzero(is_cut(np.array(changes, dtype=float))).tolist() == cuts


def test_a_mean_of_the_neighbours_would_miss_both_cuts():
    changes = np.array([INF, 3, 25, 3, 25, 3])
    assert np.flatnonzero(is_cut(changes)).tolist() == [2, 4]
    assert 3 * np.median([3, 3, 25, 3]) <= 25
    assert 3 * np.mean([3, 3, 25, 3]) > 25


def test_shots_by_hand(make_info: MakeInfo):
    info = make_info(60, 10.0)  # 6 s
    scan = scan_of([0, 5, 10, 30, 35, 59], [INF, 2, 40, 2, 60, 3])
    assert find_shots(info, scan, 6.0) == (
        Shot(0, 6, pytest.approx(1.0)),
        Shot(10, 31, pytest.approx(2.5)),
        Shot(35, 60, pytest.approx(2.5)),
    )
    assert find_shots(info, scan_of([0], [INF]), 6.0) == (Shot(0, 1, 6.0),)


def test_durations_are_of_time_and_not_of_looks(make_info: MakeInfo):
    pts_s = [0, 0.1, 0.2, 0.3, 0.4, 10.0, 11.0]
    info = make_info(pts_s=pts_s, duration_s=12.0)
    shots = find_shots(info, scan_of(range(7), [INF, 0, 0, 0, 60, 0, 0]), 12.0)
    assert [round(shot.duration_s, 3) for shot in shots] == [0.4, 11.6]
    assert frames_per_shot(shots, 4) == [1, 3]
    by_looks = [Shot(0, 4, 4.0), Shot(4, 7, 3.0)]
    assert frames_per_shot(by_looks, 4) == [2, 2]


@pytest.mark.parametrize(
    ("shots", "num_frames", "counts"),
    [
        ([(100, 10.0)], 7, [7]),
        ([(100, 10.0)], 1000, [100]),  # no more than there are
        ([(100, 4.0), (200, 10.0), (10, 1.0)], 2, [1, 1, 0]),  # the longest
        ([(100, 4.0), (200, 10.0), (10, 1.0)], 3, [1, 1, 1]),
        ([(100, 4.0), (200, 10.0), (10, 1.0)], 6, [1, 4, 1]),
        ([(100, 5.0), (100, 5.0)], 3, [2, 1]),  # of equals the earliest
        ([(100, 5.0), (100, 5.0), (100, 5.0)], 2, [1, 1, 0]),
        ([(2, 10.0), (100, 1.0)], 6, [2, 4]),  # the long one has no more
    ],
)
def test_frames_are_shared_out(shots: list, num_frames: int, counts: list[int]):
    made = [Shot(1000 * i, 1000 * i + frames, s) for i, (frames, s) in enumerate(shots)]
    assert frames_per_shot(made, num_frames) == counts


def test_rounding_shares_would_be_noticed():
    """By rounding 10 frames of 9.4 : 0.3 : 0.3 s, the short shots get none."""
    durations_s = (9.4, 0.3, 0.3)
    shots = [Shot(1000 * i, 1000 * i + 500, s) for i, s in enumerate(durations_s)]
    assert frames_per_shot(shots, 10) == [8, 1, 1]
    assert [round(10 * s / 10.0) for s in durations_s] == [9, 0, 0]


def test_a_single_frame_is_in_the_middle_by_time(make_info: MakeInfo):
    pts_s = [0, 1, 2, 3, 4, *(4 + np.arange(1, 41) / 10)]  # 0 to 8 s
    info = make_info(pts_s=pts_s, duration_s=8.1)
    shots = (Shot(0, 45, 8.1),)
    assert frames_of_shots(info, shots, 1).tolist() == [4]  # 4 s; the 22nd of 45 is at 5.8 s
    # Quarters of 8 s have their middles at 1, 3, 5 and 7 s.
    assert frames_of_shots(info, shots, 4).tolist() == [1, 3, 14, 34]


def test_what_lies_between_two_looks_is_never_chosen(make_info: MakeInfo):
    info = make_info(100, 10.0)
    shots = (Shot(0, 41, 5.0), Shot(50, 100, 5.0))
    assert set(frames_of_shots(info, shots, 1000).tolist()) == {*range(41), *range(50, 100)}


def test_it_is_said_how_much_changes():
    assert "up to 61 grey levels" in cut_words(scan_of([0, 1, 2], [INF, 2, 61.2]))[0]
    assert cut_words(scan_of([0], [INF])) == ()


@st.composite
def scanned(draw: st.DrawFn) -> tuple[list[float], list[int], list[float]]:
    """Draw timestamps, the looks at them and what these saw."""
    gaps = draw(st.lists(st.sampled_from([1, 33, 34, 400, 9000]), max_size=150))
    pts_s = np.cumsum([0, *gaps]) / 1000
    every = draw(st.integers(1, 20))
    looks = sorted({*range(0, len(pts_s), every), len(pts_s) - 1})
    levels = st.sampled_from([0.0, 3.0, 18.0, 25.0, 60.0])
    return list(pts_s), looks, [INF, *(draw(levels) for _ in looks[1:])]


@settings(max_examples=200)
@given(made=scanned(), num_frames=st.integers(1, 200))
def test_frames_of_shots_are_sound(make_info: MakeInfo, made, num_frames: int):
    pts_s, looks, changes = made
    info = make_info(pts_s=pts_s, duration_s=pts_s[-1] + 0.5)
    shots = find_shots(info, scan_of(looks, changes), pts_s[-1] + 0.5)
    assert sum(shot.duration_s for shot in shots) == pytest.approx(pts_s[-1] + 0.5)
    counts, more = frames_per_shot(shots, num_frames), frames_per_shot(shots, num_frames + 1)
    there = sum(shot.num_frames for shot in shots)
    assert sum(counts) == min(num_frames, there)
    assert all(0 <= c <= shot.num_frames for c, shot in zip(counts, shots, strict=True))
    assert all(c >= 1 for c in counts) or num_frames < len(shots)
    assert all(a <= b for a, b in zip(counts, more, strict=True))  # monotone, shot by shot
    idxs = frames_of_shots(info, shots, num_frames).tolist()
    assert idxs == sorted(set(idxs))
    per_shot = [sum(s.first_idx <= idx < s.stop_idx for idx in idxs) for s in shots]
    assert per_shot == counts
    assert sum(per_shot) == len(idxs)
