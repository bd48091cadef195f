"""Failures → the end of a run, where going on would fail every unit there is.

Knows no ledger and no model.
"""

from pathlib import Path
from typing import Final

from llava_video.archive.unit import UnitError
from llava_video.archive.work import CRASH, Place
from llava_video.errors import BudgetError, CapacityError, ConfigError, DecodeError, SourceError

# So many in a row, alike and without a result between them, are no fault of single videos.
MOST_ALIKE: Final = 30


def fault_of_place(place: Place, error: UnitError) -> CapacityError:
    """Return what a run says that ends because of where it works.

    Args:
        place: what is broken.
        error: as it was met.
    """
    what = "the device is broken for this process" if place == "device" else "the server is closed"
    return CapacityError(
        f"{what}, and the run ends; what is done is kept. {error.message}",
        error.hint or "see the driver's log, then run the same command again.",
    )


class Breaker:
    """Ends a run in which nothing comes out any more."""

    def __init__(self) -> None:
        self._kind, self._num_alike = "", 0

    def note_result(self) -> None:
        """Take in that a unit has a result."""
        self._num_alike = 0

    def note_failure(self, error: UnitError, folder: Path) -> None:
        """Take in that a unit has failed for good.

        Args:
            error: why.
            folder: of the run, for the hint.

        Raises:
            CapacityError: it is the last of too many alike. Broken videos, and spans or questions
                that do not suit theirs, are never too many.
        """
        if error.kind in _OF_MEDIA:
            return
        self._num_alike = self._num_alike + 1 if error.kind == self._kind else 1
        self._kind = error.kind
        if self._num_alike >= MOST_ALIKE:
            raise CapacityError(
                f"{MOST_ALIKE} units in a row ended with {error.kind}, and none with a result: "
                f"{error.message}",
                f"mend it, `llava-video archive retry {folder} --only {error.kind}`, run again.",
            )


def _names(kind: type[BaseException]) -> set[str]:
    return {kind.__name__}.union(*map(_names, kind.__subclasses__()))


_OF_MEDIA: Final = frozenset(
    {CRASH}.union(*map(_names, (SourceError, DecodeError, BudgetError, ConfigError)))
)
