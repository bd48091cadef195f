"""What the tokens of a prompt are: text ids, and whole visuals, which are never split.

Knows no cache and imports no torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VisualRun:
    """All visual tokens of one visual: equal keys mean equal rows."""

    key: str
    num_tokens: int


Element = int | VisualRun


def tokens_of(elements: Iterable[Element]) -> int:
    """Count the tokens of elements: 1 for a text id, all its rows for a visual."""
    return sum(e.num_tokens if isinstance(e, VisualRun) else 1 for e in elements)
