"""A model and examples → records, one of every example, whatever happens to the others.

Examples are asked several at once, in their order; of one video the first goes ahead. One that
fails is a record like any other; one whose error is not of this library's kinds ends the batch it
is in, which is then begun again behind it. Knows no benchmark.
"""

import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack, cast

import llava_video
from llava_video.api import LlavaVideo
from llava_video.asking import ask_each
from llava_video.errors import ConfigError, LlavaVideoError
from llava_video.eval.baselines import blinded
from llava_video.eval.example import Example, digest_of
from llava_video.eval.judges import Judge
from llava_video.eval.provenance import commit_of_library, revision_of, run_digest
from llava_video.eval.records import Failure, Judged, Record, RecordFile, Shown, View
from llava_video.eval.report import Report, report_of
from llava_video.eval.scoring import score
from llava_video.eval.settings import EvalSettings
from llava_video.options import Options, settings_of
from llava_video.values import Description, Plan

# Of free answers, where no option says so: benchmarks ask for a word or a phrase.
SHORT_TOKENS = 64

_LOG = logging.getLogger(__name__)

OnDone = Callable[[int, int], None]


def evaluate(
    model: LlavaVideo,
    task: str,
    examples: Sequence[Example],
    *,
    settings: EvalSettings | None = None,
    records: str | Path | None = None,
    judge: Judge | None = None,
    on_done: OnDone | None = None,
    **options: Unpack[Options],
) -> Report:
    """Ask a model everything and score the answers.

    Args:
        model: answers.
        task: name of the task, for the records.
        examples: what is asked; their ids differ.
        settings: None for the defaults.
        records: file of records; what stands in it under the same run is not asked again. None
            keeps them in memory.
        judge: of free answers; None for none.
        on_done: called with (examples done, examples in all).
        **options: of every question, but `response_format`, which is the examples' own.

    Raises:
        ConfigError: no examples, two with one id, an option that is not to be had, or a file that
            holds no records. Errors of single examples are in their records.
        TypeError: an option is unknown.
    """
    settings = settings or EvalSettings()
    _check(examples, options)
    asked = examples[: settings.limit]
    asking: dict[str, Any] = {**options}
    run = run_digest(model, task, {"max_new_tokens": SHORT_TOKENS, **asking})
    seed = settings.noise_seed
    views: dict[str, tuple[View, LlavaVideo]] = {run: ("video", model)}
    if settings.noise:
        views[digest_of([run, "noise", seed])] = ("noise", blinded(model, seed))
    longest = _longest_prompts(model, examples)
    num_all, num_done = len(asked) * len(views), 0
    found: list[Record] = []
    with RecordFile(None if records is None else Path(records)) as file:
        for own_run, (view, seen_by) in views.items():
            own_judge = judge if view == "video" else None
            asker = _Asker(seen_by, own_run, view, asking, own_judge, longest)
            for record in _all(asker, asked, file, retry_failed=settings.retry_failed):
                found.append(record)
                num_done += 1
                if on_done:
                    on_done(num_done, num_all)
    return report_of(task, found, settings)


def _check(examples: Sequence[Example], options: Options) -> None:
    if not examples:
        raise ConfigError("there are no examples.", "name a folder that holds some.")
    if "response_format" in options:
        raise ConfigError(
            "response_format is each example's own.", "leave it out: choices are the example's."
        )
    settings_of(options)  # a mistyped option is told here, not once per example
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise ConfigError(f"two examples are called {example.id!r}.", "give each its own id.")
        seen.add(example.id)


def _longest_prompts(model: LlavaVideo, examples: Sequence[Example]) -> dict[str, str]:
    """Return the longest prompt about each video."""
    prompts: defaultdict[str, list[str]] = defaultdict(list)
    for example in examples:
        prompts[example.cluster].append(example.prompt)
    count = model.spec.tokenizer.num_text_tokens
    return {cluster: max(texts, key=count) for cluster, texts in prompts.items()}


def _all(
    asker: "_Asker", examples: Sequence[Example], file: RecordFile, *, retry_failed: bool
) -> Iterator[Record]:
    """Yield a record of every example, in order; only those that the file lacks are asked."""

    def known(example: Example) -> Record | None:
        record = file.records.get((asker.run, asker.view, example.id, example.digest))
        return None if record is not None and record.failure and retry_failed else record

    missing = [example for example in examples if known(example) is None]
    answers = asker.answers(missing)
    waiting = {example.id for example in missing}
    for example in examples:
        if example.id not in waiting:
            yield file.records[asker.run, asker.view, example.id, example.digest]
            continue
        record = next(answers)
        file.add(record)
        yield record


