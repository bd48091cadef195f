"""A window of a camera → what each of its rules decides, and the alerts that follow.

Answers what is due in one pass of the model, uses earlier answers of a picture that did not change,
and keeps the rules' states. Windows of a camera come in their order, from one thread. The same for
a watch and for a rehearsal, which has no desk. Knows no queue and no stream.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from llava_video.errors import LlavaVideoError
from llava_video.monitor.alerts import AlertDesk
from llava_video.monitor.feed import WindowJob, stacked
from llava_video.monitor.instructions import printable
from llava_video.monitor.message import Message
from llava_video.monitor.questions import AskWindow, WindowAnswers, WindowFrames, reused
from llava_video.monitor.reuse import Answered, Reuse
from llava_video.monitor.reuse import decide as decide_reuse
from llava_video.monitor.rules import Decision, Observation, RuleState, decide
from llava_video.monitor.scene_settings import ReuseSettings
from llava_video.monitor.schedule import is_scheduled
from llava_video.monitor.settings import Rule, WatchSettings
from llava_video.monitor.trace import WhyTrace
from llava_video.video.evidence import is_of_sameness

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What became of one window.

    Attributes:
        camera: whose.
        window_idx: its number.
        at_s: where it ends, wall clock, s since 1970.
        kind: "asked" when the model was, "reused" when earlier answers stood for all of it, "idle"
            when no rule was due, "failed" when no question that was due had an answer, "dropped".
        seen: what was observed, by rule.
        decisions: one for each rule of the camera.
        told: messages of alerts that were raised or ended.
        num_asked: questions that were asked.
        model_s: what the model took, s.
        reused_tokens: prompt tokens that were not computed again.
    """

    camera: str
    window_idx: int
    at_s: float
    kind: str
    seen: Mapping[str, Observation] = field(repr=False)
    decisions: tuple[Decision, ...] = field(repr=False)
    told: tuple[Message, ...] = field(default=(), repr=False)
    num_asked: int = 0
    model_s: float = 0.0
    reused_tokens: int = 0

    @property
    def failures(self) -> tuple[str, ...]:
        """Why questions have no answer, each reason once, in one line without control characters.

        There may be some although others were answered.
        """
        reasons = (printable(one.reason) for one in self.seen.values() if one.kind == "failed")
        return tuple(dict.fromkeys(reasons))


