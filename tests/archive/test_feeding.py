"""Entries become units in their order; what cannot be read becomes one too."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llava_video.archive.feeding import Feeder
from llava_video.archive.ledger import Ledger
from llava_video.archive.unit import Item
from llava_video.errors import ManifestError
from llava_video.video.settings import FetchSettings


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "run", settings_digest="", error_row=lambda *_: {}) as opened:
        yield opened


def items(folder: Path, count: int) -> Iterator[Item]:
    for number in range(count):
        path = folder / f"{number}.mp4"
        if number != 1:
            path.write_bytes(b"video %d" % (number % 25))
        yield Item(number=number, address=str(path))


def test_units_stand_in_the_order_of_entries(ledger: Ledger, tmp_path: Path) -> None:
    feeder = Feeder(ledger, items(tmp_path, 30), lambda content, item: f"{content} {item.prompts}")
    feeder.start()
    feeder.join()
    assert (feeder.is_done, feeder.error, ledger.num_inputs) == (True, None, 30)
    assert ledger.is_complete
    units = ledger.claim(99, "w")
    # The last five hold the bytes of the first five, of which one is not there.
    assert [unit.number for unit in units] == [*range(25), 26]
    assert [unit.content_hash == "" for unit in units] == [n == 1 for n in range(26)]


def test_a_fault_of_the_inputs_is_kept_for_the_runner(ledger: Ledger, tmp_path: Path) -> None:
    def broken() -> Iterator[Item]:
        yield from items(tmp_path, 3)
        raise ManifestError("it changed.")

    feeder = Feeder(ledger, broken(), lambda content, _: content)
    feeder.start()
    feeder.join()
    assert isinstance(feeder.error, ManifestError)
    assert not feeder.is_done
    assert not ledger.is_complete


def test_what_is_fetched_is_tried_again(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def fail(address: str, _: object, **__: object) -> str:
        tried.append(address)
        raise ManifestError("no.")

    monkeypatch.setattr("llava_video.archive.feeding.content_hash", fail)
    entries = [Item(number=0, address="http://x/a.mp4"), Item(number=1, address="b.mp4")]
    Feeder(ledger, entries, lambda _, item: item.address, tries=3).run()
    assert sorted(tried) == ["b.mp4"] + ["http://x/a.mp4"] * 3


def test_a_slow_one_holds_up_nobody_and_keeps_its_place(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_ended, asked = threading.Event(), list[FetchSettings]()

    def slow(address: str, _: object, fetch_settings: FetchSettings) -> str:
        asked.append(fetch_settings)
        if address == "0.mp4":
            assert has_ended.wait(30)  # hashed one after the other, nobody would ever set it
        else:
            has_ended.set()
        return address

    monkeypatch.setattr("llava_video.archive.feeding.content_hash", slow)
    entries = [Item(number=number, address=f"{number}.mp4") for number in range(40)]
    fetch = FetchSettings(max_bytes=7)
    feeder = Feeder(ledger, entries, lambda content, _: content, fetch=fetch)
    feeder.run()
    assert [unit.content_hash for unit in ledger.claim(99, "w")] == [i.address for i in entries]
    assert asked == [fetch] * 40


def test_it_stops_when_told(ledger: Ledger, tmp_path: Path) -> None:
    begun = threading.Event()

    def endless() -> Iterator[Item]:
        path = tmp_path / "a.mp4"
        path.write_bytes(b"a")
        for number in range(10**9):
            begun.set()
            yield Item(number=number, address=str(path))

    feeder = Feeder(ledger, endless(), lambda content, item: f"{content}{item.number}")
    feeder.start()
    begun.wait()
    feeder.stop()
    assert not feeder.is_alive()
    assert (feeder.is_done, feeder.error) == (False, None)
