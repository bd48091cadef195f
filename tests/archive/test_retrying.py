"""What failed waits again, all of it or one class."""

from pathlib import Path
from typing import Any

import pytest

from llava_video.archive.ledger import Ledger
from llava_video.archive.ledger_view import LedgerView
from llava_video.archive.retrying import retry_failed
from llava_video.archive.unit import Item, Unit, UnitError
from llava_video.errors import ConfigError, LedgerBusyError, LedgerError


def opened(folder: Path) -> Ledger:
    def row(unit: Unit, error: UnitError, *_: Any) -> dict[str, Any]:
        return {"number": unit.number, "kind": error.kind}

    return Ledger(folder, settings_digest="d", error_row=row, shard_units=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with opened(tmp_path / "run") as ledger:
        items = [Item(number=number, address=f"{number}.mp4") for number in range(4)]
        ledger.add(Unit(key=i.address, number=i.number, item=i, content_hash="c") for i in items)
        ledger.close_inputs(4)
        for unit in ledger.claim(3, "w"):
            kind = "DecodeError" if unit.number else "SourceError"
            ledger.fail(unit.key, UnitError(kind=kind, message="no."), final=True)
    return tmp_path / "run"


def waiting(folder: Path) -> int:
    with LedgerView(folder) as view:
        return view.counts()["waiting"]


def test_one_class_or_all(folder: Path) -> None:
    assert waiting(folder) == 1
    assert (retry_failed(folder, "DecodeError"), waiting(folder)) == (2, 3)
    assert (retry_failed(folder), waiting(folder)) == (1, 4)


def test_a_class_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ConfigError, match="there are: DecodeError, SourceError"):
        retry_failed(folder, "Decode")
    retry_failed(folder)
    assert retry_failed(folder, "DecodeError") == retry_failed(folder) == 0


def test_a_folder_at_work_and_one_without_a_ledger(folder: Path, tmp_path: Path) -> None:
    with opened(folder), pytest.raises(LedgerBusyError):
        retry_failed(folder)
    with pytest.raises(LedgerError):
        retry_failed(tmp_path)
    assert not (tmp_path / "ledger.sqlite").exists()
