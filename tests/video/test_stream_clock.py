"""The clock: even through jumps, holes, silence and lateness; each oddity told once."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_video.video.stream_clock import StreamClock
from llava_video.video.stream_rate import RateSampler


def clock(*, is_live: bool = True) -> StreamClock:
    return StreamClock(gap_s=2.0, max_jump_s=10.0, late_s=5.0, is_live=is_live)


def placed(steps: list[tuple[float | None, float]], *, is_live: bool = True):
    made = clock(is_live=is_live)
    found = [made.place(raw_s, now_s) for raw_s, now_s in steps]
    return [round(p.pts_s, 6) for p in found], [(p.odd, round(p.odd_s, 6)) for p in found if p.odd]


def test_an_even_stream_keeps_its_own_times() -> None:
    # Arrivals are uneven: they say nothing about when a picture was taken.
    steps = [(7.0, 100.0), (7.5, 100.9), (8.0, 100.95), (8.5, 102.0)]
    assert placed(steps) == ([0.0, 0.5, 1.0, 1.5], [])


@pytest.mark.parametrize(
    ("raw_s", "jump_s"),
    [(0.0, -50.0), (3650.0, 3600.0)],
)
def test_a_clock_that_is_set_goes_on_by_the_wall_clock(raw_s: float, jump_s: float) -> None:
    steps = [(49.5, 10.0), (50.0, 10.5), (raw_s, 11.25), (raw_s + 0.5, 11.75)]
    assert placed(steps) == ([0.0, 0.5, 1.25, 1.75], [("jumped", jump_s)])


def test_a_hole_is_time_that_passed() -> None:
    steps = [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (31.0, 31.0), (31.5, 31.5)]
    assert placed(steps) == ([0.0, 0.5, 1.0, 31.0, 31.5], [("gap", 30.0)])


def test_a_camera_that_sends_a_picture_now_and_then_has_no_holes() -> None:
    steps = [(5.0 * k, 5.0 * k) for k in range(40)]
    _, odd = placed(steps)
    assert len(odd) < 20  # until it is known
    made = clock()
    for raw_s, now_s in steps:
        last = made.place(raw_s, now_s)
    assert last.odd is None


def test_a_stream_without_times_takes_those_of_arrival() -> None:
    steps = [(None, 5.0), (None, 5.2), (math.nan, 5.9), (None, 6.0)]
    assert placed(steps) == ([0.0, 0.2, 0.9, 1.0], [])


def test_a_recording_trusts_its_own_holes_and_mends_what_goes_back() -> None:
    steps = [(0.0, 0.0), (0.04, 0.0), (3600.0, 0.0), (1.0, 0.0), (1.04, 0.0)]
    times, odd = placed(steps, is_live=False)
    assert times[:3] == [0.0, 0.04, 3600.0]
    assert 3600.0 < times[3] < 3601.0
    assert [kind for kind, _ in odd] == ["gap", "jumped"]


def test_pictures_of_one_moment_are_kept_apart() -> None:
    times, odd = placed([(0.0, 0.0), (0.0, 0.0), (0.0, 0.0)])
    assert times[0] < times[1] < times[2] < 0.01
    assert odd == []


def test_a_clock_that_stands_still_goes_on_by_the_wall_clock_and_is_told_once() -> None:
    # 25 pictures a second for ten minutes, all of one moment by their own clock: at one a second,
    # 600 are due, less those of the 2.04 s after which it is known that the clock stands.
    made, sampler = clock(), RateSampler(1.0)
    found = [made.place(7.0, 0.04 * k) for k in range(15_000)]
    assert sum(sampler.takes(one.pts_s) for one in found) in range(597, 601)
    assert found[-1].pts_s == pytest.approx(0.04 * 14_999)
    assert [(one.odd, one.odd_s) for one in found if one.odd] == [("jumped", 0.0)]
    assert found[-1].lag_s < 0.1


@pytest.mark.parametrize("raw_s", [0.04, 8.0])
def test_a_clock_that_goes_on_after_it_stood_counts_no_time_twice(raw_s: float) -> None:
    stood = [(0.0, 0.5 * k) for k in range(17)]
    times, odd = placed([*stood, (raw_s, 8.5), (raw_s + 0.5, 9.0)])
    assert times[-3:] == [8.0, 8.5, 9.0]
    assert odd == [("jumped", 0.0)]
    again, odd = placed([*stood, *((raw_s, 8.5 + 0.5 * k) for k in range(17))])
    assert again[-1] == 16.5
    assert odd == [("jumped", 0.0)] * 2


def test_pictures_that_come_together_after_a_silence_keep_their_own_times() -> None:
    # The last picture of before comes again, then thirty seconds of them at once.
    steps = [(0.0, 0.0), (0.0, 30.0), (0.0, 30.0), *((0.5 * k, 30.0) for k in range(1, 61))]
    times, odd = placed(steps)
    assert times[-1] == pytest.approx(30.0, abs=0.01)
    assert {kind for kind, _ in odd} <= {"late"}


def test_a_recording_whose_clock_stands_says_nothing_of_the_wall() -> None:
    times, odd = placed([(3.0, 1.0 * k) for k in range(10)], is_live=False)
    assert (times[-1], odd) == (0.009, [])


def test_pictures_that_come_ten_times_slower_than_they_were_taken_are_late_once() -> None:
    steps = [(0.1 * k, 1.0 * k) for k in range(40)]
    times, odd = placed(steps)
    assert times[-1] == pytest.approx(3.9)
    assert [kind for kind, _ in odd] == ["late"]
    assert odd[0][1] == pytest.approx(5.4, abs=0.6)


def test_a_clock_that_is_a_little_slow_is_not_late_after_a_day() -> None:
    made = clock()
    odd = [made.place(60.0 * k * 0.9999, 60.0 * k).odd for k in range(1440)]
    assert set(odd[50:]) == {None}


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(-1e6, 1e6), st.just(math.nan), st.just(math.inf)),
            st.floats(0, 100),
        ),
        min_size=2,
    ),
    st.booleans(),
)
def test_time_only_grows(steps: list[tuple[float | None, float]], is_live: bool) -> None:
    made, now_s, last_s = clock(is_live=is_live), 0.0, -1.0
    for raw_s, passed_s in steps:
        now_s += passed_s
        pts_s = made.place(raw_s, now_s).pts_s
        assert math.isfinite(pts_s)
        assert pts_s > last_s
        last_s = pts_s
