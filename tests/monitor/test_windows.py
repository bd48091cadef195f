"""Windows: every frame in the windows it belongs to, for ever, in bounded memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_video.monitor.scene_settings import WindowSettings
from llava_video.monitor.windows import RollingWindows, Window
from llava_video.video.stream_events import Mark, StreamFrame


def frame(pts_s: float, side_px: int = 4) -> StreamFrame:
    picture = np.zeros((side_px, side_px, 3), dtype=np.uint8)
    return StreamFrame(idx=0, picture=picture, pts_s=pts_s, wall_s=1000.0 + pts_s)


def rolled(times_s: list[float], **changes) -> tuple[list[Window], RollingWindows]:
    windows = RollingWindows(WindowSettings(**changes))
    return [window for pts_s in times_s for window in windows.add(frame(pts_s))], windows


def shown(windows: list[Window]) -> list[tuple[int, list[float]]]:
    return [(window.idx, [f.pts_s for f in window.frames]) for window in windows]


def test_they_overlap_and_hold_their_frames() -> None:
    found, _ = rolled([float(k) for k in range(13)], length_s=4.0, step_s=2.0)
    assert shown(found) == [
        (0, [0, 1, 2, 3]),
        (1, [2, 3, 4, 5]),
        (2, [4, 5, 6, 7]),
        (3, [6, 7, 8, 9]),
        (4, [8, 9, 10, 11]),
    ]
    assert (found[1].start_s, found[1].end_s) == (2.0, 6.0)
    assert (found[1].start_wall_s, found[1].end_wall_s) == (1002.0, 1005.0)


def test_a_window_is_complete_with_the_first_frame_behind_it_or_by_the_clock() -> None:
    windows = RollingWindows(WindowSettings(length_s=4.0, step_s=4.0))
    assert [windows.add(frame(float(k))) for k in range(4)] == [[], [], [], []]
    assert windows.advance(3.99) == []
    (window,) = windows.advance(4.0)  # the stream is silent, its clock is not
    assert [f.pts_s for f in window.frames] == [0, 1, 2, 3]
    assert windows.add(frame(5.0)) == []


def test_a_cut_tells_what_is_there_and_the_next_window_begins_with_the_next_frame() -> None:
    _, windows = rolled([float(k) for k in range(97, 101)], length_s=8.0, step_s=4.0)
    assert shown(windows.cut()) == [(24, [97, 98, 99, 100]), (25, [100])]
    assert windows.cut() == []  # nothing is told twice
    later = [w for k in range(101, 114) for w in windows.add(frame(float(k)))]
    assert shown(later) == [(26, [*range(101, 109)]), (27, [*range(105, 113)])]
    assert [window.start_s for window in later] == [101.0, 105.0]


def test_after_a_long_silence_windows_are_where_they_would_be() -> None:
    _, windows = rolled([0.0, 1.0], length_s=4.0, step_s=4.0)
    assert shown(windows.cut()) == [(0, [0, 1])]
    later = [w for k in range(30, 37) for w in windows.add(frame(float(k)))]
    assert shown(later) == [(7, [30, 31]), (8, [32, 33, 34, 35])]


def test_an_hours_hole_is_one_step_and_makes_no_windows() -> None:
    found, windows = rolled([0.0, 1.0, 36e5, 36e5 + 4.0, 36e5 + 8.0], length_s=4.0, step_s=2.0)
    assert all(window.frames for window in found)
    assert [f.pts_s for f in found[0].frames] == [0.0, 1.0]
    assert [f.pts_s for window in found[1:] for f in window.frames].count(36e5) == 2
    assert len(windows.recent(1e9)) <= 3


def test_windows_further_apart_than_they_are_long() -> None:
    found, _ = rolled([float(k) for k in range(25)], length_s=2.0, step_s=10.0)
    assert shown(found) == [(0, [0, 1]), (1, [10, 11]), (2, [20, 21])]


def test_what_came_before_an_event() -> None:
    _, windows = rolled([float(k) for k in range(100)], length_s=4.0, step_s=4.0, before_s=20.0)
    assert [f.pts_s for f in windows.recent(5.0)] == [94, 95, 96, 97, 98, 99]
    assert [f.pts_s for f in windows.recent(5.0, until_s=90.5)] == [86, 87, 88, 89, 90]
    assert len(windows.recent(20.0)) == 21
    assert windows.recent(5.0, until_s=10.0) == ()
    assert RollingWindows(WindowSettings()).recent(5.0) == ()


def test_marks_go_with_the_next_window() -> None:
    windows = RollingWindows(WindowSettings(length_s=2.0, step_s=2.0))
    windows.add(frame(0.0))
    windows.note(Mark(kind="gap", wall_s=0.0))
    (first,) = windows.add(frame(2.0))
    (second,) = windows.add(frame(4.0))
    assert [mark.kind for mark in first.marks] == ["gap"]
    assert second.marks == ()
    for _ in range(1000):
        windows.note(Mark(kind="lost", wall_s=0.0))
    (third,) = windows.add(frame(6.0))
    assert len(third.marks) == 100


def test_bytes_are_bounded_and_a_window_says_what_it_lacks() -> None:
    one = frame(0.0).picture.nbytes
    found, windows = rolled(
        [float(k) for k in range(20)], length_s=8.0, step_s=8.0, most_bytes=3 * one
    )
    assert windows.held_bytes <= 3 * one
    assert [len(window.frames) for window in found] == [3, 3]
    assert [window.num_let_go for window in found] == [5, 5]
    assert windows.num_let_go == 11  # one of them of the window under way
    found, _ = rolled([0.0, 1.0, 8.0], length_s=8.0, step_s=8.0, most_bytes=1)
    assert [len(window.frames) for window in found] == [1]  # one always may


@given(
    st.lists(st.floats(0.01, 5.0), min_size=5, max_size=60),
    st.sampled_from([1.0, 3.0, 4.5]),
    st.sampled_from([0.5, 2.0, 6.0]),
)
def test_every_frame_is_in_the_windows_it_belongs_to(
    steps: list[float], length_s: float, step_s: float
) -> None:
    times_s = [float(t) for t in np.cumsum(steps)]
    found, windows = rolled(times_s, length_s=length_s, step_s=step_s)
    found += windows.advance(times_s[-1] + length_s + step_s)
    last = int((times_s[-1] + step_s) / step_s)
    expected = []
    for idx in range(last + 1):
        inside = [t for t in times_s if idx * step_s <= t < idx * step_s + length_s]
        if inside and idx * step_s + length_s <= times_s[-1] + length_s + step_s:
            expected.append((idx, inside))
    assert shown(found) == expected


def test_a_day_takes_what_a_minute_takes() -> None:
    windows = RollingWindows(WindowSettings(length_s=8.0, step_s=4.0, before_s=10.0))
    most, num = 0, 0
    for second in range(86_400):
        num += len(windows.add(frame(float(second), side_px=2)))
        most = max(most, len(windows._frames))
    assert num == pytest.approx(86_400 / 4, abs=2)
    assert most <= 14
