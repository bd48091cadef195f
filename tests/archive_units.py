"""Units and a ledger for tests: small, with rows that say whose they are."""

from pathlib import Path
from typing import Any

from llava_video.archive.ledger import Ledger
from llava_video.archive.unit import Item, Unit, UnitError, unit_key


def unit_of(number: int, content: str = "", **fields: Any) -> Unit:
    """Return the unit of one place; another content is another unit, another address is not."""
    item = Item(number=number, **{"address": f"{number}.mp4"} | fields)
    content = content or f"c{number}"
    key = unit_key(content, item, "task", "model")
    return Unit(key=key, number=number, item=item, content_hash=content)


def row_of(unit: Unit) -> dict[str, Any]:
    """Return the only right row of a unit."""
    return {"key": unit.key, "status": "done", "text": f"what {unit.content_hash} shows"}


def error_row(unit: Unit, error: UnitError, attempts: int, state: str) -> dict[str, Any]:
    return {"key": unit.key, "status": state, "error": error.kind, "attempts": attempts}


def open_ledger(folder: Path, **settings: Any) -> Ledger:
    """Open a ledger of four places per shard."""
    usual = {"settings_digest": "s", "error_row": error_row, "shard_units": 4}
    return Ledger(folder, **usual | settings)
