"""A run folder's ledger → what stands in it: states, failures, rows; for anybody, at any time.

Reads beside a run that goes on. Nothing is held in memory but a page of rows. Writes nothing.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from llava_video.archive.ledger_file import NAME, open_for_reading
from llava_video.archive.unit import Item, Unit
from llava_video.sqlite_file import GuardedFile

State = Literal["waiting", "running", "done", "failed", "quarantined"]
STATES: tuple[State, ...] = get_args(State)

_PAGE_ROWS = 256
_UNIT = (
    "SELECT u.key, u.first, i.item, u.content, u.attempts, u.crashes, u.interruptions "
    "FROM units u JOIN inputs i ON i.number = u.first "
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How one entry of the inputs ended.

    Attributes:
        number: its place among the inputs.
        item: the entry as it is now: the row of a file that was renamed keeps its old address.
        key: of its unit.
        state: "done", "failed" or "quarantined".
        duplicate_of: the first place of the same unit; None where this is the first.
        row: what was recorded.
    """

    number: int
    item: Item
    key: str
    state: State
    duplicate_of: int | None
    row: dict[str, Any]


class LedgerView(GuardedFile):
    """Look at the ledger of a run folder; a context manager.

    Args:
        folder: of the run.

    Raises:
        LedgerError: there is no ledger, it cannot be read, or another version wrote it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        super().__init__(self.folder / NAME, self._open())

    def _open(self) -> sqlite3.Connection:
        return open_for_reading(self.folder)

    def fact(self, name: str) -> str | None:
        """Return what was kept of the whole run under a name; None for nothing."""
        found = self._select("SELECT value FROM facts WHERE name = ?", (name,))
        return str(found[0][0]) if found else None

    @property
    def num_inputs(self) -> int:
        """Entries of the inputs so far, duplicates counted."""
        return int(self._select("SELECT COUNT(*) FROM inputs")[0][0])

    @property
    def is_complete(self) -> bool:
        """Whether all entries of the inputs stand in it: `close_inputs` was called for them."""
        return self.fact("num_inputs") is not None

    def counts(self) -> dict[State, int]:
        """Return how many units, asked for by the inputs as they are now, are in each state."""
        found = dict(
            self._select("SELECT state, COUNT(*) FROM units WHERE first IS NOT NULL GROUP BY state")
        )
        return {state: found.get(state, 0) for state in STATES}

    def failures(self) -> dict[str, int]:
        """Return how many units failed or were quarantined, by class of the error."""
        return dict(
            self._select(
                "SELECT kind, COUNT(*) FROM units WHERE state IN ('failed', 'quarantined') "
                "AND first IS NOT NULL GROUP BY kind ORDER BY COUNT(*) DESC, kind"
            )
        )

    def unit(self, key: str) -> Unit | None:
        """Return a unit that the inputs ask for; None for any other key."""
        found = self._select(_UNIT + "WHERE u.key = ?", (key,))
        return _unit(found[0]) if found else None

    def state(self, key: str) -> State | None:
        """Return the state of a unit; None of an unknown one."""
        found = self._select("SELECT state FROM units WHERE key = ?", (key,))
        return found[0][0] if found else None

    def ended(self, start: int = 0, stop: int | None = None) -> Iterator[Ended]:
        """Yield how the entries [start, stop) ended, in their order; others are left out.

        Args:
            start: first place among the inputs.
            stop: the place behind the last one; None for all.
        """
        at, end = start, 2**63 - 1 if stop is None else stop
        while True:
            page = self._select(
                "SELECT i.number, i.item, u.key, u.state, u.first, u.row "
                "FROM inputs i JOIN units u ON u.id = i.unit "
                "WHERE i.number >= ? AND i.number < ? AND u.row IS NOT NULL "
                "ORDER BY i.number LIMIT ?",
                (at, end, _PAGE_ROWS),
            )
            for number, item, key, state, first, row in page:
                yield Ended(
                    number=number,
                    item=Item.from_json(number, item),
                    key=key,
                    state=state,
                    duplicate_of=None if first == number else first,
                    row=json.loads(row),
                )
            if len(page) < _PAGE_ROWS:
                return
            at = page[-1][0] + 1

    def forgotten(self) -> Iterator[str]:
        """Yield the keys of units that the inputs asked for once, and do no more.

        Those whose first eight digits a unit has that is asked for are left out: names of files
        have no more of a key.
        """
        for (key,) in self._select(
            "SELECT key FROM units u WHERE first IS NULL AND NOT EXISTS (SELECT 1 FROM units v "
            "WHERE v.key >= substr(u.key, 1, 8) AND v.key < substr(u.key, 1, 8) || 'g' "
            "AND v.first IS NOT NULL)"
        ):
            yield str(key)

    def sealed(self) -> list[int]:
        """Return the numbers of the shards that were written and hold good."""
        return [shard for (shard,) in self._select("SELECT shard FROM sealed ORDER BY shard")]

    def faults(self) -> list[str]:
        """Check the file itself and what must hold in it; return a sentence for each fault."""
        checked = [line for (line,) in self._select("PRAGMA quick_check(20)")]
        found = [f"{NAME}: {line}" for line in checked if line != "ok"]
        wrong_first = self._select(
            "SELECT key FROM units u WHERE first IS NOT "
            "(SELECT MIN(number) FROM inputs WHERE unit = u.id) LIMIT 20"
        )
        found += [f"unit {key} is not where the inputs ask for it." for (key,) in wrong_first]
        homeless = self._select(
            "SELECT number FROM inputs WHERE unit NOT IN (SELECT id FROM units) LIMIT 20"
        )
        return found + [f"entry {number} has no unit." for (number,) in homeless]


def _unit(found: Sequence[Any]) -> Unit:
    key, first, item, content, attempts, crashes, interruptions = found
    return Unit(
        key=key,
        number=first,
        item=Item.from_json(first, item),
        content_hash=content,
        attempts=attempts,
        crashes=crashes,
        interruptions=interruptions,
    )
