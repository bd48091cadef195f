"""Whoever dies, a unit is given back once, blamed only where it was alone, and the others go on."""

import threading
from collections import deque
from collections.abc import Iterable
from typing import Any

import pytest
from archive_units import unit_of

from llava_video.archive import crew as crew_module
from llava_video.archive.crew import Crew, Done, Gone, Ready
from llava_video.archive.hands import Busy, Taken
from llava_video.archive.row import Maker
from llava_video.archive.unit import Unit
from llava_video.archive.work import Outcome
from llava_video.errors import CapacityError, CheckpointError, ConfigError

FACTS = {"weights": "a"}


class Script:
    """A staff whose events are written by the test; workers are ready as they are hired."""

    def __init__(self, **facts: Any) -> None:
        self.heard: deque[Any] = deque()
        self.hired: list[int] = []
        self.sent: list[tuple[int, str, int]] = []
        self.is_closed = self.is_finishing = False
        self.facts = facts

    def hire(self, idx: int) -> None:
        self.hired.append(idx)
        self.heard.append(Ready(idx, self.facts.get(f"of_{idx}", FACTS), Maker(model="m")))

    def send(self, idx: int, slot: str, unit: Unit) -> None:
        self.sent.append((idx, slot, unit.number))

    def events(self, timeout_s: float) -> Iterable[Any]:
        events = list(self.heard)
        self.heard.clear()
        return events

    def finish(self) -> None:
        self.is_finishing = True

    def close(self) -> None:
        self.is_closed = True


def begun(script: Script, number: int = 2, in_flight: int = 2) -> Crew:
    crew = Crew(script, number, in_flight)
    crew.begin(threading.Event())
    return crew


def give(crew: Crew, unit: Unit) -> str:
    slot = crew.free_slot()
    assert slot is not None
    crew.give(slot, unit)
    return slot


def suspect(number: int) -> Unit:
    unit = unit_of(number)
    return Unit(key=unit.key, number=number, item=unit.item, content_hash="c", crashes=1)


def done(script: Script, slot: str, unit: Unit, busy: float = 0.5) -> None:
    idx = int(slot.split()[1].split(".")[0])
    script.heard.append(Done(idx, slot, Outcome(unit=unit), Busy(busy)))


def taken(crew: Crew) -> list[Taken]:
    found = []
    while (one := crew.take(0.0)) is not None:
        found.append(one)
    return found


def test_units_go_to_whoever_has_the_fewest() -> None:
    script = Script()
    crew = begun(script)
    assert (crew.facts, crew.maker.model) == (FACTS, "m")
    units = [unit_of(number) for number in range(4)]
    slots = [give(crew, unit) for unit in units]
    assert [idx for idx, _, _ in script.sent] == [0, 1, 0, 1]
    assert (crew.free_slot(), crew.num_held) == (None, 4)
    done(script, slots[2], units[2], busy=0.25)
    (back,) = taken(crew)
    assert (back.slot, back.outcome) == (slots[2], Outcome(unit=units[2]))
    assert (crew.num_held, crew.free_slot()) == (3, slots[2])
    assert crew.busy == Busy(0.125, None)


def test_what_a_dead_worker_held_comes_back_and_another_is_hired() -> None:
    script = Script()
    crew = begun(script)
    slots = [give(crew, unit_of(number)) for number in range(3)]
    script.heard.append(Gone(0, "died"))
    assert taken(crew) == [Taken(slots[0], None, True), Taken(slots[2], None, True)]
    assert crew.num_held == 1
    assert taken(crew) == []
    assert script.hired == [0, 1, 0]


