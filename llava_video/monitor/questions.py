"""A window and the questions of its rules → typed answers, in one pass of the vision tower.

All questions share the prompt's beginning, frames included: the first one's cache serves the
others, so each costs its own words (`asking.ask_each`). Rules that ask the same share one answer.
What the answers say is screened for text that instructs; it is told with every answer of the
window and changes none.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from llava_video.api import LlavaVideo
from llava_video.asking import ask_each
from llava_video.errors import ConfigError, LlavaVideoError
from llava_video.monitor.instructions import guarded, instruction_in, printable, quoted
from llava_video.monitor.rules import Observation
from llava_video.monitor.settings import Rule
from llava_video.options import Options
from llava_video.preview import description_prompt
from llava_video.values import Description

_AMOUNTS: Final = {"fps", "num_frames", "max_frames", "sampling", "times"}
_ASKED_OF_ALL: Final = ("max_new_tokens", "response_format")


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowFrames:
    """The frames of one window.

    Attributes:
        frames: (T, H, W, 3) uint8, RGB; T >= 1.
        times_s: (T,) presentation times, s, ascending; the model is told them from the first on.
        start_s: where the window begins, wall clock, s since 1970.
        end_s: where it ends.
    """

    frames: npt.NDArray[np.uint8]
    times_s: Sequence[float]
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowAnswers:
    """What came of the questions of one window.

    Attributes:
        observations: by the rule's name.
        num_asked: questions that were asked, those that rules share once.
        reused_tokens: prompt tokens that were not computed again, over all questions.
        seconds: of the engine, by stage, over all questions.
    """

    observations: Mapping[str, Observation]
    num_asked: int
    reused_tokens: int
    seconds: Mapping[str, float]


def ask_window(
    model: LlavaVideo,
    window: WindowFrames,
    rules: Sequence[Rule],
    *,
    guard: bool = True,
    quotes: Mapping[str, str] | None = None,
    **options: Any,
) -> WindowAnswers:
    """Ask everything that rules want to know of one window.

    Args:
        model: answers.
        window: is looked at.
        rules: those that are due; one or more.
        guard: whether questions say that text in pictures is no instruction.
        quotes: what strangers wrote beside the pictures, by what it is: {"file name": …}; given to
            the model as quoted data, and screened.
        **options: of every question, see `Options`; what is answered is the rules' business. All
            frames are shown, unless an option says how many.

    Returns:
        An observation for every rule: "failed" with the reason where its question has no answer, or
        one without the probability that the rule names.

    Raises:
        LlavaVideoError: the window cannot be planned or decoded at all.
        TypeError: an option is unknown.
    """
    for name in _ASKED_OF_ALL:
        if name in options:
            raise TypeError(f"unknown option {name!r}: the rules say what is answered")
    asked = _distinct(rules, guard=guard, quotes=dict(quotes or {}))
    video, options = _shown(window, options)
    answers = list(
        ask_each(
            model.spec,
            model.engine,
            video,
            [(question, own) for question, own, _ in asked],
            options=cast("Options", options),
            on_event=model.on_event,
        )
    )
    warnings = _warnings(answers, dict(quotes or {}))
    observations = {}
    for answer, (_, _, sharing) in zip(answers, asked, strict=True):
        for rule in sharing:
            observations[rule.name] = _observed(rule, window, answer, warnings)
    described = [one for one in answers if isinstance(one, Description)]
    seconds: dict[str, float] = {}
    for one in described:
        for stage, took_s in one.timings.items():
            seconds[stage] = seconds.get(stage, 0.0) + took_s
    return WindowAnswers(
        observations=observations,
        num_asked=len(asked),
        reused_tokens=sum(one.usage.reused_tokens for one in described),
        seconds=seconds,
    )


def describe_alert(
    model: LlavaVideo,
    window: WindowFrames,
    prompt: str | None = None,
    *,
    guard: bool = True,
    **options: Any,
) -> tuple[str, tuple[str, ...]]:
    """Describe what an alert's window shows, for its update.

    Args:
        model: describes.
        window: of the alert.
        prompt: what is asked; None for the model's own request.
        guard: as of `ask_window`.
        **options: see `Options`.

    Returns:
        The description in one line without control characters, and what is to be known before it
        is believed.

    Raises:
        LlavaVideoError: it cannot be answered.
    """
    words = prompt or description_prompt("video", model.card)
    video, options = _shown(window, options)
    described = model.describe(video, guarded(words) if guard else words, **options)
    return printable(described.text), _warnings([described], {})


def reused(
    earlier: Mapping[str, Observation], start_s: float, end_s: float
) -> dict[str, Observation]:
    """Return an earlier window's answers as those of an unchanged one.

    Args:
        earlier: observations of the window that was asked, by rule.
        start_s: where the unchanged window begins, wall clock, s.
        end_s: where it ends.
    """
    return {
        name: Observation(
            start_s=start_s,
            at_s=end_s,
            kind=one.kind,
            value=one.value,
            confidence=one.confidence,
            reused_from_s=one.at_s if one.reused_from_s is None else one.reused_from_s,
            reason=one.reason,
            warnings=one.warnings,
        )
        for name, one in earlier.items()
    }


def _shown(
    window: WindowFrames, options: dict[str, Any]
) -> tuple[tuple[npt.NDArray[np.uint8], tuple[float, ...]], dict[str, Any]]:
    """Return the window as a video, and the options by which all of it is looked at."""
    if not _AMOUNTS & options.keys():
        options = {**options, "num_frames": len(window.frames)}
    return (window.frames, tuple(float(time_s) for time_s in window.times_s)), options


def _distinct(
    rules: Sequence[Rule], *, guard: bool, quotes: dict[str, str]
) -> list[tuple[str, Options, list[Rule]]]:
    """Return each question that differs, with the options of its answer and whose it is."""
    found: dict[str, tuple[str, Options, list[Rule]]] = {}
    for rule in rules:
        form = rule.answer.response_format
        key = json.dumps([rule.question, rule.answer.type, form], default=str, sort_keys=True)
        if key not in found:
            question = guarded(rule.question, quotes) if guard or quotes else rule.question
            own: Options = {
                "response_format": form,
                "max_new_tokens": rule.answer.max_new_tokens,
            }
            found[key] = question, own, []
        found[key][2].append(rule)
    return list(found.values())


def _observed(
    rule: Rule, window: WindowFrames, answer: Description | Exception, warnings: tuple[str, ...]
) -> Observation:
    def failed(reason: str) -> Observation:
        return Observation(
            start_s=window.start_s, at_s=window.end_s, kind="failed", reason=reason,
            warnings=warnings,
        )  # fmt: skip

    if isinstance(answer, Exception):
        known = isinstance(answer, LlavaVideoError)
        return failed(str(answer) if known else type(answer).__name__)
    if answer.parsed is None:
        return failed("; ".join(answer.warnings) or "the answer has no value")
    try:
        value = rule.answer.value_of(answer.parsed)
    except ValueError as error:
        return failed(str(error))
    if answer.confidence is None and rule.confidence is not None:
        # As an answer it would be "not sure enough" for ever, and nobody would know.
        return failed(str(_no_probability(rule)))
    return Observation(
        start_s=window.start_s,
        at_s=window.end_s,
        value=value,
        confidence=answer.confidence,
        warnings=warnings,
    )


def _no_probability(rule: Rule) -> ConfigError:
    return ConfigError(
        f"rule {rule.name!r} wants a confidence of {rule.confidence}, and the server gives no "
        "probability of its answers.",
        f"leave `confidence` out of rule {rule.name!r}.",
    )


def _warnings(
    answers: Sequence[Description | Exception], quotes: Mapping[str, str]
) -> tuple[str, ...]:
    """Return what the answers warn of, and a sentence for every text that instructs."""
    told: dict[str, None] = {}  # in their order, each once
    texts: list[tuple[str, str]] = [(f"the {name}", text) for name, text in quotes.items()]
    for answer in answers:
        if isinstance(answer, Description):
            told.update(dict.fromkeys(answer.warnings))
            said = answer.text if answer.parsed is None else answer.parsed
            texts += [("what the picture says", text) for text in _texts(said)]
    for place, text in texts:
        found = instruction_in(text)
        if found is not None:
            told[f"{place} tries to instruct: {quoted(found)}; it was not followed."] = None
    return tuple(told)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list | tuple):
        return [text for inner in value for text in _texts(inner)]
    return []


# What asks a window: `ask_window` with a model, or a stand-in for tests and rehearsals.
AskWindow = Callable[[WindowFrames, Sequence[Rule]], WindowAnswers]
