"""A writer is killed at random moments; every unit ends once, as if nobody had killed it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "killed_writer.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the writers are forked")
def test_kills_at_random_moments_leave_every_unit_in_one_state(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), "1"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    found = json.loads(ran.stdout)
    assert found["faults"] == []
    assert found["killed"] == 30
    assert found["moments"]["in work"] >= 15
    assert found["as_unbroken"]
    assert sum(found["ended"].values()) == 3000
    assert set(found["ended"]) == {"done", "failed", "quarantined"}
