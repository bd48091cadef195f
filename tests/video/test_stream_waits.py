"""Waits double up to a bound, differ from camera to camera, and begin anew after a good life."""

import random

import pytest

from llava_video.video.stream_waits import Waits


def test_they_grow_to_a_bound() -> None:
    waits = Waits(1.0, 60.0, random.Random(0))
    found = [waits.next_s() for _ in range(12)]
    longest = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]
    assert all(most / 2 <= wait <= most for wait, most in zip(found, longest, strict=True))


def test_two_cameras_do_not_wait_alike() -> None:
    one, other = (Waits(8.0, 60.0, random.Random(seed)) for seed in (1, 2))
    assert one.next_s() != pytest.approx(other.next_s(), abs=0.01)


def test_only_a_connection_that_lived_begins_anew() -> None:
    waits = Waits(1.0, 60.0, random.Random(0))
    for _ in range(5):
        waits.next_s()
        waits.lived(0.1)
    assert waits.next_s() >= 16.0
    waits.lived(64.0)
    assert waits.next_s() <= 1.0
