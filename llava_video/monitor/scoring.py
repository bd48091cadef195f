"""Alerts against labels → precision, recall and delay; and both over confidence thresholds.

An alert is right when a label of its rule and camera holds at its time, or ended no longer ago than
the slack: an alert comes at its window's end. In order of time each alert takes, of the labels that
it may be about and that no alert has taken, the one that ends first; that finds as many as can be
found. An alert whose labels are all taken is a repeat, which is neither right nor wrong. Pure
functions.

Worked example, slack 2 s: labels [10, 20) and [30, 40), alerts at 12, 15, 21, 50. 12 takes the
first, 15 and 21 are repeats of it, 50 is false: precision 1 / 2, recall 1 / 2, delay 2 s.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llava_video.monitor.labels import Label
from llava_video.monitor.rules import Observation, RuleState, decide
from llava_video.monitor.settings import Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert, as it is scored.

    Attributes:
        rule: whose.
        camera: where.
        at_s: when, on the clock of the labels, s.
    """

    rule: str
    camera: str
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How right alerts are.

    Attributes:
        found: labels that an alert told of.
        missed: labels that none told of.
        false: alerts without a label.
        repeats: alerts of labels that another had told of.
        delays_s: of each found label, from its start to its alert, s; never below 0.
    """

    found: int = 0
    missed: int = 0
    false: int = 0
    repeats: int = 0
    delays_s: tuple[float, ...] = ()

    @property
    def precision(self) -> float | None:
        """Right alerts of those that are right or false; None without any."""
        told = self.found + self.false
        return self.found / told if told else None

    @property
    def recall(self) -> float | None:
        """Found labels of all; None without labels."""
        labels = self.found + self.missed
        return self.found / labels if labels else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall: 2 found / (2 found + false + missed)."""
        total = 2 * self.found + self.false + self.missed
        return 2 * self.found / total if total else None

    @property
    def delay_s(self) -> float | None:
        """Median delay, s; None where nothing was found."""
        return statistics.median(self.delays_s) if self.delays_s else None

    @property
    def most_delay_s(self) -> float | None:
        """Longest delay, s; None where nothing was found."""
        return max(self.delays_s, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """A score at one threshold.

    Attributes:
        confidence: least probability of an answer that counted.
        hits: answers needed.
        of: among so many.
        score: what came of it.
    """

    confidence: float
    hits: int
    of: int
    score: Score


def score_alerts(
    alerts: Sequence[Alert], labels: Sequence[Label], *, slack_s: float = 0.0
) -> dict[str, Score]:
    """Score alerts, by the rule's name and in all ("").

    Args:
        alerts: in any order.
        labels: in any order; of rules without alerts too.
        slack_s: how long after a label's end an alert may come, s.
    """
    rules = sorted({one.rule for one in alerts} | {one.rule for one in labels})
    scores = {
        rule: _score(
            [one for one in alerts if one.rule == rule],
            [one for one in labels if one.rule == rule],
            slack_s,
        )
        for rule in rules
    }
    return {"": total(list(scores.values())), **scores}


def total(scores: Sequence[Score]) -> Score:
    """Return the sum of scores."""
    return Score(
        found=sum(one.found for one in scores),
        missed=sum(one.missed for one in scores),
        false=sum(one.false for one in scores),
        repeats=sum(one.repeats for one in scores),
        delays_s=tuple(delay_s for one in scores for delay_s in one.delays_s),
    )


def alerts_of(rule: Rule, seen: Mapping[str, Sequence[Observation]]) -> list[Alert]:
    """Return the alerts that a rule raises over what was seen, by camera, from a fresh state."""
    alerts = []
    for camera, observations in seen.items():
        state = RuleState()
        for observation in observations:
            state, decision = decide(rule, camera, state, observation)
            if decision.signal == "raised":
                alerts.append(Alert(rule=rule.name, camera=camera, at_s=decision.at_s))
    return alerts


def threshold_curve(
    rule: Rule,
    seen: Mapping[str, Sequence[Observation]],
    labels: Sequence[Label],
    thresholds: Sequence[float],
    *,
    needed: Sequence[tuple[int, int]] = ((1, 1),),
    slack_s: float = 0.0,
) -> list[CurvePoint]:
    """Score one rule at many thresholds, from answers that were asked once.

    Args:
        rule: whose question was asked; its answers have a confidence.
        seen: its observations by camera, in order, on the clock of the labels.
        labels: of this rule.
        thresholds: least probabilities to try.
        needed: hits and among how many, to try.
        slack_s: as `score_alerts`.

    Raises:
        ConfigError: a threshold is no probability, or hits that can never be.
    """
    points = []
    for hits, of in needed:
        for confidence in thresholds:
            tried = replace(rule, confidence=confidence, hits=hits, of=of)
            score = score_alerts(alerts_of(tried, seen), labels, slack_s=slack_s)[""]
            points.append(CurvePoint(confidence=confidence, hits=hits, of=of, score=score))
    return points


def best_point(points: Sequence[CurvePoint]) -> CurvePoint | None:
    """Return the point of the best F1; of equals the more precise, then the lower threshold."""

    def rank(point: CurvePoint) -> tuple[float, float, float]:
        score = point.score
        return (_or_none(score.f1), _or_none(score.precision), -point.confidence)

    return max(points, key=rank, default=None)


def _score(alerts: Sequence[Alert], labels: Sequence[Label], slack_s: float) -> Score:
    taken: dict[int, float] = {}
    num_false = num_repeats = 0
    for alert in sorted(alerts, key=lambda one: one.at_s):
        about = [
            idx
            for idx, label in enumerate(labels)
            if label.camera in ("", alert.camera)
            and label.start_s <= alert.at_s <= label.end_s + slack_s
        ]
        free = [idx for idx in about if idx not in taken]
        if free:
            first = min(free, key=lambda idx: (labels[idx].end_s, labels[idx].start_s))
            taken[first] = alert.at_s - labels[first].start_s
        elif about:
            num_repeats += 1
        else:
            num_false += 1
    return Score(
        found=len(taken),
        missed=len(labels) - len(taken),
        false=num_false,
        repeats=num_repeats,
        delays_s=tuple(taken.values()),
    )


def _or_none(value: float | None) -> float:
    return -math.inf if value is None else value


# Thresholds of a curve, finer where answers are surer.
THRESHOLDS: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995)
