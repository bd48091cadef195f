"""Workers that may die → hands that go on: who holds which unit, who is suspected, who is replaced.

The same for processes and for actors of a cluster, which differ in how they are hired and heard of.
A worker works several units at once, and when it dies nobody knows which one it died of. So each of
them is tried again alone: who is alone with a worker that dies is to blame. Knows no ledger, no
model and no process.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from llava_video.archive.hands import Busy, Taken
from llava_video.archive.row import Maker
from llava_video.archive.unit import Unit
from llava_video.archive.work import Outcome
from llava_video.errors import CapacityError, ConfigError, LlavaVideoError

# A worker that dies so often before its model is loaded is given up.
_MOST_LOADS: Final = 3
# So many deaths without a single result between them are no fault of single files.
_MOST_DEATHS: Final = 20
_LOOK_S: Final = 0.2
_TELL_EVERY_S: Final = 60.0

_LOG = logging.getLogger(__name__)


class NotBegunError(CapacityError):
    """A run was stopped before anybody had a model."""


class Ready(NamedTuple):
    """A worker has loaded its model.

    Attributes:
        idx: of the worker.
        facts: what decides its model's answers.
        maker: what rows say of the model.
    """

    idx: int
    facts: Mapping[str, Any]
    maker: Maker


class Done(NamedTuple):
    """A worker has tried a unit.

    Attributes:
        idx: of the worker.
        slot: that held the unit.
        outcome: of the try.
        busy: how busy the worker was so far.
    """

    idx: int
    slot: str
    outcome: Outcome
    busy: Busy


class Gone(NamedTuple):
    """A worker is no more.

    Attributes:
        idx: of the worker.
        why: for the middle of a sentence.
        error: why its model could not be loaded; None where that was not it.
        is_suspect: whether that may be the doing of a unit it worked.
    """

    idx: int
    why: str
    error: LlavaVideoError | None = None
    is_suspect: bool = True


class Staff(Protocol):
    """How workers are hired, given units and heard of; used by one thread."""

    def hire(self, idx: int) -> None:
        """Begin to start a worker; `events` says when it is ready."""

    def send(self, idx: int, slot: str, unit: Unit) -> None:
        """Give a worker a unit; that it is dead is told by `events`."""

    def events(self, timeout_s: float) -> Iterable[Ready | Done | Gone]:
        """Return what was heard, after waiting a moment for the first; results before deaths."""

    def finish(self) -> None:
        """Let waits for another try end."""

    def close(self) -> None:
        """End every worker at once."""


@dataclass(slots=True)
class _Post:
    """One worker's place.

    Attributes:
        free: slots without a unit.
        held: slot → its unit.
        waiting: a slot whose unit is to be worked alone, once the others have ended.
        is_alone: whether such a unit is here.
        is_ready: whether the worker can be given units.
        ends: how often in a row it ended before it was ready.
        hire_s: when it is hired again, monotonic; None where it is not.
        busy: what it said of itself last.
    """

    free: list[str]
    held: dict[str, Unit] = field(default_factory=dict)
    waiting: str | None = None
    is_alone: bool = False
    is_ready: bool = False
    ends: int = 0
    hire_s: float | None = None
    busy: Busy = field(default_factory=Busy)


class Crew:
    """Workers of one kind; `Hands`. Nothing is given to it before `begin`.

    Args:
        staff: hires them; closed with the crew.
        number: of workers.
        in_flight: units that one works at once.
    """

    def __init__(self, staff: Staff, number: int, in_flight: int) -> None:
        self.facts: Mapping[str, Any] = {}
        self.maker = Maker()
        self.is_own_process = False
        self._staff = staff
        self._posts = [
            _Post([f"worker {idx}.{place}" for place in range(in_flight)]) for idx in range(number)
        ]
        self._back: deque[Taken] = deque()
        self._deaths = 0
        self._is_finishing = False
        self._told_s = time.monotonic()

    def begin(self, stopping: threading.Event) -> None:
        """Hire everybody and wait for the first who has loaded the model.

        Raises:
            LlavaVideoError: it cannot be loaded, or nobody can be had.
            NotBegunError: it was stopped meanwhile.
        """
        for idx in range(len(self._posts)):
            self._staff.hire(idx)
        while not any(post.is_ready for post in self._posts):
            if stopping.is_set():
                raise NotBegunError("stopped before a model was loaded.", "start it again.")
            self._hear(_LOOK_S)

    @property
    def num_held(self) -> int:
        """See `Hands`."""
        return sum(len(post.held) for post in self._posts) + len(self._back)

    @property
    def busy(self) -> Busy:
        """See `Hands`; the mean of all workers."""
        told = [post.busy for post in self._posts]
        devices = [busy.device for busy in told if busy.device is not None]
        device = sum(devices) / len(devices) if devices else None
        return Busy(sum(busy.engine for busy in told) / len(told), device)

    def free_slot(self) -> str | None:
        """See `Hands`; of those who hold the fewest units."""
        open_ones = [post for post in self._posts if post.is_ready and not post.is_alone]
        open_ones = [post for post in open_ones if post.free]
        return min(open_ones, key=lambda post: len(post.held)).free[-1] if open_ones else None

    def give(self, slot: str, unit: Unit) -> None:
        """See `Hands`; what has killed a worker is worked when the worker has nothing else."""
        idx = next(idx for idx, post in enumerate(self._posts) if slot in post.free)
        post = self._posts[idx]
        post.free.remove(slot)
        post.held[slot] = unit
        post.is_alone = unit.crashes > 0
        if post.is_alone and len(post.held) > 1:
            post.waiting = slot
        else:
            self._staff.send(idx, slot, unit)

    def take(self, timeout_s: float) -> Taken | None:
        """See `Hands`."""
        if not self._back:
            self._hear(timeout_s)
        return self._back.popleft() if self._back else None

    def finish(self) -> None:
        """See `Hands`; nobody is hired any more."""
        if not self._is_finishing:
            self._is_finishing = True
            self._staff.finish()

    def close(self) -> None:
        """See `Hands`."""
        self._staff.close()

    def _hear(self, timeout_s: float) -> None:
        now_s = time.monotonic()
        for idx, post in enumerate(self._posts):
            if post.hire_s is not None and now_s >= post.hire_s and not self._is_finishing:
                post.hire_s = None
                self._staff.hire(idx)
        for event in self._staff.events(timeout_s):
            post = self._posts[event.idx]
            if isinstance(event, Ready):
                self._welcome(post, event)
            elif isinstance(event, Done):
                self._note(post, event)
            else:
                self._mourn(post, event)
        self._tell_of_nobody()

    def _welcome(self, post: _Post, event: Ready) -> None:
        theirs, ours = event.facts, self.facts or event.facts
        others = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        if others:
            said = "; ".join(f"{n} = {theirs.get(n)!r}, not {ours.get(n)!r}" for n in others)
            raise ConfigError(
                f"worker {event.idx} has loaded another model than the first one: {said}.",
                "name a revision on the hub, or a folder that all share or that was copied with "
                "its dates.",
            )
        self.facts, self.maker = event.facts, event.maker
        post.is_ready, post.ends = True, 0

    def _note(self, post: _Post, event: Done) -> None:
        self._deaths = 0
        post.busy = event.busy
        del post.held[event.slot]
        post.free.append(event.slot)
        self._back.append(Taken(event.slot, event.outcome))
        if post.waiting is not None and len(post.held) == 1:
            slot, post.waiting = post.waiting, None
            if self._is_finishing:  # nothing is begun any more
                del post.held[slot]
                post.free.append(slot)
                self._back.append(Taken(slot, None))
            else:
                self._staff.send(event.idx, slot, post.held[slot])
        post.is_alone = post.is_alone and bool(post.held)

    def _mourn(self, post: _Post, event: Gone) -> None:
        was_ready = post.is_ready
        for slot in post.held:
            is_suspect = event.is_suspect and slot != post.waiting
            self._back.append(Taken(slot, None, is_suspect=is_suspect))
        post.free += post.held
        post.held, post.waiting, post.is_alone, post.is_ready = {}, None, False, False
        if self._is_finishing:
            return
        if event.error is not None and not self.facts:
            raise event.error
        _LOG.warning("worker %d %s; it is started again.", event.idx, event.why)
        self._deaths += was_ready
        post.ends = 0 if was_ready else post.ends + 1
        if self._deaths >= _MOST_DEATHS:
            raise CapacityError(
                f"workers died {self._deaths} times without one result, the last one {event.why}.",
                "see whether the machine's memory and its GPUs are well; what is done is kept.",
            )
        if post.ends < _MOST_LOADS:
            post.hire_s = time.monotonic() + (0.0 if was_ready else 2.0**post.ends - 1.0)
        elif not any(other.is_ready or other.ends < _MOST_LOADS for other in self._posts):
            raise event.error or CapacityError(
                f"no worker lives until its model is loaded; the last one {event.why}.",
                "fewer workers, or a smaller model: see the machine's memory.",
            )

    def _tell_of_nobody(self) -> None:
        now_s = time.monotonic()
        if any(post.is_ready for post in self._posts):
            self._told_s = now_s
        elif now_s - self._told_s >= _TELL_EVERY_S:
            self._told_s = now_s
            _LOG.warning("no worker is ready yet; still waiting.")
