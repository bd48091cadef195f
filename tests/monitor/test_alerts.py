"""Alerts are stored with the state that raised them, and told of again with what takes longer."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monitor_cases import person, said, watch

from llava_video.errors import LedgerError
from llava_video.monitor.alerts import AlertDesk
from llava_video.monitor.message import Message
from llava_video.monitor.rules import Observation, RuleState, decide
from llava_video.monitor.settings import Rule
from llava_video.monitor.spool import Batch, Spool

FRAME = np.full((32, 32, 3), 99, np.uint8)
SINKS = (
    {"name": "all", "kind": "terminal"},
    {"name": "worst", "kind": "terminal", "least_severity": "critical"},
)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path) as opened:
        yield opened


def desk_of(spool: Spool, **more: Any) -> AlertDesk:
    settings = watch(*SINKS, retention={"reserve_bytes": 0, **more.pop("retention", {})})
    return AlertDesk(spool, settings, **{"clock": lambda: 1000.0, **more})


def see(
    desk: AlertDesk, rule: Rule, state: RuleState, seen: Observation
) -> tuple[RuleState, Message | None]:
    state, decision = decide(rule, "gate", state, seen)
    return state, desk.take(rule, state, decision, FRAME)


def test_an_alert_and_its_state_and_snapshot_are_stored_together(spool: Spool) -> None:
    woken = []
    desk = desk_of(spool, on_put=lambda: woken.append(True))
    rule = person()
    state, message = see(desk, rule, desk.state(rule, "gate"), said(5))
    assert message is not None
    assert woken == [True]
    assert desk.state(rule, "gate") == state
    assert spool.num_waiting() == {"all": 1}
    (picture,) = message.facts["files"]
    assert (desk.evidence.folder / picture["name"]).stat().st_size == picture["bytes"]
    assert [(one.name, one.is_needed) for one in spool.files()] == [(picture["name"], True)]


def test_severity_chooses_the_sinks(spool: Spool) -> None:
    see(desk_of(spool), person(severity="critical"), RuleState(), said(5))
    assert spool.num_waiting() == {"all": 1, "worst": 1}


def test_silence_is_stored_with_the_next_alert_or_when_tended(spool: Spool) -> None:
    desk, rule = desk_of(spool), person(hits=2)
    state, message = see(desk, rule, RuleState(), said(5))
    assert message is None
    assert spool.state("person", "gate") is None
    desk.tend()
    assert desk.state(rule, "gate") == state
    other = person(name="other")
    state, _ = see(desk, rule, state, said(6, "no"))
    see(desk, other, RuleState(), said(6))
    assert desk.state(rule, "gate") == state


def test_an_end_is_told_where_the_rule_says_so(spool: Spool) -> None:
    for tell_end, kinds in ((False, ["alert"]), (True, ["end", "alert"])):
        desk, rule = desk_of(spool), person(name=f"p{tell_end}", tell_end=tell_end)
        state, alert = see(desk, rule, RuleState(), said(5))
        see(desk, rule, state, said(6, "no"))
        assert alert is not None
        found = [one.kind for one in spool.messages(9) if one.alert_id == alert.alert_id]
        assert found == kinds


def test_after_a_long_silence_an_end_is_told_unless_a_new_alert_is(spool: Spool) -> None:
    for word, kinds in (("no", ["end", "alert"]), ("yes", ["alert", "alert"])):
        desk, rule = desk_of(spool), person(name=word, tell_end=True, forget_s=100.0)
        _, first = see(desk, rule, RuleState(), said(5))
        _, second = see(desk, rule, desk.state(rule, "gate"), said(106, word))
        assert first is not None
        assert second is not None
        found = [one for one in spool.messages(9) if one.facts["rule"] == word]
        assert [one.kind for one in found] == kinds
        assert (second.alert_id == first.alert_id) == (word == "no")


def test_a_restart_raises_nothing_twice(spool: Spool) -> None:
    rule = person(cooldown_s=100)
    _, first = see(desk_of(spool), rule, RuleState(), said(5))
    desk = desk_of(spool)
    state, message = see(desk, rule, desk.state(rule, "gate"), said(6))
    assert (message, state.raised) == (None, True)
    # The same window once more, as a recording gives it: the same alert, not another one.
    _, again = see(desk, rule, RuleState(), said(5))
    assert again is not None
    assert first is not None
    assert again.id == first.id
    assert spool.num_waiting() == {"all": 1}


def test_a_state_that_cannot_be_read_begins_anew(spool: Spool) -> None:
    desk, rule = desk_of(spool), person()
    for text in ("{", "[]", '{"unknown": 1}', '{"recent": 5}'):
        spool.put(Batch(states={("person", "gate"): text}))
        assert desk.state(rule, "gate") == RuleState()


def test_an_update_brings_description_sheet_and_clip(spool: Spool) -> None:
    desk, rule = desk_of(spool), person()
    _, alert = see(desk, rule, RuleState(), said(5))
    assert alert is not None
    frames = np.stack([FRAME] * 3)
    update = desk.update(
        alert.alert_id, description="A person.", frames=frames, times_s=[3.0, 4.0, 5.0],
        with_clip=True,
    )  # fmt: skip
    assert update is not None
    assert update.facts["description"] == "A person."
    assert [one["kind"] for one in update.facts["files"]] == ["sheet", "clip"]
    assert all((desk.evidence.folder / f["name"]).exists() for f in update.facts["files"])
    assert spool.num_waiting() == {"all": 2}
    assert desk.update("0" * 32, description="?") is None


def test_a_restart_finds_what_was_not_updated(spool: Spool) -> None:
    desk, rule = desk_of(spool), person()
    _, alert = see(desk, rule, RuleState(), said(5))
    assert [one.id for one in spool.without_update()] == [alert and alert.id]
    for one in spool.without_update():
        told = desk.update(one.alert_id, problem="the watch was restarted")
        assert told is not None
        assert told.facts["problem"] == "the watch was restarted"
    assert spool.without_update() == []


def test_an_alert_goes_out_without_a_picture_that_cannot_be_kept(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = desk_of(spool)

    def full(*_: object) -> None:
        raise OSError(errno.EACCES, "denied")

    monkeypatch.setattr(desk.evidence, "snapshot", full)
    _, message = see(desk, person(), RuleState(), said(5))
    assert message is not None
    assert message.facts["files"] == []
    assert spool.num_waiting() == {"all": 1}


def test_what_no_disk_has_room_for_is_held_and_stored_later_in_order(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken = []
    desk, rule = desk_of(spool, on_put=lambda: woken.append(True)), person()
    put, is_full = spool.put, [True]

    def maybe(batch: Batch) -> int:
        if is_full[0]:
            raise LedgerError("full.")
        return put(batch)

    monkeypatch.setattr(spool, "put", maybe)
    state, ids = RuleState(), []
    for at_s, word in enumerate(["yes", "no", "yes", "no"]):
        state, message = see(desk, rule, state, said(at_s, word))
        if message:
            told = desk.update(message.alert_id, description="Somebody.")
            assert told is not None
            ids += [message.id, told.id]
    desk.tend()
    assert (desk.num_held, desk.facts()["held"], woken) == (4, 4, [])
    assert desk.problem == "full."
    is_full[0] = False
    desk.tend()
    assert (desk.num_held, desk.problem) == (0, "")
    assert woken == [True]
    assert [one.id for one in reversed(spool.messages(9))] == ids
    assert desk.state(rule, "gate") == state


def test_tending_prunes_and_bounds(spool: Spool) -> None:
    now_s = [1000.0]
    retention = {"days": 1, "most_waiting": 1}
    desk = desk_of(spool, retention=retention, clock=lambda: now_s[0])
    rule = person()
    _, alert = see(desk, rule, RuleState(), said(5))
    assert alert is not None
    desk.update(alert.alert_id, description="A person.")
    now_s[0] += 86_400.0
    desk.tend()
    facts = desk.facts()
    assert facts["updates dropped"] == 1
    assert facts["waiting"] == {"all": 1}
    assert facts["evidence_bytes"] > 0  # of the alert that waits, though it is old
    spool.delivered("all", 1)
    desk.tend()
    assert desk.facts()["evidence_bytes"] == 0
