"""Anybody sees what stands in a ledger, while it is written and after."""

import json
import threading
from collections import Counter
from pathlib import Path

import pytest
from archive_units import open_ledger, row_of, unit_of

from llava_video.archive.ledger import Ledger
from llava_video.archive.ledger_view import STATES, LedgerView
from llava_video.errors import LedgerError


def test_a_reader_sees_the_run_go_on(ledger: Ledger) -> None:
    with LedgerView(ledger.folder) as view:
        assert view.counts() == dict.fromkeys(STATES, 0)
        assert (view.num_inputs, view.is_complete, view.fact("settings")) == (0, False, "s")
        ledger.add([unit_of(0), unit_of(1)])
        ledger.close_inputs(2)
        assert (view.num_inputs, view.is_complete) == (2, True)
        ledger.claim(1, "w")
        assert view.counts()["running"] == 1
        ledger.finish(unit_of(0).key, row_of(unit_of(0)))
        assert [one.row for one in view.ended()] == [row_of(unit_of(0))]
        assert list(view.forgotten()) == []
        assert view.unit(unit_of(1).key) == unit_of(1)
        assert view.faults() == []


def test_a_reader_beside_the_making_sees_a_whole_ledger_or_none(tmp_path: Path) -> None:
    made, seen = threading.Event(), Counter[str]()

    def look(folder: Path) -> None:
        while not made.is_set():
            try:
                with LedgerView(folder) as view:
                    seen["whole"] += view.fact("settings") in (None, "s")
            except LedgerError as error:
                seen["none" if "is not there" in error.message else str(error)] += 1

    for number in range(20):
        made.clear()
        folder = tmp_path / str(number)
        reader = threading.Thread(target=look, args=(folder,))
        reader.start()
        open_ledger(folder).close()
        made.set()
        reader.join()
    assert set(seen) <= {"whole", "none"}
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []


def test_a_reader_changes_nothing(ledger: Ledger) -> None:
    with LedgerView(ledger.folder) as view, pytest.raises(Exception, match="readonly"):
        view._connection.execute("DELETE FROM facts")


def test_a_reader_in_the_midst_of_rows_does_not_stop_the_writer(ledger: Ledger) -> None:
    units = [unit_of(number) for number in range(600)]
    ledger.add(units)
    ledger.claim(600, "w")
    for unit in units[:300]:
        ledger.finish(unit.key, row_of(unit))
    with LedgerView(ledger.folder) as view:
        seen = view.ended()
        assert next(seen).number == 0
        for unit in units[300:]:
            ledger.finish(unit.key, row_of(unit))
        # Pages are read one by one: what ended meanwhile is there, and nothing twice.
        assert [one.number for one in seen] == list(range(1, 600))


def test_a_span_of_the_inputs(ledger: Ledger) -> None:
    units = [unit_of(number) for number in range(10)]
    ledger.add(units)
    ledger.claim(10, "w")
    for unit in units[::2]:
        ledger.finish(unit.key, row_of(unit))
    assert [one.number for one in ledger.ended(2, 8)] == [2, 4, 6]
    assert [one.number for one in ledger.ended(7)] == [8]
    assert list(ledger.ended(8, 2)) == []


def test_faults_are_found(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.add([unit_of(0), unit_of(1)])
        run = ledger._connection.execute
        run("UPDATE units SET first = 7 WHERE key = ?", (unit_of(1).key,))
        assert ledger.faults() == [f"unit {unit_of(1).key} is not where the inputs ask for it."]
        run("UPDATE units SET first = 1 WHERE key = ?", (unit_of(1).key,))
        run("DELETE FROM units WHERE key = ?", (unit_of(0).key,))
        assert ledger.faults() == ["entry 0 has no unit."]


def test_a_closed_view_says_so(tmp_path: Path) -> None:
    open_ledger(tmp_path).close()
    view = LedgerView(tmp_path)
    view.close()
    view.close()
    with pytest.raises(LedgerError, match="closed"):
        view.counts()


def test_rows_come_back_as_they_went(ledger: Ledger) -> None:
    row = {"text": "ü \n\u2028 '\"", "number": 1.5, "list": [None, True, {}]}
    ledger.add([unit_of(0)])
    ledger.finish(unit_of(0).key, row)
    (ended,) = ledger.ended()
    assert ended.row == json.loads(json.dumps(row))
    assert (ended.state, ended.key) == ("done", unit_of(0).key)
