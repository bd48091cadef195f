"""A report → the lines a person reads. Knows no terminal."""

from collections.abc import Iterator, Sequence

from llava_video.eval.report import Facts, GroupScore, Report, Spread
from llava_video.eval.statistics import Proportion

_NONE = "-"


def report_lines(report: Report) -> Iterator[str]:
    """Yield a table of the scores, what decided them, and the reliability of confidences."""
    yield from _table(report)
    yield ""
    yield from _notes(report)
    if any(score.measures for score in report.scores):
        yield ""
        yield from _measures(report)
    if report.calibration is not None:
        yield ""
        yield from _reliability(report)


def _table(report: Report) -> Iterator[str]:
    level = next((s.accuracy.level for s in report.scores if s.accuracy is not None), 0.95)
    heads = ["", "n", "videos", "accuracy", f"{level:.0%} interval", "majority"]
    has_noise = any(score.noise for score in report.scores)
    has_free = any(score.exact is not None for score in report.scores)
    has_judge = any(score.judged for score in report.scores)
    has_failed = any(score.num_failed for score in report.scores)
    shown = {"noise": has_noise, "exact": has_free, "judged": has_judge, "failed": has_failed}
    extras = [name for name, is_shown in shown.items() if is_shown]
    rows = [[*heads, *extras]]
    for score in report.scores:
        name = report.task if score.kind == "all" else f"  {score.kind}: {score.name}"
        rows.append([name, *_cells(score), *(_extra(score, extra) for extra in extras)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield _line(row, widths)


def _cells(score: GroupScore) -> list[str]:
    found = score.accuracy
    majority = _percent(score.majority)
    if found is None:
        return ["0", "0", _NONE, _NONE, majority]
    interval = f"{100 * found.low:.1f} to {100 * found.high:.1f}"
    counts = [f"{found.num_examples:,}", f"{found.num_clusters:,}"]
    return [*counts, _percent(found.value), interval, majority]


def _extra(score: GroupScore, name: str) -> str:
    if name == "failed":
        return f"{score.num_failed:,}"
    if name == "exact":
        return _percent(score.exact)
    return _share(score.noise if name == "noise" else score.judged)


def _share(found: Proportion | None) -> str:
    return _percent(None if found is None else found.value)


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{100 * share:.1f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    columns = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return "  ".join(columns).rstrip()


def _notes(report: Report) -> Iterator[str]:
    facts = report.overall.facts
    yield f"model     {', '.join(facts.models)}"
    yield f"library   {', '.join(facts.libraries)}"
    yield f"shown     {_shown(facts)}"
    yield f"prompts   {facts.prompts}, run {', '.join(facts.run)}"
    yield "interval  Wilson's, at the effective number of examples, clustered by video"
    yield "majority  what always saying the commonest right answer of each type would reach"
    if any(score.noise for score in report.scores):
        yield "noise     the same questions with noise in place of every frame"
    if report.failures:
        listed = ", ".join(f"{kind} {count:,}" for kind, count in report.failures.items())
        yield f"failed    {listed}; of those answered {_percent(report.overall.answered)} are right"


def _shown(facts: Facts) -> str:
    if facts.frames is None or facts.visual_tokens is None:
        return "nothing"
    return f"{_range(facts.frames)} frames, {_range(facts.visual_tokens)} visual tokens each"


def _range(spread: Spread) -> str:
    if spread.least == spread.greatest:
        return f"{spread.least:,}"
    return f"{spread.least:,} to {spread.greatest:,} (middle {spread.middle:,g})"


def _measures(report: Report) -> Iterator[str]:
    """Yield a line for every share that answers add to, of the whole and of every group."""
    rows = [["counted", "n", "videos", "share", "interval", "noise"]]
    for score in report.scores:
        name = report.task if score.kind == "all" else f"  {score.kind}: {score.name}"
        for one in score.measures:
            found = one.share
            interval = f"{100 * found.low:.1f} to {100 * found.high:.1f}"
            counts = [f"{found.num_examples:,}", f"{found.num_clusters:,}"]
            shares = [_percent(found.value), interval, _share(one.noise)]
            rows.append([f"{name}, {one.name}", *counts, *shares])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield _line(row, widths)


def _reliability(report: Report) -> Iterator[str]:
    found = report.calibration
    if found is None:
        return
    yield f"confidence      n    said   right    (calibration error {100 * found.error:.1f})"
    for one in found.bins:
        if one.num_examples:
            said, right = _percent(one.said), _percent(one.right)
            span = f"{one.low:.2f} to {one.high:.2f}"
            yield f"{span}  {one.num_examples:>5,}  {said:>6}  {right:>6}"
