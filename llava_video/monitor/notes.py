"""Windows as they were judged → what a person is told of them beside alerts, and that none is.

Why questions have no answer, and what is to be known of answers: each of a camera once, as a server
or a model that says something says it of every window. Knows no terminal and no file.
"""

import re
from dataclasses import dataclass
from typing import Final

from llava_video.monitor.instructions import printable
from llava_video.monitor.judge import Judged

# A server may write something new into each reason, such as the time; a picture into each warning.
_MOST_REASONS: Final = 8
_MOST_WARNINGS: Final = 8
_NUMBER: Final = re.compile(r"\d[\d.,]*")


class FailureNotes:
    """Windows → what a person is to be told of those whose questions have no answer.

    Each reason of a camera is told once, and so is the end of it: a watch that answers nothing
    raises no alert, so without a word it looks like one where nothing happens.
    """

    def __init__(self) -> None:
        self._told: dict[str, list[str]] = {}

    def of(self, judged: Judged) -> list[str]:
        """Return what is to be told of a window; of most there is nothing."""
        told = self._told.setdefault(judged.camera, [])
        if told and judged.kind == "asked" and not judged.failures:
            told.clear()
            return ["every question is answered again."]
        new = [one for one in judged.failures if one not in told][: _MOST_REASONS - len(told)]
        told += new
        return [f"no answer: {reason}" for reason in new]


@dataclass(slots=True)
class _Warning:
    text: str
    num_windows: int


class WarningNotes:
    """Windows → what their answers warn of, each warning of a camera once.

    A warning stands in the alerts and in the trace too; where there is no alert nobody reads it.
    Warnings that differ in their numbers alone are one, told in the words that came first; one that
    is the reason of a failure is told as that.
    """

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, _Warning]] = {}
        self._num_others: dict[str, int] = {}

    def of(self, judged: Judged) -> list[str]:
        """Take a window, and return what is told for the first time; of most there is nothing."""
        kept = self._kept.setdefault(judged.camera, {})
        texts: dict[str, str] = {}
        for decision in judged.decisions:
            for text in map(printable, decision.warnings):
                if not any(text in reason for reason in judged.failures):
                    texts.setdefault(_NUMBER.sub("0", text), text)
        new, num_others = list[str](), 0
        for kind, text in texts.items():
            if kind in kept:
                kept[kind].num_windows += 1
            elif len(kept) < _MOST_WARNINGS:
                kept[kind] = _Warning(text, 1)
                new.append(text)
            else:
                num_others = 1
        self._num_others[judged.camera] = self._num_others.get(judged.camera, 0) + num_others
        return new

    def told(self) -> list[tuple[str, str]]:
        """Return cameras and what was warned of there, with the number of its windows."""
        found = [
            (camera, f"{one.text} ({_windows(one.num_windows)})")
            for camera, kept in self._kept.items()
            for one in kept.values()
        ]
        return found + [
            (camera, f"other warnings of {_windows(number)} stand in the trace.")
            for camera, number in self._num_others.items()
            if number
        ]


class WindowNotes:
    """Windows → all that a watch tells of them at once: failures and warnings."""

    def __init__(self) -> None:
        self._failures, self._warnings = FailureNotes(), WarningNotes()

    def of(self, judged: Judged) -> list[str]:
        """Return what is to be told of a window; of most there is nothing."""
        return self._failures.of(judged) + self._warnings.of(judged)


def _windows(number: int) -> str:
    return "1 window" if number == 1 else f"{number:,} windows"
