"""A rule, its state and what was seen of one window → the next state, and a decision with its why.

A pure function: no clock, no file, no model. The state has a constant size and goes through JSON,
so a watch that was killed goes on where it was. Only typed answers count; words in a picture change
nothing but the warnings.

What counts as a hit: the answer meets the rule's condition and is sure enough. An alert is raised
by a hit that is the `hits`-th among the last `of` answers, unless one was raised less than
`cooldown_s` ago. It then holds until `until_hits` sure answers in a row meet `until`, or until
nothing was answered for `forget_s`: what comes after is another event. A change is settled when the
new answer was given `hits` times among the last `of` answers since it first came; it is raised and
over at once. Gated, dropped and failed windows are no answers: they change nothing. A clock that
goes back starts the cooldown anew.
"""

import datetime
import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from llava_video.config import from_mapping, to_mapping
from llava_video.monitor.answer_type import plain_text
from llava_video.monitor.json_field import is_missing, part_of
from llava_video.monitor.schedule import is_scheduled
from llava_video.monitor.settings import Rule

# A settled answer that is longer is remembered by its hash: it can be told from another, not shown.
_MOST_KEPT: Final = 256

SeenKind = Literal["answered", "gated", "dropped", "failed"]
Signal = Literal["", "raised", "ended"]


class Why(enum.StrEnum):
    """Why a window raised an alert, or did not."""

    ANSWERED_NO = "answered no"
    UNSURE = "not sure enough"
    WAITING = "waiting for hits"
    RAISED = "raised"
    COOLING = "cooling down"
    HOLDING = "holding"
    OUTSIDE = "outside its schedule"
    ENDED = "ended"
    GATED = "gated"
    REUSED = "reused"
    DROPPED = "dropped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What became of one window for one rule.

    Attributes:
        start_s: where the window begins, wall clock, s since 1970.
        at_s: where it ends.
        kind: "answered"; "gated" when nothing had changed and nothing was asked; "dropped" when the
            queue was full; "failed" when it was asked and there is no answer.
        value: of an answer, as `AnswerType.value_of` gives it.
        confidence: probability of the answer; None where there is none.
        reused_from_s: end of the earlier window whose answer this is; None for its own.
        reason: why there is no answer.
        warnings: what the reader should know, such as text that instructs.
    """

    start_s: float
    at_s: float
    kind: SeenKind = "answered"
    value: Any = None
    confidence: float | None = None
    reused_from_s: float | None = None
    reason: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleState:
    """All that a rule remembers of one camera.

    Attributes:
        recent: the last answers, oldest first, "1" for a hit; of a change, since it first came.
        raised: whether an alert holds.
        calm: answers in a row that met `until`.
        number: alerts raised so far.
        alert_id: of the last one; "" before the first.
        raised_at_s: when it was raised.
        answered_at_s: when the last answer came.
        settled: the last settled answer, as JSON; of a rule for changes.
        candidate: the answer that may be the next one.
        rule: digest of the rule's question and conditions, which it is the state of.
    """

    recent: str = ""
    raised: bool = False
    calm: int = 0
    number: int = 0
    alert_id: str = ""
    raised_at_s: float | None = None
    answered_at_s: float | None = None
    settled: str | None = None
    candidate: str | None = None
    rule: str = ""

    def to_json(self) -> str:
        """Return it as one line of JSON that `restored` reads back equal."""
        return json.dumps(to_mapping(self), ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a rule made of one window, and why.

    Attributes:
        rule: its name.
        camera: whose window it was.
        start_s: as in the observation.
        at_s: as in the observation.
        why: the reason.
        signal: "raised" or "ended" where it is to be told, else "".
        alert_id: of the alert that was raised, holds or ended; "" for none.
        hits: of the last answers, after this one.
        needed: hits that raise an alert.
        value: the answer.
        before: the settled answer that a raised change replaced.
        confidence: of the answer.
        reused_from_s: as in the observation.
        reason: more words, such as the error of a window that failed.
        warnings: as in the observation.
    """

    rule: str
    camera: str
    start_s: float
    at_s: float
    why: Why
    signal: Signal = ""
    alert_id: str = ""
    hits: int = 0
    needed: int = 1
    value: Any = None
    before: Any = None
    confidence: float | None = None
    reused_from_s: float | None = None
    reason: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """One sentence for people."""
        clock = datetime.datetime.fromtimestamp(self.at_s, datetime.UTC).strftime("%H:%M:%S")
        said = "" if self.value is None else f", answer {json.dumps(self.value)}"
        sure = "" if self.confidence is None else f" ({self.confidence:.0%})"
        hits = f", {self.hits} of {self.needed} hits" if self.why == Why.WAITING else ""
        again = "" if self.reused_from_s is None else ", an earlier answer"
        more = f": {self.reason}" if self.reason else ""
        return f"{clock} {self.camera}, {self.rule}: {self.why}{said}{sure}{hits}{again}{more}"


