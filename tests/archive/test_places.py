"""The list of inputs changes in every way, and the ledger holds what a fresh one would."""

import random

import pytest
from archive_units import row_of, unit_of

from llava_video.archive.ledger import Ledger


def places(ledger: Ledger) -> list[tuple[int, str, int | None]]:
    return [(one.number, one.row["text"], one.duplicate_of) for one in ledger.ended()]


def work_all(ledger: Ledger) -> list[int]:
    claimed = ledger.claim(10**6, "w")
    for unit in claimed:
        assert ledger.finish(unit.key, row_of(unit))
    return [unit.number for unit in claimed]


def test_a_copy_is_worked_once_and_has_a_place_of_its_own(ledger: Ledger) -> None:
    ledger.add([unit_of(0, "a"), unit_of(1, "b"), unit_of(2, "a", address="copy.mp4")])
    assert work_all(ledger) == [0, 1]
    a, b = row_of(unit_of(0, "a"))["text"], row_of(unit_of(0, "b"))["text"]
    assert places(ledger) == [(0, a, None), (1, b, None), (2, a, 0)]
    assert ledger.num_inputs == 3
    assert sum(ledger.counts().values()) == 2


def test_when_the_first_of_two_goes_the_second_is_the_first(ledger: Ledger) -> None:
    ledger.add([unit_of(0, "a"), unit_of(1, "b"), unit_of(2, "a")])
    ledger.add([unit_of(0, "c")])
    assert [unit.number for unit in ledger.claim(9, "w")] == [0, 1, 2]


def test_entries_behind_the_last_ask_for_nothing(ledger: Ledger) -> None:
    ledger.add([unit_of(0, "a"), unit_of(1, "b"), unit_of(2, "a"), unit_of(3, "c")])
    ledger.close_inputs(3)
    assert [unit.number for unit in ledger.claim(9, "w")] == [0, 1]
    assert ledger.is_complete
    ledger.close_inputs(0)
    assert ledger.num_inputs == 0
    assert sum(ledger.counts().values()) == 0
    assert ledger.faults() == []


def test_whoever_adds_says_anew_how_many_there_are(ledger: Ledger) -> None:
    ledger.add([unit_of(0)])
    assert not ledger.is_complete
    ledger.close_inputs(1)
    ledger.add([unit_of(0)])
    assert ledger.is_complete
    ledger.add([unit_of(1)])
    assert not ledger.is_complete


@pytest.mark.parametrize(
    "change",
    [
        [(1, "x")],  # another unit at a place of shard 0
        [(9, "c1")],  # another duplicate, in shard 2, of what stands in shard 0
        [(0, "c5")],  # what stood in shard 1 is a duplicate of shard 0 now
    ],
)
def test_seals_break_where_rows_change(ledger: Ledger, change: list[tuple[int, str]]) -> None:
    ledger.add([unit_of(number) for number in range(12)])
    ledger.close_inputs(12)
    work_all(ledger)
    before = places(ledger)
    for shard in ledger.sealable():
        ledger.seal(shard)
    assert ledger.sealed() == [0, 1, 2]
    ledger.add([unit_of(number, content) for number, content in change])
    ledger.close_inputs(12)
    work_all(ledger)
    after = places(ledger)
    changed = {old[0] // 4 for old, new in zip(before, after, strict=True) if old != new}
    assert changed
    assert not changed & set(ledger.sealed())
    assert set(ledger.sealable()) == {0, 1, 2} - set(ledger.sealed())


def test_a_last_shard_that_was_not_full_is_sealed_anew(ledger: Ledger) -> None:
    ledger.add([unit_of(number) for number in range(6)])
    ledger.close_inputs(6)
    work_all(ledger)
    ledger.seal(0)
    ledger.seal(1)
    ledger.close_inputs(5)
    assert ledger.sealed() == [0]
    ledger.seal(1)
    ledger.close_inputs(5)
    assert ledger.sealed() == [0, 1]
    ledger.add([unit_of(5)])
    assert ledger.sealed() == [0]


def test_any_change_leaves_what_a_fresh_ledger_would_hold(ledger: Ledger) -> None:
    dice = random.Random(7)
    known: set[str] = set()
    for _ in range(60):
        contents = [f"c{dice.randrange(12)}" for _ in range(dice.randrange(1, 15))]
        start = dice.choice([0, 0, dice.randrange(len(contents))])
        units = [unit_of(number, content) for number, content in enumerate(contents)]
        ledger.add(units[start:])
        ledger.add(units[:start])
        ledger.close_inputs(len(units))
        assert ledger.faults() == []
        fresh = [contents.index(content) for content in dict.fromkeys(contents)]
        asked = [number for number in fresh if contents[number] not in known]
        assert work_all(ledger) == asked
        known |= set(contents)
        firsts = [contents.index(content) for content in contents]
        assert places(ledger) == [
            (number, row_of(units[number])["text"], None if first == number else first)
            for number, first in enumerate(firsts)
        ]
