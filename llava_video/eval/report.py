"""Records → scores: in all and by group, beside what a guess reaches, with all that decided them.

A question without an answer counts as wrong: leaving it out would reward failing on what is hard.
The share of those answered stands beside it. Annotations that cannot be read have no right answer
and are counted as failures only. Knows no model.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from llava_video.config import to_mapping
from llava_video.eval.baselines import majority_share
from llava_video.eval.calibration import Reliability, reliability
from llava_video.eval.example import digest_of
from llava_video.eval.records import Record
from llava_video.eval.settings import EvalSettings
from llava_video.eval.statistics import Proportion, proportion


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The least, the middle and the greatest of a number."""

    least: float
    middle: float
    greatest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What decided a score.

    Attributes:
        run: hash of task, model, options and library version; equal runs asked alike.
        prompts: hash of every example's whole prompt, in the order of their ids.
        frames: frames of an example, as planned; None where nothing was answered.
        visual_tokens: likewise.
        models: names and revisions, "NAME @ REVISION".
        libraries: versions and commits of this library, "0.1.0 @ COMMIT".
    """

    run: tuple[str, ...]
    prompts: str
    frames: Spread | None
    visual_tokens: Spread | None
    models: tuple[str, ...]
    libraries: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureScore:
    """A share that answers add to, over all of a group: "objects named".

    Attributes:
        name: of what.
        share: all parts over all wholes; n counts what the wholes do, not answers.
        noise: the same with noise for frames; None where it was not asked.
    """

    name: str
    share: Proportion
    noise: Proportion | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupScore:
    """The score of one group of examples.

    Attributes:
        kind: kind of group, "type"; "all" of the whole.
        name: of the group.
        accuracy: right answers over examples, failed ones counted as wrong; None where no right
            answer is known.
        answered: right answers over answers; None where nothing was answered.
        exact: right without normalisation, over examples; None with choices.
        judged: answers a judge holds for right, over those it decided; None without.
        majority: what the commonest right answer would reach, of each type by itself.
        noise: accuracy with noise for frames; None where it was not asked.
        measures: what else was counted of the answers, nothing being left out for failing.
        num_failed: examples without an answer.
        num_unknown: examples whose right answer the benchmark keeps to itself; in no accuracy.
        facts: what decided it.
    """

    kind: str
    name: str
    accuracy: Proportion | None
    answered: float | None
    exact: float | None
    judged: Proportion | None
    majority: float | None
    noise: Proportion | None
    measures: tuple[MeasureScore, ...]
    num_failed: int
    num_unknown: int
    facts: Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an evaluation found.

    Attributes:
        task: its name.
        scores: of the whole, then of every group of every kind.
        calibration: of answers with a confidence and a known right answer; None without.
        failures: class of error → how many.
        warnings: what to know before believing the scores.
        records: all, for a closer look; not in the mapping.
    """

    task: str
    scores: tuple[GroupScore, ...]
    calibration: Reliability | None
    failures: Mapping[str, int]
    warnings: tuple[str, ...]
    records: tuple[Record, ...] = field(default=(), repr=False)

    @property
    def overall(self) -> GroupScore:
        """The score of the whole."""
        return self.scores[0]

    def to_mapping(self) -> dict[str, Any]:
        """Return everything but the records as plain values, for JSON."""
        values = to_mapping(self)
        del values["records"]
        return values


def report_of(task: str, records: Sequence[Record], settings: EvalSettings) -> Report:
    """Score records.

    Args:
        task: its name.
        records: of one run, each example once per view; those with noise are the baseline.
        settings: level of the intervals and bins of the reliability table.
    """
    shown = [record for record in records if record.view == "video"]
    noise = {record.id: record for record in records if record.view == "noise"}
    groups: dict[tuple[str, str], list[Record]] = {("all", ""): shown}
    kinds = dict.fromkeys(kind for record in shown for kind in record.groups)
    for kind in kinds:
        by_name: defaultdict[str, list[Record]] = defaultdict(list)
        for record in shown:
            if kind in record.groups:
                by_name[record.groups[kind]].append(record)
        groups |= {(kind, name): by_name[name] for name in sorted(by_name)}
    scores = tuple(
        _group_score(kind, name, members, noise, settings)
        for (kind, name), members in groups.items()
    )
    failures = Counter(record.failure.kind for record in shown if record.failure is not None)
    return Report(
        task=task,
        scores=scores,
        calibration=_calibration(shown, settings.num_bins),
        failures=dict(failures.most_common()),
        warnings=tuple(_warnings(shown, scores[0])),
        records=tuple(records),
    )


