"""Scores of a rehearsal → tables for people, and a line for each missed label and wrong alert."""

from collections.abc import Iterator, Mapping, Sequence

from llava_video.monitor.instructions import printable
from llava_video.monitor.labels import Label
from llava_video.monitor.rehearsal import Rehearsal
from llava_video.monitor.scoring import CurvePoint, Score, best_point, score_alerts


def score_table(scores: Mapping[str, Score]) -> str:
    """Return a table of precision, recall and delay by rule, the total last."""
    head = f"{'rule':24}{'precision':>10}{'recall':>8}{'found':>7}{'missed':>8}{'false':>7}"
    rows = [f"{head}{'repeats':>9}{'delay s':>9}{'most':>7}"]
    for rule in [*sorted(name for name in scores if name), ""]:
        one = scores[rule]
        rows.append(
            f"{printable(rule)[:23] or 'all':24}{_rate(one.precision):>10}{_rate(one.recall):>8}"
            f"{one.found:>7,}{one.missed:>8,}{one.false:>7,}{one.repeats:>9,}"
            f"{_seconds(one.delay_s):>9}{_seconds(one.most_delay_s):>7}"
        )
    return "\n".join(rows)


def curve_table(points: Sequence[CurvePoint]) -> str:
    """Return a table of a rule's scores over thresholds; the best one is marked."""
    best = best_point(points)
    rows = [f"{'confidence':>10}{'hits':>8}{'precision':>11}{'recall':>8}{'delay s':>9}"]
    rows += [
        f"{point.confidence:>10g}{f'{point.hits} of {point.of}':>8}"
        f"{_rate(point.score.precision):>11}{_rate(point.score.recall):>8}"
        f"{_seconds(point.score.delay_s):>9}{'  best' if point is best else ''}"
        for point in points
    ]
    return "\n".join(rows)


def faults_of(made: Rehearsal, labels: Sequence[Label], slack_s: float) -> Iterator[str]:
    """Yield a line for each label that was missed, and for each alert that no label is about.

    Args:
        made: the rehearsal.
        labels: on the recordings' clock.
        slack_s: as `score_alerts`.
    """
    alerts = made.alerts
    for label in labels:
        # A label is missed when the others are found no less without it.
        others = [one for one in labels if one is not label]
        with_it = score_alerts(alerts, labels, slack_s=slack_s)[""].found
        if score_alerts(alerts, others, slack_s=slack_s)[""].found == with_it:
            place = f"{label.camera}, " if label.camera else ""
            yield (
                f"missed  {place}{printable(label.rule)} {label.start_s:g}-{label.end_s:g} s: "
                f"{made.silence(label, slack_s)}"
            )
    raised = [decision for decision in made.decisions if decision.signal == "raised"]
    for alert, decision in zip(alerts, raised, strict=True):
        if score_alerts([alert], labels, slack_s=slack_s)[""].false:
            yield f"false   {alert.at_s:g} s: {printable(decision.words)}"


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
