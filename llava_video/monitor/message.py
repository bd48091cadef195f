"""A decision, an update or an end → the message that sinks are given.

A message is one JSON object in one line. Its id never comes twice for two things, so whoever gets
one again knows it. Knows no sink.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from llava_video.monitor.rules import Decision
from llava_video.monitor.settings import Rule

MessageKind = Literal["alert", "update", "end"]
FileKind = Literal["snapshot", "sheet", "clip"]

VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A picture or clip on the disk.

    Attributes:
        name: in the folder of evidence.
        alert_id: whose it is.
        kind: "snapshot", "sheet" (frames with their times) or "clip".
        num_bytes: its size.
        made_at_s: wall clock, s since 1970.
        is_needed: whether a message that is not delivered everywhere speaks of it.
    """

    name: str
    alert_id: str
    kind: FileKind
    num_bytes: int
    made_at_s: float
    is_needed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One thing to be told.

    Attributes:
        id: its own.
        alert_id: of the alert it is about.
        kind: "alert" at once, "update" with what takes longer, "end".
        severity: of the rule.
        body: JSON, one line.
        seq: its place in the spool; 0 before it is there.
    """

    id: str
    alert_id: str
    kind: MessageKind
    severity: str
    body: str
    seq: int = 0

    @property
    def facts(self) -> dict[str, Any]:
        """The body's JSON."""
        return dict(json.loads(self.body))


def alert_message(
    rule: Rule, decision: Decision, files: Sequence[StoredFile], number: int
) -> Message:
    """Return what is told as soon as an alert is raised.

    Args:
        rule: whose it is.
        decision: that raised it.
        files: what was kept of it so far; none where the disk was full.
        number: of the camera's alerts by this rule, from 1.
    """
    facts = _facts(rule, decision) | {"number": number, "files": _files(files)}
    return _message(rule.severity, decision.alert_id, "alert", facts)


def end_message(rule: Rule, decision: Decision) -> Message:
    """Return what is told when an alert is over."""
    return _message(rule.severity, decision.alert_id, "end", _facts(rule, decision))


def update_message(
    alert: Message,
    *,
    description: str,
    files: Sequence[StoredFile],
    problem: str = "",
    warnings: Sequence[str] = (),
) -> Message:
    """Return what is told when an alert's description and evidence are there.

    Args:
        alert: the message that was told at once.
        description: what the model says; strangers' words may be in it.
        files: what was kept since.
        problem: why there is no description; "" where there is one.
        warnings: what the reader should know of the description.
    """
    told = alert.facts
    names = ("camera", "rule", "severity", "at", "at_s", "number")
    facts = {name: told[name] for name in names} | {"description": description}
    facts |= {"warnings": list(warnings), "files": _files(files)}
    if problem:
        facts["problem"] = problem
    return _message(alert.severity, alert.alert_id, "update", facts)


def wall_text(time_s: float) -> str:
    """Write a wall-clock time as ISO 8601 in UTC.

    >>> wall_text(1.5)
    '1970-01-01T00:00:01.500Z'
    """
    moment = datetime.datetime.fromtimestamp(time_s, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _facts(rule: Rule, decision: Decision) -> dict[str, Any]:
    facts = {
        "camera": decision.camera,
        "rule": rule.name,
        "severity": rule.severity,
        "at": wall_text(decision.at_s),
        "at_s": decision.at_s,
        "window_s": [decision.start_s, decision.at_s],
        "question": rule.question,
        "answer": decision.value,
        "confidence": decision.confidence,
        "hits": decision.hits,
        "needed": decision.needed,
        "why": str(decision.why),
        "warnings": list(decision.warnings),
    }
    if rule.condition.is_change:
        facts["before"] = decision.before
    if decision.reused_from_s is not None:
        facts["reused_from_s"] = decision.reused_from_s
    return facts


def _message(severity: str, alert_id: str, kind: MessageKind, facts: Mapping[str, Any]) -> Message:
    own_id = f"{alert_id}-{kind}"
    head = {"id": own_id, "alert_id": alert_id, "kind": kind, "version": VERSION}
    text = json.dumps({**head, **facts}, ensure_ascii=False)
    body = text.encode(errors="replace").decode()  # half a character could be stored by no spool
    return Message(id=own_id, alert_id=alert_id, kind=kind, severity=severity, body=body)


def _files(files: Sequence[StoredFile]) -> list[dict[str, Any]]:
    return [{"name": one.name, "kind": one.kind, "bytes": one.num_bytes} for one in files]
