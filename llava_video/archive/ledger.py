"""Units → the state of each and its row, exactly once, whatever is killed when.

A unit's row is stored in the transaction that ends it; a unit whose row is there is never worked
again. What was running when a run ended waits again in the next one. Knows no video and no model.
"""

import contextlib
import itertools
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from llava_video.archive.content import FileStamp
from llava_video.archive.ledger_file import open_for_writing
from llava_video.archive.ledger_view import LedgerView, State
from llava_video.archive.places import Run, break_seals, close, moved, put
from llava_video.archive.unit import SUSPICIOUS, Unit, UnitError
from llava_video.errors import ConfigError, LedgerError
from llava_video.lock import RunLock

# What was worked alone, in the run's own process: a fact of that name has its key.
_ALONE = "alone"
# A poison file is one whose second worker died as well.
MAX_CRASHES = 2
_BATCH_UNITS = 1000
_CRASH = UnitError(
    kind="WorkerCrashed",
    message=f"its worker died {MAX_CRASHES} times in the midst of it.",
    hint="look at the file by itself; `retry --only WorkerCrashed` tries once more.",
)

# Makes the row of a unit that ends without a result: why, the attempts in all, and how it ended.
ErrorRow = Callable[[Unit, UnitError, int, State], Mapping[str, Any]]


class Released(NamedTuple):
    """What became of a worker's units, by key.

    Attributes:
        waiting: those that wait again.
        quarantined: those that killed their last worker allowed.
    """

    waiting: list[str]
    quarantined: list[str]