def _group_score(
    kind: str,
    name: str,
    members: Sequence[Record],
    noise: Mapping[str, Record],
    settings: EvalSettings,
) -> GroupScore:
    known = [record for record in members if record.answer is not None]
    answered = [record for record in known if record.failure is None]
    free = [record for record in known if not record.choices]
    decided = [r for r in members if r.judged is not None and r.judged.correct is not None]
    blind = [noise[record.id] for record in known if record.id in noise]
    return GroupScore(
        kind=kind,
        name=name,
        accuracy=_share(known, _is_right, settings.level),
        answered=_mean(map(_is_right, answered)),
        exact=_mean(record.exact is True for record in free),
        judged=_share(decided, _is_judged_right, settings.level),
        majority=_majority(known),
        noise=_share(blind, _is_right, settings.level),
        measures=tuple(_measures(members, blind, settings.level)),
        num_failed=sum(record.failure is not None for record in members),
        num_unknown=sum(r.answer is None and r.failure is None for r in members),
        facts=_facts(members),
    )


def _share(
    records: Sequence[Record], is_right: Callable[[Record], bool], level: float
) -> Proportion | None:
    if not records:
        return None
    clusters = [record.cluster for record in records]
    return proportion([is_right(record) for record in records], clusters, level)


def _measures(
    members: Sequence[Record], blind: Sequence[Record], level: float
) -> Iterator[MeasureScore]:
    names = dict.fromkeys(measure.name for record in members for measure in record.measures)
    for name in names:
        share = _measured(members, name, level)
        if share is not None:
            yield MeasureScore(name=name, share=share, noise=_measured(blind, name, level))


def _measured(records: Sequence[Record], name: str, level: float) -> Proportion | None:
    """Return one share over all records: as if each thing counted were an answer of its own."""
    outcomes: list[bool] = []
    clusters: list[str] = []
    for record in records:
        for measure in record.measures:
            if measure.name == name:
                outcomes += [idx < measure.part for idx in range(measure.whole)]
                clusters += [record.cluster] * measure.whole
    return proportion(outcomes, clusters, level) if outcomes else None


def _is_right(record: Record) -> bool:
    return record.correct is True


def _is_judged_right(record: Record) -> bool:
    return record.judged is not None and record.judged.correct is True


def _mean(values: Iterable[bool]) -> float | None:
    listed = list(values)
    return sum(listed) / len(listed) if listed else None


def _majority(records: Sequence[Record]) -> float | None:
    """Return the share of the commonest answers, one for each type of question."""
    by_type: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_type[next(iter(record.groups.values()), "")].append(record)
    right = sum(majority_share(members) * len(members) for members in by_type.values())
    return right / len(records) if records else None


def _facts(records: Sequence[Record]) -> Facts:
    asked = [record for record in records if record.failure is None]
    prompts = sorted((record.id, record.prompt_hash) for record in asked)
    return Facts(
        run=tuple(sorted({record.run for record in records})),
        prompts=digest_of(prompts),
        frames=_spread([record.num_frames for record in asked]),
        visual_tokens=_spread([record.visual_tokens for record in asked]),
        models=tuple(sorted({_at(record.model, record.revision) for record in records})),
        libraries=tuple(sorted({_at(record.library, record.commit) for record in records})),
    )


def _at(name: str, place: str | None) -> str:
    return name if place is None else f"{name} @ {place}"


def _spread(numbers: Sequence[int]) -> Spread | None:
    if not numbers:
        return None
    return Spread(least=min(numbers), middle=median(numbers), greatest=max(numbers))


def _calibration(records: Sequence[Record], num_bins: int) -> Reliability | None:
    told = [r for r in records if r.confidence is not None and r.correct is not None]
    if not told:
        return None
    confidences = [min(1.0, record.confidence or 0.0) for record in told]
    return reliability(confidences, [record.correct is True for record in told], num_bins)


def _warnings(records: Sequence[Record], overall: GroupScore) -> Iterable[str]:
    if overall.num_failed:
        failed = f"{overall.num_failed} of {len(records)} examples failed"
        yield f"{failed}; questions among them count as wrong."
    if overall.num_unknown:
        yield f"of {overall.num_unknown} examples the right answer is not known."
    cut = sum(record.finish_reason == "length" for record in records)
    if cut:
        yield f"{cut} answers were cut at their longest."
    if len(overall.facts.libraries) > 1:
        yield "the records are from several versions of this library."
    if overall.accuracy is not None and overall.accuracy.num_clusters < 30:
        yield (
            f"{overall.accuracy.num_clusters} videos are few for an interval that rests on how "
            "videos differ."
        )
