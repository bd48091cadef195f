"""A watch is killed at random moments; every alert comes once, in order, as if nobody had."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "killed_watch.py"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the watches are forked")
def test_fifty_kills_lose_no_alert_and_raise_none_twice(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), "1"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=600,
    )
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["killed"] == 50
    assert found["killed in work"] >= 20
    assert found["ended"]
    assert found["alerts"] == 225
    assert found["alerts as unbroken"]
    assert found["updates"]
    assert found["waiting"] == {}
    assert found["evidence"] == 225  # a snapshot each, and no stray
    assert found["hook in order"]
    assert found["log in order"]
    # At least once: what was taken when it was killed may come again, which is once a kill.
    assert found["hook again"] <= 50
    assert found["log again"] == 0
    assert not found["torch"]
