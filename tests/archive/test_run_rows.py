"""A run's rows are there as soon as they have ended, of its ledger, of copies and of shards."""

from pathlib import Path

import archive_rows as made
import pytest

from llava_video.archive.ledger import Ledger
from llava_video.archive.run_rows import one_run, run_folders, run_rows, state_of_rows
from llava_video.errors import ConfigError


def test_rows_are_there_when_they_end_and_not_when_their_shard_does(ledger: Ledger) -> None:
    ledger.add([made.unit(0), made.unit(1)])
    ledger.claim(2, "w")
    assert list(run_rows(ledger.folder)) == []
    before, row = state_of_rows(ledger.folder), made.caption_row(1, "a dog")
    ledger.finish(row["key"], row)
    assert [one["answers"][0]["text"] for one in run_rows(ledger.folder)] == ["a dog"]
    assert state_of_rows(ledger.folder) != before
    assert state_of_rows(ledger.folder) == state_of_rows(ledger.folder)


def test_rows_without_their_ledger_are_read_from_shards(tmp_path: Path) -> None:
    rows = [made.caption_row(number, "a dog") for number in range(3)]
    assert list(run_rows(made.sealed_run(tmp_path, rows))) == rows


def test_a_folder_of_shards_is_its_shards_by_number(tmp_path: Path, ledger: Ledger) -> None:
    for name in ("shard-10-of-11", "shard-2-of-11", "sheets"):
        (tmp_path / "all" / name).mkdir(parents=True)
    shards = [tmp_path / "all" / name for name in ("shard-2-of-11", "shard-10-of-11")]
    assert run_folders(tmp_path / "all") == shards
    with pytest.raises(ConfigError, match=r"holds 2 runs.*shard-2-of-11, shard-10-of-11"):
        one_run(tmp_path / "all")
    assert one_run(ledger.folder) == ledger.folder
    assert run_folders(tmp_path / "none") == [tmp_path / "none"]
