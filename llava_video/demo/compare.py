"""A timed caption and the true one → line by line, what is right, what is wrong, what is missing.

A line is right where the truth has the same sentence, no more than half a second off; of several
objects in one line the order does not count. Knows no model.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from llava_video.world.question import TOLERANCE_S

Mark = Literal["right", "wrong", "missed"]

_LINE: Final = re.compile(r"(\d+(?:\.\d+)?) ?s: (.+?)\.?")


@dataclass(frozen=True, slots=True)
class MarkedLine:
    """One line of a caption, or of the truth where nobody said it."""

    mark: Mark
    text: str


def compare_timed(said: str, truth: str) -> tuple[MarkedLine, ...]:
    """Mark the lines of a timed caption, as they come, then what it left out."""
    left = truth.splitlines()
    found: list[MarkedLine] = []
    for line in filter(None, map(str.strip, said.splitlines())):
        match = next((other for other in left if _same(line, other)), None)
        if match is not None:
            left.remove(match)
        found.append(MarkedLine("wrong" if match is None else "right", line))
    return (*found, *(MarkedLine("missed", line) for line in left))


def _same(line: str, other: str) -> bool:
    (one_s, one), (other_s, another) = _parsed(line), _parsed(other)
    if one_s is None or other_s is None:
        return one_s == other_s and one == another
    return abs(one_s - other_s) <= TOLERANCE_S + 1e-9 and one == another


def _parsed(line: str) -> tuple[float | None, tuple[str, ...]]:
    """Return the moment and the sentence, cut where objects are listed and sorted."""
    match = _LINE.fullmatch(line.strip().lower())
    time_s, words = (float(match[1]), match[2]) if match else (None, line.strip(" .").lower())
    return time_s, tuple(sorted(re.split(r", | and ", words)))
