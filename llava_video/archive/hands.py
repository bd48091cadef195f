"""Where units are worked, as a run sees it: units in, what became of them out.

A run has one kind of hands: threads of its own process, other processes of this machine, or actors
of a Ray cluster. Knows none of them, no ledger and no model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from llava_video.archive.row import Maker
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.unit import Unit
from llava_video.errors import CapacityError, LlavaVideoError

if TYPE_CHECKING:
    from llava_video.api import LlavaVideo
    from llava_video.archive.work import Outcome


class Busy(NamedTuple):
    """How much of the time something was at work, 0..1.

    Attributes:
        engine: share of the time in which the engine had a request.
        device: mean of what the GPU's driver says of it; None where there is none to ask.
    """

    engine: float = 0.0
    device: float | None = None


class Taken(NamedTuple):
    """What came back from a slot, which is free again.

    Attributes:
        slot: it had been given a unit.
        outcome: of one try; None when whoever worked it is gone.
        is_suspect: whether that may be the unit's own doing.
    """

    slot: str
    outcome: "Outcome | None"
    is_suspect: bool = False


class Hands(Protocol):
    """Work units; used by one thread, the run's. Made with a model, or several, behind them.

    Attributes:
        facts: what decides the model's answers, as `model_facts` says it.
        maker: what rows say of the model.
        is_own_process: whether a unit that kills whoever works it kills the run.
    """

    facts: Mapping[str, Any]
    maker: Maker
    is_own_process: bool

    @property
    def num_held(self) -> int:
        """Units given and not yet taken."""

    @property
    def busy(self) -> Busy:
        """How busy they were so far."""

    def free_slot(self) -> str | None:
        """Return who can be given a unit now; None when nobody can."""

    def give(self, slot: str, unit: Unit) -> None:
        """Give a unit to a free slot."""

    def take(self, timeout_s: float) -> Taken | None:
        """Return the next thing that came back, waiting for it.

        Raises:
            LlavaVideoError: there is nobody left to work, and nobody can be had.
        """

    def finish(self) -> None:
        """Let what is under way end, without waits for another try."""

    def close(self) -> None:
        """End the work at once; what is under way is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What hands are told once; it travels to other processes and machines.

    Attributes:
        settings: the run's.
        options: of every request.
        model: loads the model, wherever it is called.
    """

    settings: ArchiveSettings
    options: Mapping[str, Any]
    model: "Callable[[], LlavaVideo]"

    @property
    def is_served(self) -> bool:
        """Whether a server answers for the model (a partial `connect`): nobody needs a GPU."""
        if not isinstance(self.model, partial):
            return False
        from llava_video.connecting import connect

        return self.model.func is connect


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A checkpoint by its name, to be loaded where it is needed.

    Attributes:
        name: a folder, a hub id or "demo".
        keywords: of `load`.
    """

    name: str | Path
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> "LlavaVideo":
        """Load it.

        Raises:
            LlavaVideoError: as `load`.
        """
        from llava_video.api import load

        return load(self.name, **self.keywords)


def as_ours(error: Exception) -> LlavaVideoError:
    """Return an error that every process can raise, which another package's may be none of."""
    if isinstance(error, LlavaVideoError):
        return error
    return CapacityError(f"the model cannot be loaded: {type(error).__name__}: {error}.")
