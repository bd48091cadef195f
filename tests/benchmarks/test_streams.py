"""The streams' benchmark runs at toy size, and would notice what is too slow or lost."""

import json

import pytest
import streams


@pytest.mark.slow
def test_two_cameras(capsys: pytest.CaptureFixture[str]) -> None:
    streams.main(["--check"])
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["question"], row["num_cameras"], row["taken"]) == ("streams", 2, 6)
    assert (row["decoded"], row["dropped"]) == (150, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("camera_cores", 0.13), ("dropped", 1), ("delivered", 239), ("gate_1080p_s", 0.021)],
)
def test_what_is_too_slow_or_lost_is_a_fault(name: str, value: float) -> None:
    good = {
        "camera_cores": 0.125, "dropped": 0, "delivered": 240, "taken": 240, "gate_1080p_s": 0.02
    }  # fmt: skip
    assert streams.faults_of(good) == []
    assert streams.faults_of(good | {name: value}) == [f"{name} = {value:,}"]
