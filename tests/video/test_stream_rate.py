"""The rate: as many pictures as asked for, evenly, whatever the stream's own rate."""

import itertools

import pytest

from llava_video.video.stream_rate import RateSampler


def taken(fps: float | None, times_s: list[float]) -> list[float]:
    sampler = RateSampler(fps)
    return [pts_s for pts_s in times_s if sampler.takes(pts_s)]


@pytest.mark.parametrize(("own_hz", "fps"), [(25, 1), (30, 2), (24, 10), (29.97, 5), (25, 25)])
def test_the_rate_is_kept_over_an_hour(own_hz: float, fps: float) -> None:
    times_s = [k / own_hz for k in range(int(3600 * own_hz))]
    found = taken(fps, times_s)
    assert len(found) == pytest.approx(3600 * fps, abs=1.01)
    steps = [b - a for a, b in itertools.pairwise(found)]
    assert max(steps) <= 1 / fps + 1 / own_hz + 1e-6


def test_a_stream_that_is_slower_gives_all_it_has() -> None:
    times_s = [2.0 * k for k in range(100)]
    assert taken(1.0, times_s) == times_s
    assert taken(None, [0.0, 0.001, 0.002]) == [0.0, 0.001, 0.002]


def test_rounded_times_lose_no_picture() -> None:
    # 25 a second in ticks of 90 kHz, then in milliseconds.
    assert len(taken(25.0, [round(k * 40.0) / 1000 for k in range(1000)])) == 1000
    assert len(taken(30.0, [round(k * 1000 / 30) / 1000 for k in range(1000)])) == 1000


def test_no_picture_is_taken_a_frame_too_early() -> None:
    assert taken(1.0, [k / 25 for k in range(76)]) == [0.0, 1.0, 2.0, 3.0]


def test_after_a_hole_the_first_picture_is_taken_and_none_is_made_up_for() -> None:
    assert taken(1.0, [0.0, 0.5, 1.0, 100.3, 100.5, 101.0, 102.0]) == [
        0.0,
        1.0,
        100.3,
        101.0,
        102.0,
    ]
