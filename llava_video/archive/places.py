"""The list of inputs, as it was and as it is now → which unit each place asks for.

The steps of one transaction of the ledger's writer. After each of them `units.first` is the first
place that asks for a unit, and no seal is left on a shard whose rows have changed. Knows no state.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence

from llava_video.archive.unit import Unit

Run = Callable[..., sqlite3.Cursor]

# SQLite before 3.32 takes 999 in one statement.
_MOST_VALUES = 500


def moved(run: Run, units: Sequence[Unit]) -> Iterator[tuple[Unit, str]]:
    """Yield the units whose places ask for something else so far, with their items as text."""
    numbers = [unit.number for unit in units]
    there = {
        number: (unit, item)
        for number, unit, item in run(
            "SELECT number, unit, item FROM inputs WHERE number BETWEEN ? AND ?",
            (min(numbers), max(numbers)),
        )
    }
    # By key: a join would read every unit with its row, which is most of the file.
    ids: dict[str, int] = {}
    for start in range(0, len(units), _MOST_VALUES) if there else ():
        keys = [unit.key for unit in units[start : start + _MOST_VALUES]]
        marks = ",".join("?" * len(keys))
        ids.update(run(f"SELECT key, id FROM units WHERE key IN ({marks})", keys).fetchall())
    for unit in units:
        item = unit.item.to_json()
        if there.get(unit.number) != (ids.get(unit.key), item):
            yield unit, item


def put(run: Run, unit: Unit, item: str, shard_units: int) -> bool:
    """Let a place ask for a unit from now on.

    Args:
        run: executes one statement.
        unit: with its place.
        item: of the unit, as text.
        shard_units: places per shard.

    Returns:
        Whether the unit was unknown.
    """
    key, number = unit.key, unit.number
    before = run("SELECT unit FROM inputs WHERE number = ?", (number,)).fetchone()
    known = run("SELECT id FROM units WHERE key = ?", (key,)).fetchone()
    if known is None:
        sql = "INSERT INTO units (key, content, state) VALUES (?, ?, 'waiting')"
        wanted = int(run(sql, (key, unit.content_hash)).lastrowid or 0)
    else:
        (wanted,) = known
        break_seals(run, wanted, shard_units)
    if before is not None:
        break_seals(run, before[0], shard_units)
    run("INSERT OR REPLACE INTO inputs VALUES (?, ?, ?)", (number, wanted, item))
    run("DELETE FROM sealed WHERE shard = ?", (number // shard_units,))
    if before is not None and before[0] != wanted:
        _find_first(run, before[0])
    _find_first(run, wanted)
    # Whoever adds says anew how many there are.
    run("DELETE FROM facts WHERE name = 'num_inputs'")
    return known is None


def close(run: Run, count: int, shard_units: int) -> None:
    """Let the inputs be `count` places: those behind ask for nothing any more."""
    behind = run("SELECT number, unit FROM inputs WHERE number >= ?", (count,)).fetchall()
    for number, unit in behind:
        break_seals(run, unit, shard_units)
        run("DELETE FROM inputs WHERE number = ?", (number,))
        _find_first(run, unit)
    if run("SELECT value FROM facts WHERE name = 'num_inputs'").fetchone() != (str(count),):
        # A last shard that was not full then, and is now, or the other way round.
        run("DELETE FROM sealed WHERE shard >= ?", (count // shard_units,))
        run("INSERT OR REPLACE INTO facts VALUES ('num_inputs', ?)", (str(count),))


def break_seals(run: Run, unit: int, shard_units: int) -> None:
    """Take the seals off all shards that hold a unit's row, or the word that it is a duplicate.

    Args:
        run: executes one statement.
        unit: its id in the file.
        shard_units: places per shard.
    """
    run(
        "DELETE FROM sealed WHERE shard IN (SELECT number / ? FROM inputs WHERE unit = ?)",
        (shard_units, unit),
    )


def _find_first(run: Run, unit: int) -> None:
    run(
        "UPDATE units SET first = (SELECT MIN(number) FROM inputs WHERE unit = ?) WHERE id = ?",
        (unit, unit),
    )
