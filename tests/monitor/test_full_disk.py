"""On a disk that is really full evidence goes oldest first, and alerts never."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parents[1]
# A disk of 2 MiB that only the script sees and that is gone with it.
MOUNT = 'mount -t tmpfs -o size=2m tmpfs "$1" && shift && exec "$@"'


def own_disk(folder: Path, *command: str) -> list[str]:
    return ["unshare", "-m", "sh", "-c", MOUNT, "sh", str(folder), *command]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Return where a small disk can be mounted, or skip."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare, so no disk of one's own can be mounted")
    tried = subprocess.run(own_disk(folder, "true"), capture_output=True, timeout=60, check=False)
    if tried.returncode != 0:
        pytest.skip("mounting a disk of one's own is not permitted here")
    return folder


def ran_on(disk: Path, script: str, elsewhere: Path) -> dict[str, Any]:
    """Return what a script says that ran on the small disk."""
    ran = subprocess.run(
        own_disk(disk, sys.executable, str(TESTS / script), str(disk), str(elsewhere)),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_alerts_outlive_their_evidence_on_a_full_disk(disk: Path, tmp_path: Path) -> None:
    found = ran_on(disk, "full_disk.py", tmp_path)
    assert 10 < found.pop("evidence left") < 150
    assert found.pop("held with evidence to remove") == 0
    assert found.pop("waiting") == {}
    assert {name for name, is_so in found.items() if is_so is not True} == set()


@pytest.mark.slow
def test_a_watch_goes_on_over_a_full_disk_and_says_so_once(disk: Path, tmp_path: Path) -> None:
    found = ran_on(disk, "full_disk_watch.py", tmp_path)
    wanted = found["wanted"]
    assert found["raised while it was full"] == 20
    assert found["alerts"] == len(wanted) > 40
    # Both sinks have every message once, in order, one of them on the full disk itself.
    assert found["elsewhere"] == found["here"] == wanted
    assert found["updated"] == [wanted, wanted]
    assert found["same order"]
    assert found["status"] == [0, 0, {}]
    assert found["raised by the next watch"] == 0
    pictures, waits, room = found["notes"]
    assert pictures == "the disk is full: the oldest pictures go."
    assert waits.endswith(" What is to be told waits in memory until there is room.")
    assert room == "there is room again, and what waited for it is stored."
    assert found["status without room"] == 3
    assert found["lost without room"] > 0