class Judge:
    """Judges windows.

    Args:
        settings: cameras and their rules.
        ask: answers the questions of a window; see `questions.ask_window`.
        desk: takes decisions; None raises alerts for nobody, as in a rehearsal.
        trace: a line for every window and rule; None for none.
        clock: measures the model, s.
    """

    def __init__(
        self,
        settings: WatchSettings,
        ask: AskWindow,
        *,
        desk: AlertDesk | None = None,
        trace: WhyTrace | None = None,
        clock: Callable[[], float],
    ) -> None:
        self._settings, self._ask = settings, ask
        self._desk, self._trace, self._clock = desk, trace, clock
        self._cameras = {camera.name: camera for camera in settings.cameras}
        self._rules = {name: settings.rules_of(name) for name in self._cameras}
        self._states: dict[tuple[str, str], RuleState] = {}
        self._kept: dict[tuple[str, str], tuple[Answered, Observation]] = {}
        for camera, rules in self._rules.items():
            for rule in rules:
                state = desk.state(rule, camera) if desk else RuleState()
                self._states[camera, rule.name] = state

    def judge(self, job: WindowJob) -> Judged:
        """Judge a window: ask what is due, decide every rule, tell what is to be told."""
        rules = self._rules[job.camera]
        seen: dict[str, Observation] = {}
        due: list[Rule] = []
        is_gated = True
        for rule in rules:
            found = self._without_asking(rule, job)
            if isinstance(found, Reuse):
                due.append(rule)
                is_gated = is_gated and _is_of_a_change(found, rule)
            else:
                seen[rule.name] = found
        answers, model_s = self._asked(job, due, is_gated=is_gated)
        for rule in due:
            observed = answers.observations[rule.name]
            seen[rule.name] = observed
            self._keep(rule, job, observed)
        return self._decided(
            job, seen, kind=_kind(seen, due), num_asked=answers.num_asked,
            model_s=model_s, reused_tokens=answers.reused_tokens,
        )  # fmt: skip

    def drop(self, job: WindowJob, reason: str) -> Judged:
        """Note that a window was not looked at; its pictures may be gone."""
        dropped = Observation(start_s=job.start_s, at_s=job.at_s, kind="dropped", reason=reason)
        seen = {rule.name: dropped for rule in self._rules[job.camera]}
        return self._decided(job, seen, kind="dropped")

    def _without_asking(self, rule: Rule, job: WindowJob) -> Observation | Reuse:
        """Return what is known of a window without the model, or why it has to be asked."""
        if not is_scheduled(rule.schedule, job.at_s, rule.time_zone):
            return Observation(start_s=job.start_s, at_s=job.at_s, kind="gated")
        kept = self._kept.get((job.camera, rule.name))
        camera = self._cameras[job.camera]
        found = decide_reuse(
            kept[0] if kept else None,
            job.contents,
            rule.question,
            job.at_s,
            ReuseSettings(is_on=camera.reuse, max_age_s=rule.refresh_s),
        )
        if kept is None or found.reused_from is None:
            return found
        return reused({rule.name: kept[1]}, job.start_s, job.at_s)[rule.name]

    def _asked(
        self, job: WindowJob, due: list[Rule], *, is_gated: bool
    ) -> tuple[WindowAnswers, float]:
        if not due:
            return WindowAnswers(observations={}, num_asked=0, reused_tokens=0, seconds={}), 0.0
        started_s = self._clock()
        try:
            answers = self._ask(frames_of(job, is_gated=is_gated), due)
            if is_gated:
                answers = _without_sameness(answers)
        except Exception as error:  # noqa: BLE001 - one bad window must not end a watch
            if isinstance(error, LlavaVideoError):
                reason = str(error)
            else:
                reason = type(error).__name__
                _log.error("window %d of %s", job.window_idx, job.camera, exc_info=error)
            failed = Observation(start_s=job.start_s, at_s=job.at_s, kind="failed", reason=reason)
            answers = WindowAnswers(
                observations={rule.name: failed for rule in due}, num_asked=0, reused_tokens=0,
                seconds={},
            )  # fmt: skip
        return answers, self._clock() - started_s

    def _keep(self, rule: Rule, job: WindowJob, observed: Observation) -> None:
        """Keep an answer for windows that show the same; a failure is asked for again."""
        key = job.camera, rule.name
        if observed.kind != "answered":
            self._kept.pop(key, None)
            return
        answered = Answered(
            window_idx=job.window_idx,
            contents=job.contents,
            asked=rule.question,
            at_s=observed.at_s,
        )
        self._kept[key] = answered, observed

    def _decided(
        self,
        job: WindowJob,
        seen: Mapping[str, Observation],
        *,
        kind: str,
        num_asked: int = 0,
        model_s: float = 0.0,
        reused_tokens: int = 0,
    ) -> Judged:
        decisions, told = [], []
        for rule in self._rules[job.camera]:
            key = job.camera, rule.name
            state, decision = decide(rule, job.camera, self._states[key], seen[rule.name])
            self._states[key] = state
            decisions.append(decision)
            if self._desk is not None:
                snapshot = np.asarray(job.last.picture)
                message = self._desk.take(rule, state, decision, snapshot)
                told += [message] if message else []
            if self._trace is not None:
                more = {"contents": len(job.contents), "let_go": job.num_let_go}
                kept = {name: value for name, value in more.items() if value > (name == "contents")}
                self._trace.decided(decision, job.window_idx, **kept)
        return Judged(
            camera=job.camera,
            window_idx=job.window_idx,
            at_s=job.at_s,
            kind=kind,
            seen=seen,
            decisions=tuple(decisions),
            told=tuple(told),
            num_asked=num_asked,
            model_s=model_s,
            reused_tokens=reused_tokens,
        )


def frames_of(job: WindowJob, *, is_gated: bool = False) -> WindowFrames:
    """Return a job's window as questions are asked of it.

    Args:
        job: the window; it was not dropped.
        is_gated: whether a frame that shows nothing new to the gate is shown as the earlier one,
            which the vision tower has seen; otherwise all are shown as they came.
    """
    return WindowFrames(
        frames=stacked(job.pictures if is_gated else job.frames),
        times_s=job.times_s,
        start_s=job.start_s,
        end_s=job.at_s,
    )


def _is_of_a_change(found: Reuse, rule: Rule) -> bool:
    """Say whether a window is asked about for a change alone, and an answer is fresh beside it.

    Then equal pixels spare the tower. Where the answer is missing, too old or never used again, the
    model has to see what lies under the gate's threshold, or nobody ever does.
    """
    return found.reason == "changed" and 0 <= found.age_s < rule.refresh_s


def _without_sameness(answers: WindowAnswers) -> WindowAnswers:
    """Leave out the warning that all frames show the same picture: the gate made them so."""
    seen = {
        name: replace(one, warnings=tuple(w for w in one.warnings if not is_of_sameness(w)))
        for name, one in answers.observations.items()
    }
    return replace(answers, observations=seen)


def _kind(seen: Mapping[str, Observation], due: list[Rule]) -> str:
    if due:
        # Questions fail one by one where a server is down: that they were asked says nothing.
        return "failed" if all(seen[rule.name].kind == "failed" for rule in due) else "asked"
    return "reused" if any(one.kind == "answered" for one in seen.values()) else "idle"
