"""Shards are sealed in order, with rows as the inputs are now."""

import json
from pathlib import Path
from typing import Any

import archive_rows as made
import pytest

from llava_video.archive.finishing import Finisher, row_of, rows_of
from llava_video.archive.ledger import Ledger
from llava_video.archive.parquet import read_parquet
from llava_video.archive.shards import sealed
from llava_video.archive.unit import Item, Unit, UnitError
from llava_video.archive.verify import verify


def opened(folder: Path, shard_units: int = 2) -> Ledger:
    return Ledger(folder, settings_digest="d", error_row=lambda *_: {}, shard_units=shard_units)


def put(ledger: Ledger, keys: str, folder: str = "a") -> None:
    """Let places ask for the units of these keys, one letter each."""
    units = [
        Unit(key=key, number=n, item=Item(number=n, address=f"{folder}/{n}.mp4"), content_hash="c")
        for n, key in enumerate(keys)
    ]
    ledger.add(units)
    ledger.close_inputs(len(units))


def end(ledger: Ledger, *keys: str) -> None:
    for key in keys:
        ledger.finish(key, row(key))


def row(key: str) -> dict[str, Any]:
    """Return a row as it was when its unit ended, at another place."""
    return made.ask_row(77, {"What?": f"answer {key}"}) | {"key": key}


def numbers(folder: Path) -> list[list[int]]:
    return [
        [json.loads(line)["number"] for line in path.read_bytes().splitlines()]
        for path in sealed(folder)
    ]


def test_shards_are_sealed_in_order(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        put(ledger, "abcde")
        finisher = Finisher(ledger, 2, has_tracks=False)
        ledger.claim(9, "w")
        end(ledger, "c", "d", "e")
        assert finisher.seal_ready() == []  # behind one that is open
        end(ledger, "a", "b")
        assert len(finisher.seal_ready()) == 3
        assert finisher.seal_ready() == []
    assert numbers(tmp_path) == [[0, 1], [2, 3], [4]]
    assert verify(tmp_path) == []


def test_duplicates_point_to_the_first(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        put(ledger, "aba")
        ledger.claim(9, "w")
        end(ledger, "a", "b")
        found = list(rows_of(ledger))
    assert [one["duplicate_of"] for one in found] == [None, None, 0]
    assert [one["status"] for one in found] == ["done", "done", "duplicate"]
    assert [one["video"]["address"] for one in found] == ["a/0.mp4", "a/1.mp4", "a/2.mp4"]
    assert (found[2]["answers"], found[2]["asked"]) == ([], found[0]["asked"])


def test_what_failed_says_why_at_each_place(tmp_path: Path) -> None:
    def failed(unit: Unit, error: UnitError, *_: Any) -> dict[str, Any]:
        return row(unit.key) | {"status": "failed", "error": {"kind": error.kind}}

    with Ledger(tmp_path, settings_digest="d", error_row=failed, shard_units=2) as ledger:
        put(ledger, "aa")
        ledger.claim(9, "w")
        ledger.fail("a", UnitError(kind="DecodeError", message="no."), final=True)
        found = list(rows_of(ledger))
    assert [(one["number"], one["status"], one["duplicate_of"]) for one in found] == [
        (0, "failed", None),
        (1, "failed", 0),
    ]
    assert [one["video"]["address"] for one in found] == ["a/0.mp4", "a/1.mp4"]
    assert found[1]["error"] == {"kind": "DecodeError"}


def test_moved_inputs_are_sealed_anew(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        finisher = Finisher(ledger, 2, has_tracks=False)
        put(ledger, "ab")
        ledger.claim(9, "w")
        end(ledger, "a", "b")
        finisher.seal_ready()
        put(ledger, "ba", "new")
        assert len(finisher.seal_ready()) == 1
        texts = [one["answers"][0]["text"] for one in rows_of(ledger)]
        assert texts == ["answer b", "answer a"]
        assert [row_of(one)["number"] for one in ledger.ended()] == [0, 1]
    assert verify(tmp_path) == []


@pytest.mark.parametrize("has_tracks", [False, True])
def test_tracks_stand_beside_their_shard(tmp_path: Path, has_tracks: bool) -> None:
    with opened(tmp_path) as ledger:
        put(ledger, "ab")
        ledger.claim(9, "w")
        end(ledger, "a", "b")
        Finisher(ledger, 2, has_tracks=has_tracks).seal_ready()
    names = [path.name for path in (tmp_path / "videos").glob("*.vtt")] if has_tracks else []
    assert len(names) == 2 * has_tracks
    assert (tmp_path / "videos").exists() == has_tracks


def test_shards_have_twins_in_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with opened(tmp_path) as ledger:
        put(ledger, "ab")
        ledger.claim(9, "w")
        end(ledger, "a", "b")
        Finisher(ledger, 2, has_tracks=False, has_parquet=True).seal_ready()
        found = list(read_parquet(tmp_path / "rows" / "00000.parquet"))
        assert found == list(rows_of(ledger))
    assert verify(tmp_path) == []


@pytest.mark.parametrize("lost", [[0], [1], [0, 1]])
def test_shards_that_are_gone_are_written_again(tmp_path: Path, lost: list[int]) -> None:
    with opened(tmp_path) as ledger:
        put(ledger, "abcd")
        ledger.claim(9, "w")
        end(ledger, *"abcd")
        finisher = Finisher(ledger, 2, has_tracks=False)
        paths = finisher.seal_ready()
        before = [path.read_bytes() for path in paths]
        assert finisher.unseal_lost() == []
        for shard in lost:
            paths[shard].unlink()
        assert finisher.unseal_lost() == lost
        assert finisher.seal_ready() == [paths[shard] for shard in lost]
        assert [path.read_bytes() for path in paths] == before
    assert verify(tmp_path) == []


def test_tracks_of_what_nobody_asks_for_go(tmp_path: Path) -> None:
    keys = [f"{letter * 8}" for letter in "abc"]
    with opened(tmp_path) as ledger:
        finisher = Finisher(ledger, 2, has_tracks=True)
        for asked in (keys[:2], [keys[0], keys[2]]):
            ledger.add(
                Unit(key=k, number=n, item=Item(number=n, address=f"{n}.mp4"), content_hash="c")
                for n, k in enumerate(asked)
            )
            ledger.close_inputs(2)
            for unit in ledger.claim(9, "w"):
                end(ledger, unit.key)
            finisher.seal_ready()
        (tmp_path / "videos" / "mine-bbbbbbbb.txt").write_text("mine")
        assert len(list((tmp_path / "videos").glob("*-bbbbbbbb.*"))) == 4
        finisher.sweep()
    names = sorted(path.name.rpartition("-")[2] for path in (tmp_path / "videos").iterdir())
    wanted = [f"{key}.{kind}" for key in (keys[0], keys[2]) for kind in ("md", "srt", "vtt")]
    assert names == sorted([*wanted, "bbbbbbbb.txt"])