def test_a_suspect_is_alone_with_its_worker() -> None:
    script = Script()
    crew = begun(script, number=1, in_flight=3)
    first, second = unit_of(0), unit_of(1)
    slots = [give(crew, first), give(crew, second)]
    waiting = give(crew, suspect(2))
    assert crew.free_slot() is None  # nobody joins it, though a slot is free
    done(script, slots[0], first)
    assert len(taken(crew)) == 1
    assert [number for _, _, number in script.sent] == [0, 1]
    done(script, slots[1], second)
    assert len(taken(crew)) == 1
    assert script.sent[-1] == (0, waiting, 2)
    assert crew.free_slot() is None
    done(script, waiting, suspect(2))
    assert len(taken(crew)) == 1
    assert crew.free_slot() is not None


def test_a_suspect_that_waited_is_not_blamed() -> None:
    script = Script()
    crew = begun(script, number=1)
    slot = give(crew, unit_of(0))
    waiting = give(crew, suspect(1))
    script.heard.append(Gone(0, "died"))
    assert set(taken(crew)) == {Taken(slot, None, True), Taken(waiting, None, False)}
    assert crew.num_held == 0


def test_who_never_loads_the_model_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(crew_module.time, "monotonic", lambda: now_s)

    class Dying(Script):
        def hire(self, idx: int) -> None:
            self.hired.append(idx)
            self.heard.append(Gone(idx, "was ended by SIGKILL"))

        def events(self, timeout_s: float) -> Iterable[Any]:
            nonlocal now_s
            now_s += 1.0
            return super().events(timeout_s)

    script = Dying()
    with pytest.raises(CapacityError, match="SIGKILL") as caught:
        begun(script)
    assert "machine's memory" in caught.value.hint
    assert sorted(script.hired) == [0, 0, 0, 1, 1, 1]


def test_deaths_without_end_are_no_fault_of_files() -> None:
    script = Script()
    crew = begun(script, number=1)

    def die_on() -> None:
        for number in range(99):
            give(crew, unit_of(number))
            script.heard.append(Gone(0, "died"))
            taken(crew)
            taken(crew)

    with pytest.raises(CapacityError, match="20 times without one result"):
        die_on()
    assert len(script.hired) == 20


def test_a_model_that_cannot_be_loaded_is_told() -> None:
    class Failing(Script):
        def hire(self, idx: int) -> None:
            self.heard.append(Gone(idx, "could not", CheckpointError("no such model.")))

    with pytest.raises(CheckpointError, match="no such model"):
        begun(Failing())


def test_workers_with_other_models_are_refused() -> None:
    with pytest.raises(ConfigError, match="weights = 'b', not 'a'"):
        begun(Script(of_1={"weights": "b"}))


def test_nobody_is_hired_for_a_run_that_stops() -> None:
    script = Script()
    crew = begun(script)
    slot = give(crew, unit_of(0))
    crew.finish()
    script.heard.append(Gone(0, "died"))
    assert [one.slot for one in taken(crew)] == [slot]
    assert taken(crew) == []
    assert (script.hired, script.is_finishing, crew.num_held) == ([0, 1], True, 0)
    crew.close()
    assert script.is_closed


def test_a_suspect_that_waits_is_not_begun_when_the_run_stops() -> None:
    script = Script()
    crew = begun(script, number=1)
    mate = give(crew, unit_of(0))
    waits = give(crew, suspect(1))
    crew.finish()
    done(script, mate, unit_of(0))
    assert [(one.slot, one.is_suspect) for one in taken(crew)] == [(mate, False), (waits, False)]
    assert [number for _, _, number in script.sent] == [0]
    assert crew.num_held == 0


def test_who_is_lost_with_a_machine_blames_nobody() -> None:
    script = Script()
    crew = begun(script, number=1)
    slots = [give(crew, unit_of(number)) for number in range(2)]
    script.heard.append(Gone(0, "is lost", is_suspect=False))
    assert [(one.slot, one.is_suspect) for one in taken(crew)] == [(s, False) for s in slots]


def test_a_wait_can_be_given_up() -> None:
    class Silent(Script):
        def hire(self, idx: int) -> None:
            self.hired.append(idx)

    stopping = threading.Event()
    stopping.set()
    with pytest.raises(CapacityError, match="before a model"):
        Crew(Silent(), 1, 1).begin(stopping)
