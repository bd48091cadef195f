"""A file of ours is made whole, refuses strangers, and knows a full disk."""

import errno
import sqlite3
from pathlib import Path

import pytest

from llava_video.errors import LedgerError
from llava_video.sqlite_file import check_version, is_disk_full, open_writer, reported, transaction

SCHEMA = "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);\nCREATE TABLE b (x);\n"


@pytest.mark.parametrize(("synchronous", "number"), [("NORMAL", 1), ("FULL", 2)])
def test_a_file_is_made_with_its_version_and_care(
    tmp_path: Path, synchronous: str, number: int
) -> None:
    path = tmp_path / "a.sqlite"
    for _ in range(2):  # made, and opened again
        connection = open_writer(path, SCHEMA, 3, synchronous)
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        assert connection.execute("PRAGMA synchronous").fetchone() == (number,)
        assert connection.execute("SELECT COUNT(*) FROM facts, b").fetchone() == (0,)
        connection.close()
    with pytest.raises(LedgerError, match=r"version 3, this library reads 4\..*name another"):
        open_writer(path, SCHEMA, 4, synchronous)


def test_a_version_is_checked_by_readers_too(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    connection = open_writer(path, SCHEMA, 3, "FULL")
    check_version(connection, path, 3)
    with pytest.raises(LedgerError, match="version 3"):
        check_version(connection, path, 2)
    connection.close()


def test_a_transaction_happens_or_does_not(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    connection = open_writer(path, SCHEMA, 1, "NORMAL")

    def change(value: object) -> None:
        with transaction(connection, path):
            connection.execute("INSERT INTO facts VALUES ('a', 'b')")
            connection.execute("INSERT INTO facts VALUES ('c', ?)", (value,))

    with pytest.raises(LedgerError):
        change(None)  # NOT NULL
    assert connection.execute("SELECT * FROM facts").fetchall() == []
    change("d")
    assert connection.execute("SELECT COUNT(*) FROM facts").fetchall() == [(2,)]
    connection.close()


def test_a_full_disk_is_told_from_other_faults(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    connection = open_writer(path, SCHEMA, 1, "FULL")
    connection.execute("PRAGMA max_page_count = 1")

    def fill() -> None:
        with transaction(connection, path):
            for number in range(100):
                connection.execute("INSERT INTO facts VALUES (?, ?)", (number, "x" * 4000))

    with pytest.raises(LedgerError, match="make room on its disk") as full:
        fill()
    assert is_disk_full(full.value)
    assert connection.execute("SELECT COUNT(*) FROM facts").fetchone() == (0,)
    with pytest.raises(LedgerError) as other, reported(path):
        connection.execute("SELECT * FROM nowhere")
    assert not is_disk_full(other.value)
    connection.close()
    assert is_disk_full(OSError(errno.ENOSPC, "no space"))
    assert is_disk_full(OSError(errno.EDQUOT, "over quota"))
    assert not is_disk_full(OSError(errno.EACCES, "not ours"))
    assert not is_disk_full(sqlite3.OperationalError("locked"))
    assert not is_disk_full(None)
