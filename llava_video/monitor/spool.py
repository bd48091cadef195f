"""Messages → the disk, until each of their sinks has them, in order; rules' states beside them.

One SQLite file with one writer. An alert and the state that raised it are stored in one
transaction, and the log is flushed before it returns: a process that is killed, or a machine
that loses its power, neither loses an alert nor raises it twice. Delivered is what a sink took and
was then marked; between the two it may be killed, so a sink can get a message again, with the same
id. Knows no sink but by its name.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llava_video.errors import LedgerError
from llava_video.lock import RunLock
from llava_video.monitor.message import Message, StoredFile
from llava_video.sqlite_file import GuardedFile, is_disk_full, open_writer

NAME: Final = "spool.sqlite"
SCHEMA_VERSION: Final = 1

_SCHEMA = """
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    alert TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('alert', 'update', 'end')),
    severity TEXT NOT NULL,
    body TEXT NOT NULL,
    put_at_s REAL NOT NULL
);
CREATE INDEX messages_by_alert ON messages (alert);
CREATE TABLE waiting (
    sink TEXT NOT NULL,
    seq INTEGER NOT NULL REFERENCES messages (seq),
    PRIMARY KEY (sink, seq)
) WITHOUT ROWID;
CREATE INDEX waiting_by_seq ON waiting (seq);
CREATE TABLE files (
    name TEXT PRIMARY KEY,
    alert TEXT NOT NULL,
    kind TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    made_at_s REAL NOT NULL
);
CREATE INDEX files_by_age ON files (made_at_s);
CREATE TABLE states (
    rule TEXT NOT NULL,
    camera TEXT NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (rule, camera)
) WITHOUT ROWID;
CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
_MESSAGE = "SELECT id, alert, kind, severity, body, m.seq FROM messages m "
_NEEDED = "SELECT 1 FROM messages m JOIN waiting w ON w.seq = m.seq WHERE m.alert = files.alert"

_LOG_PAGES: Final = 64

