"""Every kind of damage is told, and nothing else."""

from collections.abc import Callable
from pathlib import Path

import archive_rows as made
import pytest

from llava_video.archive.finishing import Finisher
from llava_video.archive.ledger import Ledger
from llava_video.archive.run_file import write_facts
from llava_video.archive.shards import shard_path, twin_path
from llava_video.archive.unit import Item, Unit
from llava_video.archive.verify import verify
from llava_video.errors import LedgerError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a finished run of four units in two shards."""
    folder = tmp_path / "run"
    with Ledger(folder, settings_digest="", error_row=lambda *_: {}, shard_units=2) as ledger:
        items = [Item(number=number, address=f"{number}.mp4") for number in range(4)]
        ledger.add(Unit(key=i.address, number=i.number, item=i, content_hash="c") for i in items)
        ledger.close_inputs(4)
        for unit in ledger.claim(4, "w"):
            ledger.finish(unit.key, made.ask_row(unit.number, {"What?": "A car."}))
        Finisher(ledger, 2, has_tracks=False).seal_ready()
    return folder


def changed(change: Callable[[bytes], bytes], shard: int = 0) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = shard_path(folder, shard)
        path.write_bytes(change(path.read_bytes()))

    return damage


def test_a_whole_run_has_no_fault(folder: Path) -> None:
    assert verify(folder) == []
    text = shard_path(folder, 0).read_bytes()
    stamp = text[text.index(b'"finished_at":"') :][:40]
    changed(lambda text: text.replace(stamp, stamp.replace(b"20", b"19", 1)))(folder)
    assert verify(folder) == []  # when it was made is no fault


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (changed(lambda text: text.replace(b"A car.", b"A cat.", 1)), "row 0 is not what the led"),
        (changed(lambda text: text[: text.index(b"\n") + 1]), "row 1 is missing"),
        (changed(lambda text: text + text), "more rows than the ledger"),
        (changed(lambda text: text[:-9]), "line 2 is no row"),
        (changed(lambda text: text.replace(b'"schema":1', b'"schema":9', 1)), "schema 9"),
        (lambda folder: shard_path(folder, 0).unlink(), "is missing, 00001.jsonl is there"),
        (lambda folder: shard_path(folder, 1).unlink(), "00001.jsonl is not there"),
        (
            lambda folder: shard_path(folder, 2).write_bytes(shard_path(folder, 1).read_bytes()),
            "00002.jsonl is older than its units",
        ),
    ],
)
def test_damage_is_told(folder: Path, damage: Callable[[Path], None], fault: str) -> None:
    damage(folder)
    (found,) = verify(folder)
    assert fault in found


def test_a_folder_without_a_ledger(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="holds no archive"):
        verify(tmp_path)


def test_twins_are_looked_at(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    with Ledger(folder, settings_digest="", error_row=lambda *_: {}, shard_units=2) as ledger:
        finisher = Finisher(ledger, 2, has_tracks=False, has_parquet=True)
        assert finisher.unseal_lost() == [0, 1]
        finisher.seal_ready()
    assert verify(folder) == []
    one, other = twin_path(folder, 0), twin_path(folder, 1)
    one.write_bytes(other.read_bytes())
    assert verify(folder) == ["00000.parquet has other rows than the ledger."]
    one.write_bytes(b"PAR1")
    (fault,) = verify(folder)
    assert "00000.parquet" in fault
    one.unlink()
    (fault,) = verify(folder)
    assert "00000.parquet is not there" in fault


def test_tracks_are_looked_at(folder: Path) -> None:
    write_facts(folder, {"task": "timeline"}, {})
    faults = verify(folder)
    assert len(faults) == 4 * 3  # none is there
    with Ledger(folder, settings_digest="", error_row=lambda *_: {}, shard_units=2) as ledger:
        ledger.unseal([0, 1])
        Finisher(ledger, 2, has_tracks=True).seal_ready()
    assert verify(folder) == []
    track = next((folder / "videos").glob("*.vtt"))
    track.write_text("WEBVTT")
    (fault,) = verify(folder)
    assert fault.startswith(track.name)
