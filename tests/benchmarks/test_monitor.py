"""The watch's benchmark runs at toy size, and would notice what is too dear or lost."""

import json

import monitor
import pytest


@pytest.mark.slow
def test_two_cameras(capsys: pytest.CaptureFixture[str]) -> None:
    monitor.main(["--check"])
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["question"], row["cameras"], row["failed"]) == ("monitor", 2, 0)
    assert row["windows"] >= 4
    assert row["cheaper"] > 1


@pytest.mark.parametrize(("name", "value"), [("cheaper", 7.9), ("dropped", 1), ("failed", 2)])
def test_what_is_too_dear_or_lost_is_a_fault(name: str, value: float) -> None:
    good = {"cheaper": 8.0, "dropped": 0, "failed": 0}
    assert monitor.faults_of(good) == []
    assert monitor.faults_of(good | {name: value}) == [f"{name} = {value:,}"]