Step = tuple[RuleState, Decision]


def decide(rule: Rule, camera: str, state: RuleState, seen: Observation) -> Step:
    """Take one window into account.

    Args:
        rule: what is asked, and what raises an alert.
        camera: the window's.
        state: after the window before; `RuleState()` for the first.
        seen: what became of the window. Windows come in their order.
    """
    state = _at(_of(rule, state), seen.at_s)
    if not is_scheduled(rule.schedule, seen.at_s, rule.time_zone):
        if state.raised:
            return _fresh(state), _told(rule, camera, state, seen, Why.ENDED, signal="ended")
        return _fresh(state), _told(rule, camera, state, seen, Why.OUTSIDE)
    if seen.kind != "answered":
        why = {"gated": Why.GATED, "dropped": Why.DROPPED, "failed": Why.FAILED}[seen.kind]
        return state, _told(rule, camera, state, seen, why)
    silent_s = 0.0 if state.answered_at_s is None else seen.at_s - state.answered_at_s
    was_held = state.raised and silent_s > rule.forget_s
    if silent_s > rule.forget_s:
        state = replace(state, recent="", calm=0, candidate=None, raised=False)
    state = replace(state, answered_at_s=seen.at_s)
    decider = _change if rule.condition.is_change else _level
    state, told = decider(rule, camera, state, seen)
    if was_held and not told.signal:  # a new alert takes the place of the end that nobody saw
        told = replace(
            told, why=Why.ENDED, signal="ended", alert_id=state.alert_id,
            reason=f"no answer for {silent_s:.0f} s",
        )  # fmt: skip
    return state, told


def restored(rule: Rule, text: str) -> RuleState:
    """Read a state back.

    Of a rule that asks something else by now, only which alerts there were is left.

    Raises:
        ConfigError, ValueError: it is no state.
    """
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError(f"{type(values).__name__} instead of a state")
    return _of(rule, from_mapping(RuleState, values))


def alert_id(camera: str, rule: str, number: int, at_s: float) -> str:
    """Return the id of an alert: the same for the same one, whoever computes it, 32 hex digits."""
    facts = json.dumps([camera, rule, number, round(at_s * 1000)], ensure_ascii=False)
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def _level(rule: Rule, camera: str, state: RuleState, seen: Observation) -> Step:
    """Decide by what the answer is."""
    is_sure = _is_sure(rule, seen)
    is_hit = is_sure and rule.condition.holds(seen.value)
    state = replace(state, recent=f"{state.recent}{int(is_hit)}"[-rule.hits_of :])
    if state.raised:
        return _hold(rule, camera, state, seen, is_sure)
    if not is_hit:
        return state, _told(rule, camera, state, seen, _silent(is_sure, seen))
    if state.recent.count("1") < rule.hits:
        return state, _told(rule, camera, state, seen, Why.WAITING)
    if _is_cooling(rule, state, seen.at_s):
        return state, _told(rule, camera, state, seen, Why.COOLING)
    state = replace(_numbered(rule, camera, state, seen.at_s), raised=True, calm=0)
    return state, _told(rule, camera, state, seen, Why.RAISED, signal="raised")


def _hold(rule: Rule, camera: str, state: RuleState, seen: Observation, is_sure: bool) -> Step:
    """Decide whether an alert goes on."""
    if is_sure:
        is_over = (
            not rule.condition.holds(seen.value)
            if rule.until is None
            else rule.until.holds(seen.value)
        )
        state = replace(state, calm=state.calm + 1 if is_over else 0)
    if state.calm < rule.until_hits:
        return state, _told(rule, camera, state, seen, Why.HOLDING)
    told = _told(rule, camera, state, seen, Why.ENDED, signal="ended")
    return replace(state, raised=False, calm=0, recent=""), told


