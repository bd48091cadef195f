"""The cores that are counted are those that this process may use."""

import os

import pytest

from llava_video.cores import num_cores


def test_the_cores_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 6}, raising=False)
    assert num_cores() == 3


@pytest.mark.parametrize(("counted", "told"), [(12, 12), (None, 1)])
def test_where_a_system_cannot_say_all_count(
    monkeypatch: pytest.MonkeyPatch, counted: int | None, told: int
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: counted)
    assert num_cores() == told
