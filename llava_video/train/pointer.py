"""Which row is to look at which rows of a video. Knows no scene and no head."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

Rows = tuple[int, ...]
Role = Literal["name", "answer", "first", "second", "trail"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Pointer:
    """A row that is about something, and where that shows.

    Attributes:
        row: of the example's ids; of a "trail", of its visual's rows; in a batch, of the sequence.
        role: "name" is the last row of a name. "answer", "first" and "second" are the row an answer
            is said from, which looks at all that is named, or at the first or second; the only one
            is both. "trail" is a row of the visual, which looks at where what it shows was before.
        shown: for each thing the rows of the visual in which it shows, in a batch those of the
            sequence; each thing has as large a share of the attention.
    """

    row: int
    role: Role
    shown: tuple[Rows, ...]


def shifted(pointers: Sequence[Pointer], text: int, visual: int) -> list[Pointer]:
    """Return pointers of an example as those of a batch.

    Args:
        pointers: of the example.
        text: what is added to a row behind the visual.
        visual: the visual's first row.
    """
    return [
        Pointer(
            one.row + (visual if one.role == "trail" else text),
            one.role,
            tuple(tuple(row + visual for row in shown) for shown in one.shown),
        )
        for one in pointers
    ]