class _Asker:
    """Asks one model under one set of options.

    Args:
        model: answers.
        run: hash of the run.
        view: what the model is shown.
        options: of every question.
        judge: of free answers, or None.
        longest: video → the longest question about it, asked now or before: what frames are planned
            for does not depend on where a run was stopped.
    """

    def __init__(
        self,
        model: LlavaVideo,
        run: str,
        view: View,
        options: Mapping[str, Any],
        judge: Judge | None,
        longest: Mapping[str, str],
    ) -> None:
        self.model, self.run, self.view = model, run, view
        self._options, self._judge, self._longest = options, judge, longest

    def answers(self, examples: Sequence[Example]) -> Iterator[Record]:
        """Yield a record of every example, in their order."""
        given = self._given([example for example in examples if example.trouble is None])
        for example in examples:
            yield self._record(example, example.trouble or next(given))

    def _given(self, examples: Sequence[Example]) -> Iterator[Description | Exception]:
        """Yield what becomes of every example: an answer, or the error in its place.

        Neighbours about one video share one look at it; the others are asked several at once.
        """
        singles: list[Example] = []
        for _, group in itertools.groupby(examples, lambda example: example.footage):
            members = list(group)
            if len(members) == 1 and not _is_heavy(members[0]):
                singles += members
                continue
            yield from self._restarted(self._together, singles)
            singles = []
            yield from self._restarted(self._of_one_video, members)
        yield from self._restarted(self._together, singles)

    def _restarted(
        self,
        ask: Callable[[Sequence[Example]], Iterator[Description | Exception]],
        examples: Sequence[Example],
    ) -> Iterator[Description | Exception]:
        """Ask several in one go, and where that breaks, begin again behind the one waited for."""
        start = 0
        while start < len(examples):
            try:
                for answer in ask(examples[start:]):
                    start += 1
                    yield answer
            except Exception as error:
                # It came while this example was waited for, and may be of one drawn early: this one
                # is asked by itself, and the culprit when it is its turn.
                if start == len(examples):
                    raise
                _LOG.debug("a batch ended: %r", error)
                start += 1
                yield self._alone(examples[start - 1])

    def _together(self, examples: Sequence[Example]) -> Iterator[Description | Exception]:
        """Ask about several videos at once."""
        return self.model.batch(map(self._request, examples), on_error="return")

    def _of_one_video(self, examples: Sequence[Example]) -> Iterator[Description | Exception]:
        """Ask everything about one video: opened, decoded, encoded and prefilled once."""
        footage = examples[0].footage
        return ask_each(
            self.model.spec,
            self.model.engine,
            None if footage is None else footage.load(),
            [(example.prompt, self._answer_options(example)) for example in examples],
            options=cast("Options", self._options),
            longest=self._longest.get(examples[0].cluster, ""),
            on_event=self.model.on_event,
        )

    def _alone(self, example: Example) -> Description | Exception:
        try:
            request = self._request(example)
            return self.model.describe(request.pop("video"), request.pop("prompt"), **request)
        except Exception as error:  # noqa: BLE001 - it goes into the record
            return error

    def _request(self, example: Example) -> dict[str, Any]:
        visual = None if example.footage is None else example.footage.load()
        own = self._answer_options(example)
        return {"video": visual, "prompt": example.prompt, **self._options, **own}

    def _answer_options(self, example: Example) -> Options:
        """Return the options of one example's answer."""
        own: Options = {}
        if example.choices:
            own["response_format"] = list(example.choices)
        if "max_new_tokens" not in self._options:
            own["max_new_tokens"] = example.max_new_tokens or SHORT_TOKENS
        return own

    def _record(self, example: Example, answer: Description | Exception) -> Record:
        record = Record(
            id=example.id,
            cluster=example.cluster,
            view=self.view,
            run=self.run,
            example=example.digest,
            groups=dict(example.groups),
            footage="" if example.footage is None else example.footage.name,
            prompt=example.prompt,
            choices=example.choices,
            answer=example.answer,
            tolerance=example.tolerance,
            model=self.model.spec.name,
            revision=revision_of(self.model),
            library=llava_video.__version__,
            commit=commit_of_library(),
        )
        measure = example.measure or (lambda _: ())
        if isinstance(answer, Exception):
            return replace(record, failure=Failure.of(answer), measures=measure(""))
        given = answer.text if answer.parsed is None else str(answer.parsed)
        scored = score(example, given)
        return replace(
            record,
            given=given,
            correct=scored.correct,
            exact=scored.exact,
            confidence=answer.confidence,
            judged=self._judged(example, given),
            measures=measure(given),
            prompt_hash=digest_of(answer.plan.prompt),
            shown=_shown(answer.plan),
            text_tokens=answer.usage.text_tokens,
            new_tokens=answer.usage.new_tokens,
            position_scale=answer.plan.position_scale,
            finish_reason=answer.finish_reason,
            warnings=answer.warnings,
            seconds=answer.timings.get("total", 0.0),
        )

    def _judged(self, example: Example, given: str) -> Judged | None:
        if self._judge is None or example.choices or example.footage is None:
            return None
        try:
            return self._judge(example, example.footage.load(), given)
        except LlavaVideoError as error:
            return Judged(correct=None, reasons=f"{type(error).__name__}: {error.message}")


def _is_heavy(example: Example) -> bool:
    """Say whether an example holds all its frames while it waits; a batch draws dozens ahead."""
    return example.footage is not None and example.footage.frame_rate_hz is not None


def _shown(plan: Plan) -> tuple[Shown, ...]:
    return tuple(
        Shown(
            kind=visual.kind,
            num_frames=visual.num_frames,
            num_tokens=visual.num_tokens,
            height_px=visual.height_px,
            width_px=visual.width_px,
            first_s=visual.times_s[0],
            last_s=visual.times_s[-1],
        )
        for visual in plan.visuals
    )
