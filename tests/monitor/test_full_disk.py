"""On a disk that is really full evidence goes oldest first, and alerts never."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "full_disk.py"
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


@pytest.mark.slow
def test_alerts_outlive_their_evidence_on_a_full_disk(disk: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        own_disk(disk, sys.executable, str(SCRIPT), str(disk), str(tmp_path)),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout
    found = json.loads(ran.stdout.splitlines()[-1])
    assert 10 < found.pop("evidence left") < 150
    assert found.pop("held with evidence to remove") == 0
    assert found.pop("waiting") == {}
    assert {name for name, is_so in found.items() if is_so is not True} == set()
