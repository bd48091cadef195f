"""The harness: percentiles by hand, when timing stops, what a row says and what it must not say."""

import json
import platform
import time
from pathlib import Path

import harness
import peak_memory
import pytest


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([3.0], 0.2, 3.0),
        ([1.0, 2.0], 0.2, 1.2),
        ([5.0, 1.0, 2.0, 4.0, 3.0], 0.2, 1.8),  # place 0.8 between 1 and 2
        ([5.0, 1.0, 2.0, 4.0, 3.0], 0.8, 4.2),
        ([1.0, 2.0, 3.0], 1.0, 3.0),
    ],
)
def test_percentiles(values, share, expected):
    assert harness.percentile(values, share) == pytest.approx(expected)


def test_runs_are_taken_in_turn_and_warm_ups_are_not_counted():
    order = []
    timings = harness.interleaved(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, warm_up=1, repeats=3
    )
    assert order == ["a", "b"] * 4
    assert [len(timing.seconds) for timing in timings.values()] == [3, 3]


def test_timing_stops_at_its_budget_but_not_before_one_run():
    timing = harness.measure(lambda: time.sleep(0.02), warm_up=0, repeats=50, budget_s=0.05)
    assert 2 <= len(timing.seconds) <= 4
    assert min(timing.seconds) >= 0.02
    one = harness.measure(lambda: None, warm_up=0, repeats=9, budget_s=0.0)
    assert "(one run)" in str(one)


def test_the_ratio_is_the_median_of_neighbouring_runs():
    # Run by run 2 x, 2 x, 4 x; the medians' own ratio would be 3 / 1 = 3.
    baseline, ours = harness.Timing((2.0, 3.0, 4.0)), harness.Timing((1.0, 1.5, 1.0))
    assert harness.ratio(baseline, ours) == 2.0


def test_a_row_is_the_last_line_and_is_added_when_asked(tmp_path, capsys):
    harness.report("how_fast", {"seconds": 1.5}, append=False, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        harness.report("how_fast", {"seconds": 1.5}, append=True, folder=tmp_path)
    printed = capsys.readouterr().out.splitlines()
    lines = (tmp_path / "how_fast.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines == printed[-2:]
    row = json.loads(lines[0])
    assert row["question"] == "how_fast"
    assert row["seconds"] == 1.5
    assert "cores" in row["device"]
    assert {"commit", "dirty", "python"} <= set(row)
    host = platform.node()
    assert host == "" or host not in lines[0]


def test_memory_is_told_and_reset(monkeypatch):
    if not harness.can_measure_memory():
        pytest.skip("this system does not tell a process's peak memory")
    monkeypatch.setenv("PYTHONPATH", str(Path(harness.__file__).parent))
    told = harness.run_worker(peak_memory.__file__, [])
    assert told["with_block"] - told["before"] > 60 * 2**20
    assert told["after"] < told["with_block"] - 30 * 2**20
    assert told["held"] <= told["after"]
