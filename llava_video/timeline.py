"""A video of any length → captions with true times, and one text that merges them.

The honest answer for footage beyond the context: each window is a request of its own. Knows no
decoder and no cache.
"""

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llava_video.config import to_mapping
from llava_video.errors import BudgetError, ConfigError, LlavaVideoError, ServerError
from llava_video.inputs import only_video, open_visuals
from llava_video.options import Settings, Time
from llava_video.values import Description, Segment
from llava_video.video.span import parse_time

WINDOW_PROMPT = "Please describe what happens in this part of the video."
_MERGE_PROMPT = (
    "These are captions of consecutive parts of one video, each with its time span in seconds.\n"
    "{captions}\nSummarise the whole video from them, in order of time."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """What one window shows: its span in seconds of the video, the text, and the whole answer."""

    segment: Segment
    text: str
    description: Description


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Captions in order of time.

    Attributes:
        captions: one per window that could be described.
        summary: the captions merged into one text; "" when not asked for.
        coverage: spans described, s.
        warnings: windows that could not be described, and what their answers warned of.
    """

    captions: tuple[Caption, ...]
    summary: str
    coverage: tuple[Segment, ...]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the captions with their spans, the summary and the warnings as JSON."""
        captions = [to_mapping(c.segment) | {"text": c.text} for c in self.captions]
        values = {
            "captions": captions,
            "summary": self.summary,
            "coverage": [to_mapping(segment) for segment in self.coverage],
            "warnings": list(self.warnings),
        }
        return json.dumps(values, indent=1, ensure_ascii=False)

    def to_vtt(self) -> str:
        """Return the captions as WebVTT, each on one line: a blank line would end it."""
        cues = [
            f"{_clock(c.segment.start_s)} --> {_clock(c.segment.end_s)}\n{_cue(c.text)}\n"
            for c in self.captions
        ]
        return "WEBVTT\n\n" + "\n".join(cues)


def windows(segment: Segment, window_s: float, overlap_s: float) -> list[Segment]:
    """Cut a span into windows that cover it without gaps.

    When less than a tenth of a step would be left for the last window, its neighbour takes it: it
    would hold hardly a frame of its own.

    Raises:
        ConfigError: an empty span, or a window not longer than its overlap.
    """
    if segment.start_s >= segment.end_s:
        raise ConfigError(
            f"the span from {segment.start_s:g} s to {segment.end_s:g} s is empty.",
            "begin before the end of the video.",
        )
    if not 0.0 <= overlap_s < window_s:
        raise ConfigError(
            f"window_s = {window_s!r}, overlap_s = {overlap_s!r}.", "0 <= overlap_s < window_s."
        )
    cut: list[Segment] = []
    start_s = segment.start_s
    while start_s < segment.end_s:
        end_s = start_s + window_s
        if segment.end_s - end_s < 0.1 * (window_s - overlap_s):
            end_s = segment.end_s
        cut.append(Segment(start_s, end_s))
        if end_s >= segment.end_s:
            break
        # Counted, not summed: a sum of many windows would drift off the video's own times.
        start_s = segment.start_s + len(cut) * (window_s - overlap_s)
    return cut


def cut_parts(
    video: Any, settings: Settings, window_s: Time, overlap_s: Time
) -> tuple[list[Segment], list[dict[str, Any]]]:
    """Cut one video into windows, and say how each is asked about in a batch.

    Raises:
        ConfigError: it is not one video, or as `windows`. SourceError: it cannot be read.
    """
    whole = only_video(open_visuals(video, settings.sampling, *settings.reading))
    cut = windows(whole.span, parse_time(window_s), parse_time(overlap_s))
    parts = [
        {"video": whole.part(segment), "start": None, "end": None, "reader": settings.reader}
        for segment in cut
    ]
    return cut, parts


Ask = Callable[[Sequence[dict[str, Any]]], Iterable[Description | LlavaVideoError]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """When windows that failed are asked about again.

    Attributes:
        may_pass: whether another try may succeed, by the error.
        wait: waits for the next try, after so many; False when there is none.
    """

    may_pass: Callable[[LlavaVideoError], bool]
    wait: Callable[[int], bool]


def ask_timeline(
    cut: Sequence[Segment],
    parts: Sequence[dict[str, Any]],
    ask: Ask,
    describe: Callable[[str], Description] | None,
    patience: Patience | None = None,
) -> Timeline:
    """Ask about every window, again about those that failed for a reason that may pass, and merge.

    Args:
        cut: the windows.
        parts: the same as requests of a batch, both as `cut_parts` returns them.
        ask: asks about several in one batch; answers, or errors in their place, in order.
        describe: answers the prompt that asks for a summary; None for no summary.
        patience: when to ask again; None never does.
    """
    answers = _ask_windows(parts, ask, patience)
    return make_timeline(cut, answers, (lambda p: describe(p).text) if describe else None)


def _ask_windows(
    parts: Sequence[dict[str, Any]], ask: Ask, patience: Patience | None
) -> list[Description | LlavaVideoError]:
    answers = list(ask(parts))
    for tries in itertools.count(1):
        again = [
            place
            for place, answer in enumerate(answers)
            if isinstance(answer, LlavaVideoError) and patience and patience.may_pass(answer)
        ]
        if not again or patience is None or not patience.wait(tries):
            break
        later = ask([parts[place] for place in again])
        for place, answer in zip(again, later, strict=True):
            answers[place] = answer
    return answers


def make_timeline(
    cut: Sequence[Segment],
    answers: Iterable[Description | LlavaVideoError],
    merge: Callable[[str], str] | None,
) -> Timeline:
    """Put the windows' answers together.

    A window that failed is a warning with its reason, and missing from the coverage; all failing is
    the first one's error, and so is a server's trouble.

    Args:
        cut: the windows.
        answers: one per window, in order.
        merge: answers the prompt that asks for a summary; None for no summary.
    """
    captions: list[Caption] = []
    warnings: list[str] = []
    errors: list[LlavaVideoError] = []
    for segment, answer in zip(cut, answers, strict=True):
        span = f"{segment.start_s:.2f} s to {segment.end_s:.2f} s"
        if isinstance(answer, ServerError):
            raise answer  # the server's trouble, and nothing that the window lacks
        if isinstance(answer, LlavaVideoError):
            errors.append(answer)
            warnings.append(f"{span}: {answer}")
            continue
        warnings += [f"{span}: {warning}" for warning in answer.warnings]
        captions.append(Caption(segment=segment, text=answer.text, description=answer))
    if not captions and errors:
        raise errors[0]
    return Timeline(
        captions=tuple(captions),
        summary=_merge([_line(c.segment, c.text) for c in captions], merge) if merge else "",
        coverage=tuple(c.segment for c in captions),
        warnings=tuple(warnings),
    )


def _merge(lines: Sequence[str], merge: Callable[[str], str]) -> str:
    """Merge captions by the model itself, in halves where they outgrow its context."""
    try:
        return merge(_MERGE_PROMPT.format(captions="\n".join(lines)))
    except BudgetError:
        if len(lines) <= 2:  # two merged texts that do not fit would be merged for ever
            raise
    half = len(lines) // 2
    return _merge([_merge(part, merge) for part in (lines[:half], lines[half:])], merge)


def _line(segment: Segment, text: str) -> str:
    return f"[{segment.start_s:.2f}s - {segment.end_s:.2f}s] {_one_paragraph(text)}"


def _one_paragraph(text: str) -> str:
    # "<image>" in a caption would be read as a mark when captions are merged.
    return " ".join(text.replace("<image>", "image").split())


def _cue(text: str) -> str:
    # "-->" inside a cue would be read as the times of another one.
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _one_paragraph(escaped)


def _clock(time_s: float) -> str:
    milliseconds = round(time_s * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"
