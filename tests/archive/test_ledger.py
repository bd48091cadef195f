"""Every unit is worked once and ends in one row, in whatever order things go wrong."""

import os
import resource
import sqlite3
import threading
from pathlib import Path

import pytest
from archive_units import error_row, open_ledger, row_of, unit_of

from llava_video.archive.ledger import Ledger
from llava_video.archive.ledger_view import LedgerView
from llava_video.archive.retrying import retry_failed
from llava_video.archive.unit import UnitError
from llava_video.errors import ConfigError, LedgerBusyError, LedgerError
from llava_video.sqlite_file import GuardedFile

ERROR = UnitError(kind="DecodeError", message="frame 3 is broken.", position_s=0.1)


def states(ledger: LedgerView) -> dict[str, int]:
    return {state: count for state, count in ledger.counts().items() if count}


def rows(ledger: LedgerView) -> list[dict]:
    return [ended.row for ended in ledger.ended()]


def test_a_unit_goes_from_waiting_to_done(ledger: Ledger) -> None:
    units = [unit_of(number) for number in range(3)]
    assert ledger.add(units) == 3
    assert ledger.claim(2, "w") == units[:2]
    assert states(ledger) == {"waiting": 1, "running": 2}
    assert ledger.finish(units[0].key, {"text": "A cat."})
    assert ledger.state(units[0].key) == "done"
    assert rows(ledger) == [{"text": "A cat."}]
    assert ledger.claim(9, "w") == units[2:]
    assert ledger.claim(9, "w") == []


def test_units_are_claimed_in_the_order_of_the_inputs(ledger: Ledger) -> None:
    ledger.add([unit_of(number) for number in (5, 2, 9)])
    assert [unit.number for unit in ledger.claim(2, "w")] == [2, 5]


def test_a_row_is_taken_once(ledger: Ledger) -> None:
    unit = unit_of(0)
    ledger.add([unit])
    ledger.claim(1, "lost")
    ledger.release("lost", crashed=False)
    ledger.claim(1, "second")
    assert ledger.finish(unit.key, row_of(unit))
    # The first worker answers after all.
    assert not ledger.finish(unit.key, {"text": "late"})
    assert not ledger.fail(unit.key, ERROR, final=True)
    assert not ledger.fail(unit.key, ERROR, final=False)
    assert rows(ledger) == [row_of(unit)]


def test_an_attempt_that_failed_counts_and_the_last_makes_a_row(ledger: Ledger) -> None:
    unit = unit_of(0)
    ledger.add([unit])
    for attempt in range(3):
        (claimed,) = ledger.claim(1, "w")
        assert claimed.attempts == attempt
        assert ledger.fail(unit.key, ERROR, final=attempt == 2)
    assert states(ledger) == {"failed": 1}
    assert rows(ledger) == [error_row(unit, ERROR, 3, "failed")]
    assert ledger.failures() == {"DecodeError": 1}


def test_a_file_that_kills_two_workers_is_quarantined(ledger: Ledger) -> None:
    poison, innocent = unit_of(0), unit_of(1)
    ledger.add([poison, innocent])
    for attempt in range(2):
        assert [ledger.claim(1, worker)[0].number for worker in ("w", "v")] == [0, 1]
        waiting, quarantined = ledger.release("w", crashed=True)
        assert waiting == [poison.key][attempt:]
        assert quarantined == [poison.key][: attempt * 1]
        assert ledger.release("v", crashed=False) == ([innocent.key], [])
    assert states(ledger) == {"waiting": 1, "quarantined": 1}
    assert rows(ledger)[0]["error"] == "WorkerCrashed"
    assert rows(ledger)[0]["attempts"] == 2
    assert ledger.claim(2, "w")[0].crashes == 0


def test_everything_that_a_dead_worker_held_is_suspected(ledger: Ledger) -> None:
    ledger.add([unit_of(0), unit_of(1)])
    ledger.claim(2, "w")
    ledger.release("w", crashed=True)
    assert [unit.crashes for unit in ledger.claim(2, "v")] == [1, 1]
    ledger.release("v", crashed=False)
    assert [unit.crashes for unit in ledger.claim(2, "v")] == [1, 1]
    assert ledger.release("nobody", crashed=True) == ([], [])


def kill(ledger: Ledger) -> None:
    """Let go of a ledger as a killed process does."""
    GuardedFile.close(ledger)
    ledger._lock.release()


