"""Rates and the time left are of the last minutes, by a clock that only goes forward."""

import pytest

from llava_video.archive.progress import ArchiveProgress, Meter


class Clock:
    """A clock that is told what time it is."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_rates_and_time_left() -> None:
    clock = Clock()
    meter = Meter(clock)
    before = meter.progress(total=100, done=40)
    assert (before.videos_per_h, before.footage_rate, before.eta_s) == (None, None, None)
    for _ in range(10):  # a video in 6 s, each of 30 s
        clock.now_s += 6.0
        meter.note_end(30.0)
    found = meter.progress(total=100, done=50, failed=2)
    assert found.elapsed_s == pytest.approx(60.0)
    assert found.videos_per_h == pytest.approx(600.0)
    assert found.footage_rate == pytest.approx(5.0)
    assert found.eta_s == pytest.approx(48 * 6.0)
    assert found.ended == 52


def test_a_rate_of_long_ago_is_forgotten() -> None:
    clock = Clock()
    meter = Meter(clock)
    for _ in range(1000):
        meter.note_end(1.0)
    clock.now_s += 1000.0
    for _ in range(5):
        meter.note_end(1.0)
    assert meter.progress(total=1).videos_per_h == pytest.approx(60.0)  # 5 in 300 s


def test_the_line_says_what_failed() -> None:
    failures = {"SourceError": 3, "DecodeError": 1}
    line = Meter().progress(total=9, total_is_final=False, failed=4, failures=failures).line
    assert line == "4 of 9 or more videos, without result: 1 DecodeError, 3 SourceError"


def test_spans_in_the_line() -> None:
    assert ArchiveProgress(total=2, eta_s=42.0).line.endswith(", 42 s left")
    assert ArchiveProgress(total=2, eta_s=9000.0).line.endswith(", 2 h 30 min left")


def test_machines_get_plain_values() -> None:
    found = ArchiveProgress(total=3, done=1, failed=1, failures={"A": 1}).to_mapping()
    assert (found["ended"], found["failures"], found["eta_s"]) == (2, {"A": 1}, None)
