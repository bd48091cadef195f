"""A watch costs after a day what it cost in the morning: memory, time per window, files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "day_of_watch.py"
HOURS = 24


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_day_on_a_virtual_clock(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "watch"), str(HOURS)],
        capture_output=True, text=True, timeout=600, check=False, cwd=SCRIPT.parent,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    row = json.loads(ended.stdout.splitlines()[-1])
    assert row["windows"] == {"asked": HOURS * 450}
    assert row["alerts"] == 2 * HOURS  # two rules, an event an hour
    assert row["waiting"] == {}
    rss = row["rss_bytes"]
    assert max(rss[-4:]) <= 1.01 * max(rss[1:5])
    (median_s, p99_s), (model_median_s, model_p99_s) = row["window_s"], row["model_s"]
    # How unsteady the machine is shows in the model, whose work is the same every time.
    assert p99_s <= 1.5 * median_s * max(1.0, model_p99_s / model_median_s)
    # A trace of three files, a spool, room held for alerts, and 1.2 h of evidence of the 24.
    assert max(row["file_bytes"][-4:]) <= 1.1 * max(row["file_bytes"][2:8])
    trace = [size for name, size in row["files"].items() if name.startswith("why")]
    assert len(trace) == 3
    assert max(trace) <= 2**18
    evidence = [name for name in row["files"] if name.startswith("evidence/")]
    assert 0 < len(evidence) <= 2 * 2 * 3
    assert row["files"]["spool.sqlite"] <= 2**18