def test_what_ran_when_a_run_was_killed_waits_in_the_next(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    ledger.add([unit_of(0)])
    ledger.claim(1, "w")
    kill(ledger)
    with open_ledger(tmp_path) as ledger:
        (again,) = ledger.claim(1, "w")
    # Nobody knows whose fault it was: no attempt is counted, so that rows are the same.
    assert (again.attempts, again.crashes, again.interruptions) == (0, 0, 1)
    with open_ledger(tmp_path) as ledger:  # that one ended in order
        assert ledger.claim(1, "w") == [again]


def test_what_kills_the_run_is_worked_last_and_alone_and_then_quarantined(tmp_path: Path) -> None:
    units = [unit_of(number) for number in range(4)]
    for start in range(2):  # two at once, the first one deadly
        ledger = open_ledger(tmp_path)
        ledger.add(units)
        assert [u.number for u in ledger.claim(2, "w", is_wary=True)] == [0, 1], start
        kill(ledger)
    ledger = open_ledger(tmp_path)
    assert [u.number for u in ledger.claim(4, "w", is_wary=True)] == [2, 3]
    assert ledger.claim(1, "v", is_wary=True) == []  # not beside others
    for unit in units[2:]:
        ledger.finish(unit.key, row_of(unit))
    assert [u.number for u in ledger.claim(4, "v", is_wary=True)] == [0]
    assert ledger.claim(1, "w", is_wary=True) == []  # nothing beside it
    kill(ledger)
    ledger = open_ledger(tmp_path)
    assert [u.number for u in ledger.claim(4, "v", is_wary=True)] == [1]  # the other one first
    ledger.finish(units[1].key, row_of(units[1]))
    assert [(u.number, u.crashes) for u in ledger.claim(4, "v", is_wary=True)] == [(0, 1)]
    kill(ledger)
    with open_ledger(tmp_path) as ledger:
        assert states(ledger) == {"done": 3, "quarantined": 1}
        assert rows(ledger)[0]["error"] == "WorkerCrashed"


def test_retry_after_a_suspect_killed_its_run_ends_nothing(tmp_path: Path) -> None:
    for _ in range(4):
        ledger = open_ledger(tmp_path)
        ledger.add([unit_of(0)])
        ledger.claim(1, "w", is_wary=True)
        kill(ledger)
    assert retry_failed(tmp_path) == 0
    with open_ledger(tmp_path) as ledger:  # it had its two tries: the next one alone is its last
        (unit,) = ledger.claim(1, "w", is_wary=True)
        assert unit.crashes == 2


def test_where_workers_are_other_processes_a_killed_run_is_no_units_fault(tmp_path: Path) -> None:
    for _ in range(5):
        ledger = open_ledger(tmp_path)
        ledger.add([unit_of(0), unit_of(1)])
        assert [u.crashes for u in ledger.claim(2, "w")] == [0, 0]
        kill(ledger)


def test_retry_takes_one_class_of_failures(ledger: Ledger) -> None:
    units = [unit_of(number) for number in range(3)]
    ledger.add(units)
    ledger.claim(3, "w")
    ledger.fail(units[0].key, ERROR, final=True)
    ledger.fail(units[1].key, UnitError(kind="SourceError", message="gone."), final=True)
    ledger.finish(units[2].key, row_of(units[2]))
    assert ledger.retry("SourceError") == 1
    assert [unit.number for unit in ledger.claim(3, "w")] == [1]
    assert ledger.retry("Nothing") == 0
    assert ledger.retry() == 1
    assert ledger.claim(3, "w")[0].attempts == 0
    assert states(ledger) == {"running": 2, "done": 1}


def test_a_renamed_file_costs_nothing(ledger: Ledger) -> None:
    ledger.add([unit_of(0), unit_of(1)])
    ledger.claim(2, "w")
    for number in range(2):
        ledger.finish(unit_of(number).key, row_of(unit_of(number)))
    # "1.mp4" is now the first by name.
    assert ledger.add([unit_of(0, "c1", address="a.mp4"), unit_of(1, "c0")]) == 0
    assert states(ledger) == {"done": 2}
    first, second = ledger.ended()
    assert (first.number, first.item.address, first.row) == (0, "a.mp4", row_of(unit_of(1)))
    assert second.row == row_of(unit_of(0))
    assert first.duplicate_of is second.duplicate_of is None


def test_a_changed_prompt_redoes_that_unit_alone(ledger: Ledger) -> None:
    units = [unit_of(number) for number in range(6)]
    ledger.add(units)
    ledger.claim(6, "w")
    for unit in units:
        ledger.finish(unit.key, row_of(unit))
    changed = unit_of(3, prompts=("Who?",))
    assert ledger.add([*units[:3], changed, *units[4:]]) == 1
    assert ledger.claim(6, "w") == [changed]
    assert states(ledger) == {"running": 1, "done": 5}
    assert [ended.number for ended in ledger.ended()] == [0, 1, 2, 4, 5]
    # Changed back: the row is still there.
    assert ledger.add(units) == 0
    assert states(ledger) == {"done": 6}


def test_two_runs_at_once_are_refused_by_name(tmp_path: Path) -> None:
    with open_ledger(tmp_path), pytest.raises(LedgerBusyError, match=f"process {os.getpid()}"):
        open_ledger(tmp_path)
    open_ledger(tmp_path).close()


@pytest.mark.parametrize(
    ("other", "message"),
    [({"settings_digest": "t"}, "other settings"), ({"shard_units": 5}, "other shard units")],
)
def test_another_runs_folder_is_refused(tmp_path: Path, other: dict, message: str) -> None:
    open_ledger(tmp_path).close()
    with pytest.raises(ConfigError, match=message):
        open_ledger(tmp_path, **other)
    open_ledger(tmp_path).close()  # a refused one leaves no lock


def test_unknown_units_are_an_error(ledger: Ledger) -> None:
    for call in (
        lambda: ledger.finish("k", {}),
        lambda: ledger.fail("k", ERROR, final=False),
        lambda: ledger.fail("k", ERROR, final=True),
    ):
        with pytest.raises(LedgerError, match="no unit k"):
            call()
    assert (ledger.state("k"), ledger.unit("k")) == (None, None)


def test_a_shard_can_be_sealed_when_all_of_it_has_ended(ledger: Ledger) -> None:
    units = [unit_of(number) for number in range(6)]
    ledger.add(units)
    ledger.claim(6, "w")
    for unit in units[:3]:
        ledger.finish(unit.key, row_of(unit))
    assert ledger.sealable() == []
    ledger.finish(units[3].key, row_of(units[3]))
    ledger.finish(units[5].key, row_of(units[5]))
    assert ledger.sealable() == [0]
    ledger.seal(0)
    assert (ledger.sealable(), ledger.sealed()) == ([], [0])
    ledger.fail(units[4].key, ERROR, final=True)
    assert ledger.sealable() == []  # more inputs may come
    ledger.close_inputs(6)
    assert ledger.sealable() == [1]
    ledger.seal(1)
    ledger.retry("DecodeError")
    assert ledger.sealed() == [0]


def test_a_full_disk_is_an_error_and_nothing_is_half(tmp_path: Path) -> None:
    units = [unit_of(number) for number in range(50)]
    with open_ledger(tmp_path) as ledger:
        ledger.add(units)
        ledger.claim(50, "w")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = (tmp_path / "ledger.sqlite-wal").stat().st_size
        taken: list[str] = []

        def fill() -> None:
            for unit in units:
                assert ledger.finish(unit.key, row_of(unit) | {"long": "x" * 6000})
                taken.append(unit.key)

        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, limits[1]))
        try:
            with pytest.raises(LedgerError, match="make room") as caught:
                fill()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        assert 0 < len(taken) < 50
        assert [row["key"] for row in rows(ledger)] == taken
        assert states(ledger) == {"running": 50 - len(taken), "done": len(taken)}
        assert ledger.faults() == []
        # There is room again.
        for unit in units[len(taken) :]:
            assert ledger.finish(unit.key, row_of(unit))
    with LedgerView(tmp_path) as view:
        assert states(view) == {"done": 50}
        assert view.faults() == []