# Makes room on a full disk; says whether there is some now.
Free = Callable[[], bool]
StateKey = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What is stored at once or not at all.

    Attributes:
        messages: each with the names of the sinks that get it; one whose id is there is left.
        states: JSON of rules' states, by rule and camera.
        files: what was written for the messages.
        at_s: wall clock, s.
    """

    messages: Sequence[tuple[Message, Iterable[str]]] = ()
    states: Mapping[StateKey, str] | None = None
    files: Sequence[StoredFile] = ()
    at_s: float = 0.0


class Spool(GuardedFile):
    """Keep what is to be told; the only one that writes in its folder.

    A context manager. May be used from several threads.

    Args:
        folder: made when it is not there.
        free: called where the disk is full, again and again until it says no.

    Raises:
        LedgerBusyError: another process watches with this folder.
        LedgerError: it cannot be read or written, or another version wrote it.
    """

    def __init__(self, folder: str | Path, *, free: Free = lambda: False) -> None:
        self.folder = Path(folder)
        self.free = free
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise LedgerError(f"{folder} cannot be made: {cause.strerror}.") from cause
        with contextlib.ExitStack() as undo:
            self._lock = undo.enter_context(RunLock(self.folder))
            path = self.folder / NAME
            super().__init__(path, open_writer(path, _SCHEMA, SCHEMA_VERSION, "FULL"))
            # The log takes this much of the disk beside the file; by SQLite's default, 4 MB.
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            undo.pop_all()

    def close(self) -> None:
        """Let go of the file and of the folder."""
        super().close()
        self._lock.release()

    def put(self, batch: Batch) -> int:
        """Store messages with what belongs to them; all is on the disk when this returns.

        Returns:
            How many of the messages were new.

        Raises:
            LedgerError: it cannot be written, with no room left to be made; nothing was stored.
        """

        def store(run: Callable[..., sqlite3.Cursor]) -> int:
            num_new = 0
            for message, sinks in batch.messages:
                put = run(
                    "INSERT INTO messages (id, alert, kind, severity, body, put_at_s) "
                    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                    (message.id, message.alert_id, message.kind, message.severity, message.body,
                     batch.at_s),
                )  # fmt: skip
                if put.rowcount == 1:
                    num_new += 1
                    for sink in sinks:
                        run("INSERT INTO waiting VALUES (?, ?)", (sink, put.lastrowid))
            for (rule, camera), state in (batch.states or {}).items():
                run("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", (rule, camera, state))
            for one in batch.files:
                run(
                    "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)",
                    (one.name, one.alert_id, one.kind, one.num_bytes, one.made_at_s),
                )
            return num_new

        return int(self._write(store))

    def head(self, sink: str) -> Message | None:
        """Return the oldest message that a sink has not taken; None where it has all."""
        found = self._select(
            f"{_MESSAGE} JOIN waiting w ON w.seq = m.seq WHERE w.sink = ? ORDER BY w.seq LIMIT 1",
            (sink,),
        )
        return _message_of(found[0]) if found else None

    def delivered(self, sink: str, seq: int) -> None:
        """Mark that a sink took a message.

        Raises:
            LedgerError: it cannot be written; the sink will get it again.
        """
        self._write(lambda run: run("DELETE FROM waiting WHERE sink = ? AND seq = ?", (sink, seq)))

    def forget_sink(self, sink: str) -> int:
        """Let go of what waits for a sink that is no more; return how many messages."""
        return int(
            self._write(lambda run: run("DELETE FROM waiting WHERE sink = ?", (sink,))).rowcount
        )

    def num_waiting(self) -> dict[str, int]:
        """Return how many messages wait, by the names of all sinks that any waits for."""
        return dict(self._select("SELECT sink, COUNT(*) FROM waiting GROUP BY sink"))

    def state(self, rule: str, camera: str) -> str | None:
        """Return the JSON of a rule's state; None where there is none."""
        found = self._select(
            "SELECT state FROM states WHERE rule = ? AND camera = ?", (rule, camera)
        )
        return found[0][0] if found else None

    def message(self, own_id: str) -> Message | None:
        """Return a message by its id."""
        found = self._select(f"{_MESSAGE} WHERE id = ?", (own_id,))
        return _message_of(found[0]) if found else None

    def messages(self, most: int, *, before: int | None = None) -> list[Message]:
        """Return the newest messages, newest first.

        Args:
            most: so many.
            before: only those with a smaller `seq`; None for all.
        """
        bound = 2**62 if before is None else before
        found = self._select(
            f"{_MESSAGE} WHERE m.seq < ? ORDER BY m.seq DESC LIMIT ?", (bound, most)
        )
        return [_message_of(row) for row in found]

    def without_update(self) -> list[Message]:
        """Return the alerts that were told and never updated, oldest first."""
        found = self._select(
            f"{_MESSAGE} WHERE kind = 'alert' AND NOT EXISTS (SELECT 1 FROM messages u "
            "WHERE u.alert = m.alert AND u.kind = 'update') ORDER BY m.seq"
        )
        return [_message_of(row) for row in found]

    def files(self) -> list[StoredFile]:
        """Return everything that is kept, oldest first."""
        found = self._select(
            f"SELECT name, alert, kind, bytes, made_at_s, EXISTS ({_NEEDED}) FROM files "
            "ORDER BY made_at_s, name"
        )
        return [
            StoredFile(
                name=name, alert_id=alert, kind=kind, num_bytes=num_bytes, made_at_s=made_at_s,
                is_needed=bool(is_needed),
            )
            for name, alert, kind, num_bytes, made_at_s, is_needed in found
        ]  # fmt: skip

    def forget_files(self, names: Sequence[str]) -> None:
        """Take files that are gone off the list."""

        def forget(run: Callable[..., sqlite3.Cursor]) -> None:
            for name in names:
                run("DELETE FROM files WHERE name = ?", (name,))

        self._write(forget)

    def prune(self, before_s: float) -> int:
        """Forget messages that were put before a time and are delivered everywhere.

        Returns:
            How many.
        """
        gone = self._write(
            lambda run: run(
                "DELETE FROM messages WHERE put_at_s < ? AND NOT EXISTS "
                "(SELECT 1 FROM waiting w WHERE w.seq = messages.seq)",
                (before_s,),
            )
        )
        return int(gone.rowcount)

    def bound(self, most_waiting: int) -> int:
        """Take updates that wait, oldest first, where more than so many messages wait.

        Alerts and ends stay, however many they are. What was taken is counted as "updates dropped".

        Returns:
            How many were taken.
        """

        def take(run: Callable[..., sqlite3.Cursor]) -> int:
            waiting = run("SELECT COUNT(DISTINCT seq) FROM waiting").fetchone()[0]
            over = max(0, waiting - most_waiting)
            found = run(
                "SELECT DISTINCT w.seq FROM waiting w JOIN messages m ON m.seq = w.seq "
                "WHERE m.kind = 'update' ORDER BY w.seq LIMIT ?",
                (over,),
            ).fetchall()
            for (seq,) in found:
                run("DELETE FROM waiting WHERE seq = ?", (seq,))
            _count(run, "updates dropped", len(found))
            return len(found)

        return int(self._write(take))

    def count(self, name: str, by: int = 1) -> None:
        """Add to a count that outlives the process."""
        self._write(lambda run: _count(run, name, by))

    def counts(self) -> dict[str, int]:
        """Return the counts."""
        return dict(self._select("SELECT name, value FROM counts"))

    def _write(self, change: Callable[[Callable[..., sqlite3.Cursor]], Any]) -> Any:
        """Do something in one transaction; where the disk is full, after making room."""
        may_shrink = True
        while True:
            try:
                with self._changing() as run:
                    return change(run)
            except LedgerError as error:
                if not is_disk_full(error):
                    raise
                # Once: what was just tried lies in the log too, and would be given back for ever.
                if may_shrink and self._shrink_log():
                    may_shrink = False
                # Without the guard: making room may want to read.
                elif self.free():
                    may_shrink = True
                else:
                    raise

    def _shrink_log(self) -> bool:
        """Bring the log's pages into the file and give its room back; return whether it had any."""
        log = self._path.with_name(f"{NAME}-wal")
        with self._guard, contextlib.suppress(sqlite3.Error, OSError):
            before = log.stat().st_size
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return log.stat().st_size < before
        return False


def _count(run: Callable[..., sqlite3.Cursor], name: str, by: int) -> None:
    run(
        "INSERT INTO counts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + ?",
        (name, by, by),
    )


def _message_of(row: Sequence[Any]) -> Message:
    own_id, alert, kind, severity, body, seq = row
    return Message(id=own_id, alert_id=alert, kind=kind, severity=severity, body=body, seq=seq)
