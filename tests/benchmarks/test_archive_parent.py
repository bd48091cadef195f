"""What a run costs beside its videos, at toy size, and at full size in the slow tests."""

import json

import archive_parent
import pytest
from archive_parent import faults_of
from harness import can_measure_memory

NEEDS_PROC = pytest.mark.skipif(not can_measure_memory(), reason="memory is read from /proc")
GOOD = {
    "num_done": 10,
    "torch_loaded": False,
    "peak_bytes": int(300e6),
    "finished_peak_bytes": 1,
    "early_bytes": 5,
    "late_bytes": 5 + int(16e6),
    "start_finished_s": 5.0,
}


@NEEDS_PROC
def test_a_small_archive(capsys: pytest.CaptureFixture[str]) -> None:
    archive_parent.main(["--check"])
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (row["num_done"], row["torch_loaded"]) == (1000, False)
    assert row["row_bytes"] > 2000
    assert row["peak_bytes"] >= row["before_bytes"] > 10e6


@NEEDS_PROC
@pytest.mark.slow
def test_a_hundred_thousand_units_take_no_more_memory_than_the_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive_parent.main([])
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    # The time of a start depends on what else runs; the benchmark looks at that.
    assert [fault for fault in row["faults"] if "start" not in fault] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_done", 9),
        ("torch_loaded", True),
        ("peak_bytes", int(301e6)),
        ("finished_peak_bytes", int(301e6)),
        ("late_bytes", 6 + int(16e6)),
        ("start_finished_s", 5.1),
    ],
)
def test_what_is_too_much_is_a_fault(name: str, value: float) -> None:
    assert faults_of(GOOD, 10) == []
    (fault,) = faults_of(GOOD | {name: value}, 10)
    assert fault.startswith(name)