def test_what_may_not_be_written_is_an_error(ledger: Ledger) -> None:
    unit = unit_of(0)
    ledger.add([unit])
    ledger._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(LedgerError, match=r"readonly.*make the folder writable"):
        ledger.claim(1, "w")
    ledger._connection.execute("PRAGMA query_only = OFF")
    assert ledger.claim(1, "w") == [unit]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="cannot be made"):
        open_ledger(tmp_path / "file" / "run")


def test_an_error_in_between_takes_everything_back(ledger: Ledger) -> None:
    units = [unit_of(0), unit_of(1)]
    with pytest.raises(TypeError):
        ledger.finish((ledger.add(units), units[0].key)[1], {"text": object()})
    assert states(ledger) == {"waiting": 2}
    ledger.claim(2, "w")
    with pytest.raises(ZeroDivisionError):
        ledger.add([unit_of(2), *(unit_of(1 // number) for number in range(1))])
    assert ledger.num_inputs == 2


def test_threads_share_a_ledger(ledger: Ledger) -> None:
    ledger.add([unit_of(number) for number in range(200)])

    def work(name: str) -> None:
        while claimed := ledger.claim(3, name):
            for unit in claimed:
                assert ledger.finish(unit.key, row_of(unit) | {"worker": name})

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states(ledger) == {"done": 200}
    assert [row["key"] for row in rows(ledger)] == [unit_of(number).key for number in range(200)]


def test_half_a_character_of_a_file_name_is_kept(ledger: Ledger) -> None:
    unit = unit_of(0, address="\udce9t\udce9.mp4")
    ledger.add([unit])
    assert ledger.claim(1, "w") == [unit]
    ledger.finish(unit.key, {"address": unit.item.address})
    assert rows(ledger) == [{"address": "\udce9t\udce9.mp4"}]
