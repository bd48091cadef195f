"""A SQLite file of ours → opened for its one writer and held for threads.

Transactions happen or do not. What SQLite says in its own words becomes an error that names the
file and the way out. Knows no table.
"""

import contextlib
import errno
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from llava_video.errors import LedgerError
from llava_video.files import replacing

_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}


class GuardedFile:
    """Hold an open file for several threads, one at a time; a context manager.

    Args:
        path: the file, for what is said of it.
        connection: to it; any thread may use it.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path, self._connection = path, connection
        self._guard = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; nothing happens the second time."""
        with self._guard:
            self._connection.close()

    def _select(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._guard, reported(self._path):
            return self._connection.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        with self._guard, transaction(self._connection, self._path):
            yield self._connection.execute


def open_writer(
    path: Path, schema: str, version: int, synchronous: Literal["NORMAL", "FULL"]
) -> sqlite3.Connection:
    """Open a file whose folder is locked; one that is not there is made.

    Args:
        path: the file; its log lies beside it.
        schema: the statements that make its tables.
        version: of the schema.
        synchronous: whether a power cut may take the last transactions ("NORMAL") or not ("FULL").

    Raises:
        LedgerError: it cannot be read or written, or another version wrote it.
    """
    with reported(path):
        if not path.exists():
            _make_file(path, schema, version)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            if _version(connection) == 0 and not _tables(connection):
                _make(connection, schema, version)
            check_version(connection, path, version)
        except BaseException:
            connection.close()
            raise
    return connection


def check_version(connection: sqlite3.Connection, path: Path, version: int) -> None:
    """Refuse a file of another version.

    Raises:
        LedgerError: both versions stand in it.
    """
    found = _version(connection)
    if found != version:
        raise LedgerError(
            f"{path} is of version {found}, this library reads {version}.",
            "name another folder, or use the version of llava_video that wrote it.",
        )


def is_disk_full(error: BaseException | None) -> bool:
    """Say whether an error, or what it came from, is of a disk without room."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL_DISK:
            return True
        # Of a file's log, SQLite only says that a write failed.
        if getattr(error, "sqlite_errorname", "").startswith(
            ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHM")
        ):
            return True
        error = error.__cause__
    return False


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


def _make_file(path: Path, schema: str, version: int) -> None:
    """Make a file under another name, so that whoever looks sees a whole one or none."""
    try:
        with (
            replacing(path) as unfinished,
            contextlib.closing(sqlite3.connect(unfinished, isolation_level=None)) as connection,
        ):
            _make(connection, schema, version)
            connection.execute("PRAGMA journal_mode = WAL")
    except OSError as cause:
        raise LedgerError(
            f"{path} cannot be made: {cause.strerror}.", "make the folder writable, with room."
        ) from cause


def _make(connection: sqlite3.Connection, schema: str, version: int) -> None:
    """Make all tables or none, whenever the process is killed."""
    statements = [part for part in schema.split(";\n") if part.strip()]
    connection.execute("BEGIN IMMEDIATE")
    for statement in statements:
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _tables(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0])
