"""Rows → how many carry warnings, and which is the commonest.

Knows no folder.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from llava_video.archive.row import Row, plain_text

_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(slots=True)
class Warned:
    """What was counted of warnings.

    Attributes:
        num_rows: rows that carry any, of the whole or of one answer.
        kinds: warning, its numbers left out → rows that carry it.
        first: warning, its numbers left out → as it was first told.
    """

    num_rows: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Count a row."""
        told = [*row["warnings"], *(text for one in row["answers"] for text in one["warnings"])]
        # Two rows that lack frames lack other ones: it is the same warning.
        found = {_NUMBER.sub("#", text): text for text in reversed(told)}
        self.num_rows += bool(found)
        self.kinds.update(found.keys())
        self.first = {**found, **self.first} if found.keys() - self.first.keys() else self.first

    @property
    def line(self) -> str:
        """The line a person reads; "" where no row carries any.

        >>> Warned(2, Counter({"# of # frames": 2}), {"# of # frames": "3 of 4 frames"}).line
        '2 carry warnings, 2 of them: 3 of 4 frames'
        """
        if not self.num_rows:
            return ""
        kind, num_rows = self.kinds.most_common(1)[0]
        text = plain_text(self.first[kind])
        return f"{self.num_rows:,} carry warnings, {num_rows:,} of them: {text}"
