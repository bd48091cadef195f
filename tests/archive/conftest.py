import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from archive_units import open_ledger

from llava_video.archive.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Return an empty ledger of four places per shard."""
    with open_ledger(tmp_path / "run") as opened:
        yield opened


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that every user can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)
