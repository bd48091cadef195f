"""Descriptions hold nobody up; every alert gets its frames, described or not."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monitor_cases import person, run, said, watch

from llava_video.errors import CapacityError
from llava_video.monitor.alerts import AlertDesk
from llava_video.monitor.questions import WindowFrames
from llava_video.monitor.spool import Spool
from llava_video.monitor.updates import ToTell, UpdateWriter

FRAMES = np.zeros((3, 32, 32, 3), np.uint8)
WINDOW = WindowFrames(frames=FRAMES, times_s=(0.0, 1.0, 2.0), start_s=0.0, end_s=3.0)


@contextmanager
def desk_of(folder: Path, number: int) -> Iterator[tuple[AlertDesk, Spool, list[ToTell]]]:
    """Give a desk that has told of a number of alerts."""
    with Spool(folder) as spool:
        desk = AlertDesk(spool, watch())
        alerts, rule = [], person()
        state = desk.state(rule, "gate")
        for at in range(number):
            state, (raised, ended) = run(rule, [said(9.0 * at), said(9.0 * at + 4, "no")], state)
            desk.take(rule, state, raised, FRAMES[0])
            desk.take(rule, state, ended)
            alerts.append(
                ToTell(
                    alert_id=raised.alert_id, window=WINDOW, frames=FRAMES, times_s=(1.0, 2.0, 3.0)
                )
            )
        yield desk, spool, alerts


def updates_of(spool: Spool) -> list[dict[str, Any]]:
    return [one.facts for one in reversed(spool.messages(99)) if one.kind == "update"]


def test_an_update_has_description_and_sheet(tmp_path: Path) -> None:
    with desk_of(tmp_path, 1) as (desk, spool, alerts):
        with UpdateWriter(desk, lambda window: ("a red car", ("text tries",))) as writer:
            writer.put(alerts[0])
            writer.close(keeps=True)
        (update,) = updates_of(spool)
    assert (update["description"], update["warnings"]) == ("a red car", ["text tries"])
    assert "problem" not in update
    assert [one["kind"] for one in update["files"]] == ["sheet"]


def test_a_description_that_fails_costs_no_frames(tmp_path: Path) -> None:
    def fails(window: WindowFrames) -> Any:
        raise CapacityError("no room.", "less") if window is WINDOW else ValueError

    with desk_of(tmp_path, 1) as (desk, spool, alerts):
        with UpdateWriter(desk, fails) as writer:
            writer.put(alerts[0])
            writer.close(keeps=True)
        (update,) = updates_of(spool)
    assert update["description"] == ""
    assert "no room" in update["problem"]
    assert [one["kind"] for one in update["files"]] == ["sheet"]


def files_of(update: dict[str, Any]) -> list[str]:
    return [one["kind"] for one in update["files"]]


def test_a_clock_that_was_set_back_costs_no_update_of_this_or_a_later_alert(tmp_path: Path) -> None:
    with desk_of(tmp_path, 2) as (desk, spool, alerts):
        with UpdateWriter(desk, lambda window: ("a car", ()), with_clip=True) as writer:
            writer.put(replace(alerts[0], times_s=(10.0, 11.0, 10.5)))
            writer.put(alerts[1])
            wait_for(lambda: len(updates_of(spool)) == 2)
            assert writer._thread.is_alive()
        told = updates_of(spool)
    assert [one["alert_id"] for one in told] == [one.alert_id for one in alerts]
    assert [files_of(one) for one in told] == [["sheet", "clip"]] * 2


@pytest.mark.parametrize(("broken", "left"), [("clip", ["sheet"]), ("sheet", [])])
@pytest.mark.parametrize("most", [16, 1])
def test_no_fault_of_one_alerts_evidence_ends_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, broken: str, left: list[str], most: int
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("unforeseen")

    go = threading.Event()

    def waits(window: WindowFrames) -> tuple[str, tuple[str, ...]]:
        assert go.wait(20)
        return "a car", ()

    with desk_of(tmp_path, 3) as (desk, spool, alerts):
        monkeypatch.setattr(desk.evidence, broken, fails)
        with UpdateWriter(desk, waits, most=most, with_clip=True) as writer:
            for alert in alerts:
                writer.put(alert)  # those above the bound are told in the caller's thread
            go.set()
            wait_for(lambda: len(updates_of(spool)) == 3)
            assert writer._thread.is_alive()
        told = updates_of(spool)
    assert {one["alert_id"] for one in told} == {one.alert_id for one in alerts}
    assert [files_of(one) for one in told] == [left] * 3
    assert "unforeseen" in caplog.text


def wait_for(holds: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 30
    while not holds() and time.monotonic() < until_s:
        time.sleep(0.02)
    assert holds()


def test_who_puts_is_not_held_up_and_too_many_get_frames_alone(tmp_path: Path) -> None:
    go = threading.Event()

    def slow(window: WindowFrames) -> tuple[str, tuple[str, ...]]:
        assert go.wait(20)
        return "described", ()

    with desk_of(tmp_path, 6) as (desk, spool, alerts):
        with UpdateWriter(desk, slow, most=2) as writer:
            for alert in alerts:
                writer.put(alert)
            assert writer.depth <= 2
            assert len(updates_of(spool)) >= 3  # told while the first is still being described
            go.set()
            writer.close(keeps=True)
        told = updates_of(spool)
    assert {one["alert_id"] for one in told} == {alert.alert_id for alert in alerts}
    assert sum(one["description"] == "described" for one in told) in (2, 3)
    assert sum("too many" in one.get("problem", "") for one in told) in (3, 4)


def test_the_end_waits_for_what_is_under_way_and_no_longer(tmp_path: Path, caplog) -> None:
    begun, go = threading.Event(), threading.Event()

    def hangs(window: WindowFrames) -> tuple[str, tuple[str, ...]]:
        begun.set()
        go.wait(20)
        return "late", ()

    with desk_of(tmp_path, 3) as (desk, spool, alerts):
        with UpdateWriter(desk, hangs, stop_s=0.2) as writer:
            for alert in alerts:
                writer.put(alert)
            assert begun.wait(20)
            started_s = time.monotonic()
        assert time.monotonic() - started_s < 10
        problems = [one.get("problem", "") for one in updates_of(spool)]
        assert problems == ["the watch ended before it was described."] * 2
    go.set()  # the spool is closed: the next start tells of this one
    writer._thread.join(10)
    assert not writer._thread.is_alive()
    assert "was not told more of" in caplog.text
    with Spool(tmp_path) as spool:
        assert [one.alert_id for one in spool.without_update()] == [alerts[0].alert_id]