class Ledger(LedgerView):
    """Keep the states and rows of a run folder; the only one that writes there.

    A context manager. May be used from several threads.

    Args:
        folder: of the run; made when it is not there.
        settings_digest: of the settings that a run folder keeps for good.
        error_row: makes the row of a unit that ends without a result; None where none may end.
        shard_units: entries of the inputs per shard.

    Raises:
        LedgerBusyError: another process works on this folder.
        LedgerError: the ledger cannot be read or written, or another version wrote it.
        ConfigError: it is of a run with other settings.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        settings_digest: str,
        error_row: ErrorRow | None,
        shard_units: int = 1000,
    ) -> None:
        self._error_row = error_row
        with contextlib.ExitStack() as undo:
            self._lock = undo.enter_context(RunLock(_made(Path(folder))))
            super().__init__(folder)
            undo.callback(super().close)
            self._keep_fact("settings", settings_digest)
            self._keep_fact("shard_units", str(shard_units))
            self._forget_the_dead()
            undo.pop_all()
        self._shard_units = shard_units

    def _open(self) -> sqlite3.Connection:
        return open_for_writing(self.folder)

    def close(self) -> None:
        """Let go of the file and of the folder; that a run ends in order is no unit's fault."""
        with contextlib.suppress(LedgerError), self._changing() as run:
            run("UPDATE units SET state = 'waiting', worker = NULL WHERE state = 'running'")
        super().close()
        self._lock.release()

    def add(self, units: Iterable[Unit]) -> int:
        """Put units at their places among the inputs.

        What stands there already stays as it is; what the place asked for before is asked for no
        more, but its row is kept, should it ever be again. Two places may ask for one unit, which
        is worked once.

        Args:
            units: any number; stored by the thousand, so a long list need not be in memory.

        Returns:
            How many of them the ledger had never heard of.
        """
        num_new = 0
        remaining = iter(units)
        while batch := list(itertools.islice(remaining, _BATCH_UNITS)):
            with self._changing() as run:
                for unit, item in moved(run, batch):
                    num_new += put(run, unit, item, self._shard_units)
        return num_new

    def close_inputs(self, count: int) -> None:
        """Say that the inputs are `count` entries; places behind them ask for nothing more."""
        with self._changing() as run:
            close(run, count, self._shard_units)

    def claim(self, most: int, worker: str, *, is_wary: bool = False) -> list[Unit]:
        """Give a worker the next waiting units, in the order of the inputs.

        Args:
            most: no more than these.
            worker: a name; what it holds is found by it when it dies.
            is_wary: whether a unit may end the whole run: those that perhaps did are given last
                and alone.
        """
        with self._changing() as run:
            found = run(
                "SELECT key FROM units WHERE state = 'waiting' AND first IS NOT NULL "
                "AND interruptions < ? ORDER BY first LIMIT ?",
                (SUSPICIOUS if is_wary else 2**62, most),
            ).fetchall()
            if is_wary:
                found = self._wary(run, found)
            self._connection.executemany(
                "UPDATE units SET state = 'running', worker = ? WHERE key = ?",
                [(worker, key) for (key,) in found],
            )
            return [unit for (key,) in found if (unit := self.unit(key)) is not None]

    def _wary(self, run: Run, found: list[tuple[str]]) -> list[tuple[str]]:
        """Return what is given: nothing beside a suspect, and a suspect when nothing is left."""
        running = [n for (n,) in run("SELECT interruptions FROM units WHERE state = 'running'")]
        if max(running, default=0) >= SUSPICIOUS:
            return []
        if not found and not running:
            found = run(
                "SELECT key FROM units WHERE state = 'waiting' AND first IS NOT NULL "
                "ORDER BY crashes, first LIMIT 1"
            ).fetchall()
            run("INSERT OR REPLACE INTO facts SELECT ?, key FROM units WHERE key = ?",
                (_ALONE, found[0][0] if found else ""))  # fmt: skip
        return found

    def finish(self, key: str, row: Mapping[str, Any]) -> bool:
        """End a unit with its row; the row is kept when this returns.

        Returns:
            Whether it was recorded: not when the unit has ended before, as happens when a worker
            that was given up answers after all.

        Raises:
            LedgerError: no unit has this key, or the ledger cannot be written.
        """
        with self._changing() as run:
            return self._end(run, key, "done", row, None, 0)

    def fail(self, key: str, error: UnitError, *, final: bool) -> bool:
        """Record that an attempt failed.

        Args:
            key: of the unit.
            error: why.
            final: whether it ends the unit, with a row that says why; otherwise it waits again.

        Returns:
            Whether it was recorded, as of `finish`.
        """
        with self._changing() as run:
            attempts = 1 + _standing(run, key)[1]
            if final and self._error_row is not None:
                row = self._error_row(self._known(key), error, attempts, "failed")
                return self._end(run, key, "failed", row, error, 1)
            changed = run(
                "UPDATE units SET state = 'waiting', worker = NULL, attempts = ?, "
                "kind = ?, message = ? WHERE key = ? AND row IS NULL",
                (attempts, error.kind, error.message, key),
            )
            return changed.rowcount == 1

    def release(self, worker: str, *, crashed: bool) -> Released:
        """Take back what a worker holds.

        Args:
            worker: its name.
            crashed: whether it died in the midst of it, and may do so again.
        """
        back: list[str] = []
        poison: list[str] = []
        with self._changing() as run:
            held = run(
                "SELECT key, attempts, crashes FROM units WHERE worker = ? ORDER BY first",
                (worker,),
            ).fetchall()
            for key, attempts, crashes in held:
                is_poison = self._give_back(run, key, attempts, crashes, is_blamed=crashed)
                (poison if is_poison else back).append(key)
        return Released(back, poison)

    def retry(self, kind: str | None = None) -> int:
        """Let units that failed or were quarantined wait again, as if never tried.

        Args:
            kind: only those of this class of error; None for all.

        Returns:
            How many.
        """
        with self._changing() as run:
            found = run(
                "SELECT id FROM units WHERE state IN ('failed', 'quarantined') "
                "AND first IS NOT NULL AND (? IS NULL OR kind = ?)",
                (kind, kind),
            ).fetchall()
            for (unit,) in found:
                break_seals(run, unit, self._shard_units)
                run(
                    "UPDATE units SET state = 'waiting', row = NULL, kind = NULL, message = NULL, "
                    "attempts = 0, crashes = 0, interruptions = 0 WHERE id = ?",
                    (unit,),
                )
        return len(found)

    def sealable(self) -> list[int]:
        """Return the shards that can be written now: all their entries have ended, no seal yet.

        The last one, when it is not full, counts once the inputs are closed.
        """
        size, sealed, total = self._shard_units, set(self.sealed()), self.num_inputs
        num_shards = -(-total // size) if self.is_complete else total // size
        unsealed = (shard for shard in range(num_shards) if shard not in sealed)
        return [shard for shard in unsealed if not self._is_open(shard)]

    def seal(self, shard: int) -> None:
        """Note that a shard's file is whole and in its place."""
        with self._changing() as run:
            run("INSERT OR IGNORE INTO sealed VALUES (?)", (shard,))

    def unseal(self, shards: Iterable[int]) -> None:
        """Note that shards are to be written again."""
        with self._changing() as run:
            for shard in shards:
                run("DELETE FROM sealed WHERE shard = ?", (shard,))

    def known_hash(self, stamp: FileStamp) -> str | None:
        """Return the content hash of a file that was hashed before and has not changed since."""
        where = "device = ? AND inode = ? AND size_bytes = ? AND mtime_ns = ?"
        same = (stamp.device, stamp.inode, stamp.size_bytes, stamp.mtime_ns)
        found = self._select(
            f"SELECT content FROM files WHERE path = ? AND ctime_ns = ? AND {where}",
            (stamp.path, stamp.ctime_ns, *same),
        )
        if not found:
            # Moved, which changes its ctime: the same bytes under another name, the old one gone.
            moved = self._select(f"SELECT content, path FROM files WHERE {where}", same)
            found = [(content,) for content, path in moved if not Path(path).exists()]
        return str(found[0][0]) if found else None

    def keep_hash(self, stamp: FileStamp, content: str) -> None:
        """Remember the content hash of a file as it is."""
        with self._changing() as run:
            run(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    *(stamp.path, stamp.device, stamp.inode, stamp.size_bytes),
                    *(stamp.mtime_ns, stamp.ctime_ns, content),
                ),
            )

    def _forget_the_dead(self) -> None:
        """Take back what an earlier run held: nobody else has the lock, so it was killed."""
        with self._changing() as run:
            run("UPDATE units SET interruptions = interruptions + 1 WHERE state = 'running'")
            held = run("SELECT key, attempts, crashes FROM units WHERE state = 'running'")
            alone = self.fact(_ALONE)
            for key, attempts, crashes in held.fetchall():
                self._give_back(run, key, attempts, crashes, is_blamed=key == alone)
            run("DELETE FROM facts WHERE name = ?", (_ALONE,))

    def _give_back(
        self, run: Run, key: str, attempts: int, crashes: int, *, is_blamed: bool
    ) -> bool:
        """Let a unit wait again; return whether it has killed too often for that."""
        if is_blamed and crashes + 1 >= MAX_CRASHES and self._error_row is not None:
            run("UPDATE units SET crashes = crashes + 1 WHERE key = ?", (key,))
            row = self._error_row(self._known(key), _CRASH, attempts + 1, "quarantined")
            self._end(run, key, "quarantined", row, _CRASH, 1)
            return True
        run(
            "UPDATE units SET state = 'waiting', worker = NULL, "
            "attempts = attempts + ?, crashes = crashes + ? WHERE key = ?",
            (int(is_blamed), int(is_blamed), key),
        )
        return False

    def _is_open(self, shard: int) -> bool:
        start = shard * self._shard_units
        found = self._select(
            "SELECT 1 FROM inputs i JOIN units u ON u.id = i.unit "
            "WHERE i.number >= ? AND i.number < ? AND u.row IS NULL LIMIT 1",
            (start, start + self._shard_units),
        )
        return bool(found)

    def _end(
        self,
        run: Run,
        key: str,
        state: State,
        row: Mapping[str, Any],
        error: UnitError | None,
        attempts: int,
    ) -> bool:
        unit, _ = _standing(run, key)
        kind, message = (error.kind, error.message) if error else (None, None)
        changed = run(
            "UPDATE units SET state = ?, worker = NULL, row = ?, kind = ?, message = ?, "
            "attempts = attempts + ? WHERE id = ? AND row IS NULL",
            (state, json.dumps(row), kind, message, attempts, unit),
        )
        return changed.rowcount == 1

    def _known(self, key: str) -> Unit:
        unit = self.unit(key)
        if unit is None:
            raise LedgerError(f"no entry of the inputs asks for unit {key}.")
        return unit

    def _keep_fact(self, name: str, value: str) -> None:
        found = self.fact(name)
        if found is None:
            with self._changing() as run:
                run("INSERT INTO facts VALUES (?, ?)", (name, value))
        elif found != value:
            raise ConfigError(
                f"{self.folder} holds a run with other {name.replace('_', ' ')}.",
                "name another folder, or take the settings it was begun with.",
            )


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise LedgerError(
            f"{folder} cannot be made: {cause.strerror}.", "name another folder."
        ) from cause
    return folder


def _standing(run: Run, key: str) -> tuple[int, int]:
    """Return the id and the attempts of a unit."""
    found = run("SELECT id, attempts FROM units WHERE key = ?", (key,)).fetchone()
    if found is None:
        raise LedgerError(f"the ledger has no unit {key}.", "add it first.")
    return found[0], found[1]
