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
