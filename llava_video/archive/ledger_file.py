"""A run folder → its SQLite file, opened for the one writer or for any reader.

What SQLite says in its own words becomes an error that names the file and the way out. Times stand
nowhere in it: a clock that jumps changes nothing. Knows no unit.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from llava_video.errors import LedgerError
from llava_video.files import replacing

NAME = "ledger.sqlite"
SCHEMA_VERSION = 1

# `first` is the smallest place among the inputs that asks for a unit, NULL where none does any
# more. That a unit has a row exactly when it has ended is the file's own rule, not our care.
_SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE units (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    content TEXT NOT NULL,
    first INTEGER,
    state TEXT NOT NULL,
    worker TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    kind TEXT,
    message TEXT,
    row TEXT,
    CHECK (state IN ('waiting', 'running', 'done', 'failed', 'quarantined')),
    CHECK ((state IN ('done', 'failed', 'quarantined')) = (row IS NOT NULL)),
    CHECK ((state = 'running') = (worker IS NOT NULL))
);
CREATE INDEX units_by_state ON units (state, first);
CREATE TABLE inputs (
    number INTEGER PRIMARY KEY,
    unit INTEGER NOT NULL REFERENCES units (id),
    item TEXT NOT NULL
);
CREATE INDEX inputs_by_unit ON inputs (unit);
CREATE TABLE sealed (shard INTEGER PRIMARY KEY);
CREATE TABLE files (
    path TEXT PRIMARY KEY,
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    content TEXT NOT NULL
);
CREATE INDEX files_by_inode ON files (inode, size_bytes, mtime_ns);
"""


def open_for_writing(folder: Path) -> sqlite3.Connection:
    """Open the ledger of a folder whose lock is held; one that is not there is made.

    Raises:
        LedgerError: it cannot be read or written, or another version wrote it.
    """
    path = folder / NAME
    with reported(path):
        if not path.exists():
            _make_file(path)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # A killed process loses nothing; a power cut may lose the last units, which are then
            # worked again. FULL would wait for the disk once per unit.
            connection.execute("PRAGMA synchronous = NORMAL")
            if _version(connection) == 0 and not _tables(connection):
                _make(connection)
            _check_version(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


def open_for_reading(folder: Path) -> sqlite3.Connection:
    """Open the ledger of a folder to look at it, while a run goes on or after.

    Raises:
        LedgerError: there is none, it cannot be read, or another version wrote it.
    """
    path = folder / NAME
    if not path.is_file():
        raise LedgerError(f"{folder} holds no archive: {NAME} is not there.", "check the folder.")
    uri = f"{path.resolve().as_uri()}?mode=ro"
    # In a folder that nobody may write, SQLite reads a ledger only when told that nobody does; one
    # whose log is still there is not to be read so.
    ways = [uri] if path.with_name(f"{NAME}-wal").exists() else [uri, f"{uri}&immutable=1"]
    for way in ways:
        with reported(path):
            connection = sqlite3.connect(
                way, uri=True, isolation_level=None, check_same_thread=False
            )
            try:
                _check_version(connection, path)
            except sqlite3.OperationalError:
                connection.close()
                if way == ways[-1]:
                    raise
                continue
            except BaseException:
                connection.close()
                raise
        return connection
    raise AssertionError("one of the ways returns or raises")


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Let everything inside happen, or nothing of it.

    Raises:
        LedgerError: the file cannot be written; nothing has happened.
    """
    with reported(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            # SQLite has already taken it back where the disk is full.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextlib.contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn what SQLite raises into a `LedgerError` with a way out."""
    try:
        yield
    except sqlite3.Error as cause:
        raise LedgerError(f"{path} cannot be used: {cause}.", _hint(cause)) from cause


def _hint(cause: sqlite3.Error) -> str:
    name = getattr(cause, "sqlite_errorname", "")
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
        return "make room on its disk, and start again: what was done is kept."
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return "make the folder writable, or name another one."
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return "it is damaged or none of ours: name another folder, or put a copy back."
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "another program holds it: close that, and start again."
    return "start again: what was done is kept."


def _make_file(path: Path) -> None:
    """Make a ledger under another name, so that whoever looks sees a whole one or none."""
    try:
        with (
            replacing(path) as unfinished,
            contextlib.closing(sqlite3.connect(unfinished, isolation_level=None)) as connection,
        ):
            _make(connection)
            connection.execute("PRAGMA journal_mode = WAL")
    except OSError as cause:
        raise LedgerError(
            f"{path} cannot be made: {cause.strerror}.", "make the folder writable, with room."
        ) from cause


def _make(connection: sqlite3.Connection) -> None:
    """Make all tables or none, whenever the process is killed."""
    statements = [part for part in _SCHEMA.split(";\n") if part.strip()]
    connection.execute("BEGIN IMMEDIATE")
    for statement in statements:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _tables(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0])


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    found = _version(connection)
    if found != SCHEMA_VERSION:
        raise LedgerError(
            f"{path} is of version {found}, this library reads {SCHEMA_VERSION}.",
            "name another folder, or use the version of llava_video that wrote it.",
        )