def _change(rule: Rule, camera: str, state: RuleState, seen: Observation) -> Step:
    """Decide by how the answer differs from the one that was settled before."""
    part = part_of(seen.value, rule.condition.field)
    is_sure = _is_sure(rule, seen)
    kept = _kept(part) if is_sure and not is_missing(part) else None
    if kept is None or kept == state.settled:
        state = replace(state, recent=f"{state.recent}0"[-rule.hits_of :])
        return state, _told(rule, camera, state, seen, _silent(is_sure, seen))
    recent = f"{state.recent}1" if kept == state.candidate else "1"
    state = replace(state, candidate=kept, recent=recent[-rule.hits_of :])
    if state.recent.count("1") < rule.hits:
        return state, _told(rule, camera, state, seen, Why.WAITING)
    before = None if state.settled is None else json.loads(state.settled)
    is_first = state.settled is None
    told_hits = state.recent.count("1")
    state = replace(state, settled=kept, candidate=None, recent="")
    is_meant = rule.condition.takes_change(before, part) and rule.condition.holds(seen.value)
    if is_first or not is_meant:
        reason = "the first answer, nothing to compare with" if is_first else "another change"
        told = _told(rule, camera, state, seen, Why.ANSWERED_NO)
        return state, replace(told, reason=reason)
    if _is_cooling(rule, state, seen.at_s):
        told = _told(rule, camera, state, seen, Why.COOLING)
        return state, replace(told, before=before)
    state = _numbered(rule, camera, state, seen.at_s)
    told = _told(rule, camera, state, seen, Why.RAISED, signal="raised")
    return state, replace(told, before=before, hits=told_hits, alert_id=state.alert_id)


def _told(
    rule: Rule,
    camera: str,
    state: RuleState,
    seen: Observation,
    why: Why,
    *,
    signal: Signal = "",
) -> Decision:
    return Decision(
        rule=rule.name,
        camera=camera,
        start_s=seen.start_s,
        at_s=seen.at_s,
        why=why,
        signal=signal,
        alert_id=state.alert_id if state.raised else "",
        hits=state.recent.count("1"),
        needed=rule.hits,
        value=seen.value,
        confidence=seen.confidence,
        reused_from_s=seen.reused_from_s,
        reason=seen.reason,
        warnings=seen.warnings,
    )


def _silent(is_sure: bool, seen: Observation) -> Why:
    if not is_sure:
        return Why.UNSURE
    return Why.ANSWERED_NO if seen.reused_from_s is None else Why.REUSED


def _is_sure(rule: Rule, seen: Observation) -> bool:
    if seen.confidence is None:  # an engine elsewhere may give none
        return rule.confidence is None
    return seen.confidence >= rule.least_confidence


def _is_cooling(rule: Rule, state: RuleState, at_s: float) -> bool:
    return state.raised_at_s is not None and at_s - state.raised_at_s < rule.cooldown_s


def _numbered(rule: Rule, camera: str, state: RuleState, at_s: float) -> RuleState:
    number = state.number + 1
    own_id = alert_id(camera, rule.name, number, at_s)
    return replace(state, number=number, raised_at_s=at_s, alert_id=own_id)


def _at(state: RuleState, at_s: float) -> RuleState:
    """Bring times that lie ahead back to now: the clock was set back."""
    if state.raised_at_s is not None and state.raised_at_s > at_s:
        state = replace(state, raised_at_s=at_s)
    if state.answered_at_s is not None and state.answered_at_s > at_s:
        state = replace(state, answered_at_s=at_s)
    return state


def _fresh(state: RuleState) -> RuleState:
    """Forget all but which alerts there were."""
    return RuleState(
        number=state.number,
        alert_id=state.alert_id,
        raised_at_s=state.raised_at_s,
        rule=state.rule,
    )


def _of(rule: Rule, state: RuleState) -> RuleState:
    digest = _digest(rule)
    if state.rule == digest:
        return state
    is_new = not state.rule
    return replace(state if is_new else _fresh(state), rule=digest)


def _digest(rule: Rule) -> str:
    asked = [rule.question, to_mapping(rule.answer), to_mapping(rule.condition)]
    facts = json.dumps(asked, sort_keys=True, default=str)
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def _kept(value: Any) -> str:
    text = json.dumps(_folded(value), sort_keys=True, ensure_ascii=False)
    if len(text) <= _MOST_KEPT:
        return text
    return json.dumps(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}")


def _folded(value: Any) -> Any:
    """Write what counts as the same answer the same way."""
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {str(name): _folded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_folded(inner) for inner in value]
    return value
