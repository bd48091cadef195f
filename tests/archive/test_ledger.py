"""Every unit is worked once and ends in one row, in whatever order things go wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llava_video.archive.ledger import Ledger
from llava_video.archive.unit import Item, Unit, UnitError, unit_key

ERROR = UnitError(kind="DecodeError", message="frame 3 is broken.", position_s=0.1)


def unit_of(number: int, content: str = "", **fields: Any) -> Unit:
    item = Item(number=number, address=f"{number}.mp4", **fields)
    content = content or f"c{number}"
    key = unit_key(content, item, "task", "model")
    return Unit(key=key, number=number, item=item, content_hash=content)


def error_row(unit: Unit, error: UnitError, attempts: int, state: str) -> dict[str, Any]:
    return {"key": unit.key, "status": state, "error": error.kind, "attempts": attempts}


def open_ledger(folder: Path, **settings: Any) -> Ledger:
    return Ledger(
        folder, **{"settings_digest": "s", "error_row": error_row, "shard_units": 4} | settings
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path / "run") as opened:
        yield opened


def test_a_unit_goes_from_waiting_to_done(ledger: Ledger):
    units = [unit_of(number) for number in range(3)]
    assert ledger.add(units) == 3
    assert ledger.claim(2, "w") == units[:2]
    assert ledger.counts() == {"waiting": 1, "running": 2, "done": 0, "failed": 0, "quarantined": 0}
    assert ledger.finish(units[0].key, {"text": "A cat."})
    assert ledger.state(units[0].key) == "done"
    assert list(ledger.rows()) == [{"text": "A cat.", "number": 0, "duplicate_of": None}]
