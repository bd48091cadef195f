"""Messages say what happened, and their ids say which they are."""

import dataclasses

from monitor_cases import person, run, said

from llava_video.monitor.condition import Condition
from llava_video.monitor.message import (
    StoredFile,
    alert_message,
    end_message,
    update_message,
    wall_text,
)

PICTURE = StoredFile(name="p.jpg", alert_id="a", kind="snapshot", num_bytes=7, made_at_s=1.0)


def test_an_alert_says_what_when_and_why() -> None:
    rule = person(severity="critical", hits=2)
    _, (_, decision) = run(rule, [said(10), said(12, warnings=("careful",), reused_from_s=10.0)])
    message = alert_message(rule, decision, [PICTURE], 3)
    assert (message.id, message.alert_id) == (f"{decision.alert_id}-alert", decision.alert_id)
    assert (message.kind, message.severity) == ("alert", "critical")
    assert message.body.startswith('{"id": "')
    assert "\n" not in message.body
    facts = message.facts
    assert facts["at"] == "1970-01-01T00:00:12.000Z"
    assert facts["window_s"] == [10, 12]
    assert (facts["answer"], facts["confidence"], facts["hits"], facts["needed"]) == (
        "yes", 0.9, 2, 2,
    )  # fmt: skip
    assert (facts["why"], facts["warnings"], facts["reused_from_s"]) == ("raised", ["careful"], 10)
    assert facts["files"] == [{"name": "p.jpg", "kind": "snapshot", "bytes": 7}]
    assert facts["number"] == 3
    assert "before" not in facts


def test_a_change_says_what_was_before() -> None:
    rule = person(when=Condition(changed=True))
    _, decisions = run(rule, [said(1, "no"), said(2)])
    assert alert_message(rule, decisions[-1], [], 1).facts["before"] == "no"


def test_an_update_and_an_end_are_of_the_same_alert() -> None:
    rule = person()
    _, decisions = run(rule, [said(1), said(2, "no")])
    alert = alert_message(rule, decisions[0], [], 1)
    sheet = dataclasses.replace(PICTURE, kind="sheet")
    update = update_message(alert, description='A "person".', files=[sheet])
    assert (update.id, update.kind) == (f"{alert.alert_id}-update", "update")
    assert update.facts["description"] == 'A "person".'
    assert update.facts["files"][0]["kind"] == "sheet"
    assert {n: update.facts[n] for n in ("rule", "camera", "at", "number")} == {
        n: alert.facts[n] for n in ("rule", "camera", "at", "number")
    }
    assert "problem" not in update.facts
    failed = update_message(
        alert, description="", files=[], problem="no memory", warnings=["careful"]
    )
    assert failed.facts["warnings"] == ["careful"]
    assert failed.facts["problem"] == "no memory"
    end = end_message(rule, decisions[1])
    assert (end.id, end.facts["why"]) == (f"{alert.alert_id}-end", "ended")


def test_half_a_character_is_no_part_of_a_message() -> None:
    _, (decision,) = run(person(question="Is a \ud83d there?"), [said(1)])
    message = alert_message(person(question="Is a \ud83d there?"), decision, [], 1)
    assert message.facts["question"] == "Is a ? there?"
    assert message.body.encode()


def test_wall_clock_times_are_utc_with_milliseconds() -> None:
    assert wall_text(1_790_000_000.0) == "2026-09-21T14:13:20.000Z"
