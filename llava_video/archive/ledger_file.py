"""A run folder → its SQLite file, opened for the one writer or for any reader.

Times stand nowhere in it: a clock that jumps changes nothing. Knows no unit.
"""

import sqlite3
from pathlib import Path

from llava_video.errors import LedgerError
from llava_video.sqlite_file import check_version, open_writer, reported

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
    # A killed process loses nothing; a power cut may lose the last units, which are then worked
    # again. FULL would wait for the disk once per unit.
    return open_writer(folder / NAME, _SCHEMA, SCHEMA_VERSION, "NORMAL")


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
                check_version(connection, path, SCHEMA_VERSION)
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
