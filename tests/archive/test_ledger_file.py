"""A ledger opens for those who may, and says what to do where it cannot."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archive_units import open_ledger, row_of, unit_of

from llava_video.archive.ledger_file import (
    NAME,
    SCHEMA_VERSION,
    open_for_reading,
    open_for_writing,
)
from llava_video.archive.ledger_view import LedgerView
from llava_video.errors import LedgerError

NOBODY = 65534


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that every user can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


def as_nobody(work: Callable[[], str]) -> str:
    """Do something as a user without rights, in a forked process; return what it says."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(NOBODY)
            os.write(theirs, work().encode())
        except BaseException as error:  # noqa: BLE001 - told to the parent
            os.write(theirs, repr(error).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    with os.fdopen(ours, encoding="utf-8") as pipe:
        return pipe.read()


def test_a_new_ledger_is_made_whole(tmp_path: Path) -> None:
    connection = open_for_writing(tmp_path)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_one_whose_making_was_cut_short_is_made(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / NAME)
    connection.execute("PRAGMA journal_mode = WAL")  # writes the first page
    connection.close()
    with pytest.raises(LedgerError, match="version 0"):
        open_for_reading(tmp_path)
    open_for_writing(tmp_path).close()
    open_for_reading(tmp_path).close()


@pytest.mark.parametrize("way", [open_for_writing, open_for_reading])
def test_another_version_is_refused(tmp_path: Path, way: Callable) -> None:
    open_for_writing(tmp_path).close()
    connection = sqlite3.connect(tmp_path / NAME)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LedgerError, match=r"version 99.*name another folder"):
        way(tmp_path)


@pytest.mark.parametrize("way", [open_for_writing, open_for_reading])
def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path, way: Callable) -> None:
    (tmp_path / NAME).write_bytes(b"no database" * 1000)
    with pytest.raises(LedgerError, match="damaged or none of ours"):
        way(tmp_path)


def test_a_stranger_to_our_tables_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / NAME)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(LedgerError, match="version 0"):
        open_for_writing(tmp_path)


def test_where_there_is_none_there_is_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="holds no archive"):
        open_for_reading(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_states_and_rows_that_contradict_cannot_be_stored(tmp_path: Path) -> None:
    connection = open_for_writing(tmp_path)
    put = "INSERT INTO units (key, content, state, worker, row) VALUES "
    connection.execute(put + "('a', '', 'waiting', NULL, NULL)")
    for wrong in (
        "('b', '', 'done', NULL, NULL)",
        "('b', '', 'waiting', NULL, '{}')",
        "('b', '', 'running', NULL, NULL)",
        "('b', '', 'waiting', 'w', NULL)",
        "('b', '', 'lost', NULL, NULL)",
        "('a', '', 'waiting', NULL, NULL)",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(put + wrong)
    connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the other user is a forked process")
def test_who_may_not_write_can_read_and_is_told(open_folder: Path) -> None:
    run = open_folder / "run"
    with open_ledger(run) as ledger:
        ledger.add([unit_of(0)])
        ledger.claim(1, "w")
        ledger.finish(unit_of(0).key, row_of(unit_of(0)))
    for path in run.iterdir():
        path.chmod(0o444)
    run.chmod(0o555)

    def read() -> str:
        with LedgerView(run) as view:
            return str(view.counts()["done"])

    assert as_nobody(read) == "1"
    told = as_nobody(lambda: str(open_ledger(run)))
    assert "LedgerError" in told
    assert "name another folder" in told
    run.chmod(0o755)
    (run / "lock").chmod(0o666)
    told = as_nobody(lambda: str(open_ledger(run)))
    assert "make the folder writable" in told
