"""Shards appear whole and in order, and what stands in them reads back."""

import os
from collections.abc import Iterator
from pathlib import Path

import archive_rows as made
import pytest

from llava_video.archive.row import Row
from llava_video.archive.shards import iter_rows, seal, sealed, shard_path, sweep
from llava_video.errors import ConfigError


def rows(start: int, stop: int) -> list[Row]:
    return [made.caption_row(number, f"text {number}") for number in range(start, stop)]


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    whole = rows(0, 7)
    made.sealed_run(tmp_path, whole[:4])
    assert sealed(tmp_path) == [shard_path(tmp_path, 0), shard_path(tmp_path, 1)]
    assert list(iter_rows(tmp_path)) == whole[:4]


def test_a_run_that_has_ended_nothing_has_no_rows(tmp_path: Path) -> None:
    assert list(iter_rows(tmp_path)) == []
    assert sweep(tmp_path) == 0


def test_no_unfinished_name_is_ever_visible(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def watched() -> Iterator[Row]:
        for row in rows(0, 3):
            yield row
            seen.append([path.name for path in sealed(tmp_path)])
            visible = [p.name for p in (tmp_path / "rows").iterdir() if p.name[0] != "."]
            assert visible == []

    seal(tmp_path, 0, watched(), first=0)
    assert seen == [[], [], []]
    assert os.listdir(tmp_path / "rows") == ["00000.jsonl"]  # noqa: PTH208  # hidden names too


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Row]:
        yield from rows(0, 2)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        seal(tmp_path, 0, broken(), first=0)
    with pytest.raises(ConfigError, match="no rows"):
        seal(tmp_path, 0, [], first=0)
    gap = [*rows(0, 1), *rows(2, 3)]
    with pytest.raises(ConfigError, match="row 2 of shard 0 stands where row 1 belongs"):
        seal(tmp_path, 0, gap, first=0)
    assert list((tmp_path / "rows").iterdir()) == []


def test_shards_are_sealed_in_order_and_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seal in order"):
        seal(tmp_path, 1, rows(2, 4), first=2)
    path = seal(tmp_path, 0, rows(0, 2), first=0)
    first = path.read_bytes()
    other = [made.caption_row(number, "other") for number in range(2)]
    assert seal(tmp_path, 0, other, first=0) == path
    assert path.read_bytes() == first
    seal(tmp_path, 0, other, first=0, replace=True)
    assert [row["answers"][0]["text"] for row in iter_rows(tmp_path)] == ["other", "other"]


def test_what_a_killed_process_left_is_swept_and_never_read(tmp_path: Path) -> None:
    made.sealed_run(tmp_path, rows(0, 2))
    for name in (".0123456789abcdef.jsonl", ".0123456789abcdef.parquet", "notes.txt", ".keep"):
        (tmp_path / "rows" / name).write_text("torn")
    assert len(list(iter_rows(tmp_path))) == 2
    (tmp_path / ".fedcba9876543210.sqlite").write_text("torn")
    assert sweep(tmp_path) == 3
    names = sorted(path.name for path in (tmp_path / "rows").iterdir())
    assert names == [".keep", "00000.jsonl", "notes.txt"]


def test_missing_and_damaged_shards_are_named(tmp_path: Path) -> None:
    made.sealed_run(tmp_path, rows(0, 6))
    path = shard_path(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ConfigError, match=r"00001\.jsonl, line 2 is no row"):
        list(iter_rows(tmp_path))
    path.unlink()
    with pytest.raises(ConfigError, match=r"00001\.jsonl is missing, 00002\.jsonl is there"):
        list(iter_rows(tmp_path))
