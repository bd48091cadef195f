"""A place of work → units worked by threads of this process, one each; and hands over them.

Knows no ledger.
"""

import threading
from collections.abc import Mapping
from queue import Empty, SimpleQueue
from typing import Any, Final

from llava_video.archive.hands import Busy, Taken
from llava_video.archive.unit import Unit
from llava_video.archive.work import Outcome
from llava_video.archive.workplace import Workplace

_LEAVE: Final = None


class Threads:
    """Threads that work units as they come; any thread may give and take.

    Args:
        place: where they work; closed with them.
        number: of threads.
    """

    def __init__(self, place: Workplace, number: int) -> None:
        self.place, self._number = place, number
        self._tasks: SimpleQueue[tuple[str, Unit] | None] = SimpleQueue()
        self._results: SimpleQueue[tuple[str, Outcome]] = SimpleQueue()
        for idx in range(number):
            name = f"llava-video archive {idx}"
            # Daemons: one that hangs must not keep a program from ending.
            threading.Thread(target=self._labour, name=name, daemon=True).start()

    def put(self, slot: str, unit: Unit) -> None:
        """Let whoever is free next work a unit."""
        self._tasks.put((slot, unit))

    def get(self, timeout_s: float) -> tuple[str, Outcome] | None:
        """Return the slot and the outcome of a unit, waiting for it; None when none comes."""
        try:
            return self._results.get(timeout=timeout_s)
        except Empty:
            return None

    def close(self) -> None:
        """End what is under way with its next event, and the threads."""
        self.place.close()
        for _ in range(self._number):
            self._tasks.put(_LEAVE)

    def _labour(self) -> None:
        while (task := self._tasks.get()) is not _LEAVE:
            slot, unit = task
            self._results.put((slot, self.place.work(unit)))


class ThreadHands:
    """Threads of the run's own process; `Hands`.

    Args:
        place: where they work; closed with them.
        number: units at once.
    """

    def __init__(self, place: Workplace, number: int) -> None:
        self.facts: Mapping[str, Any] = place.facts
        self.is_own_process = True
        self.maker = place.maker
        self._threads, self._number = Threads(place, number), number
        self._free = [f"worker {idx}" for idx in reversed(range(number))]

    @property
    def num_held(self) -> int:
        """See `Hands`."""
        return self._number - len(self._free)

    @property
    def busy(self) -> Busy:
        """See `Hands`."""
        return self._threads.place.busy

    def free_slot(self) -> str | None:
        """See `Hands`."""
        return self._free[-1] if self._free else None

    def give(self, slot: str, unit: Unit) -> None:
        """See `Hands`."""
        self._free.remove(slot)
        self._threads.put(slot, unit)

    def take(self, timeout_s: float) -> Taken | None:
        """See `Hands`."""
        found = self._threads.get(timeout_s)
        if found is None:
            return None
        self._free.append(found[0])
        return Taken(*found)

    def finish(self) -> None:
        """See `Hands`."""
        self._threads.place.finish()

    def close(self) -> None:
        """See `Hands`."""
        self._threads.close()
