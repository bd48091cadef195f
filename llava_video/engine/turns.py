"""Callers on several threads → one of them at a time has the turn to work for all.

A plain lock is unfair: whoever lets go of it has it again before a thread that waits wakes up. With
one, a caller whose answer was ready waited for as long as the others had work, and an engine that
could have taken eight requests a step took two. Knows no request.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class _Waiter:
    who: object
    is_served: Callable[[], bool]
    woken: threading.Event = field(default_factory=threading.Event)


class Turns:
    """One turn, which is passed on in the order of asking; any thread may use it.

    Whoever asks gives back in a `finally` around the asking itself: Ctrl-C may come at any moment,
    and what somebody does not have is not taken from anybody else.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held for moments, never during a turn
        self._holder: object = None
        self._waiting: list[_Waiter] = []

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn, and have it for a while."""
        who = object()
        try:
            while not self.take(who, lambda: False):
                pass  # woken for nothing
            yield
        finally:
            self.give_back(who)

    def take(self, who: object, is_served: Callable[[], bool]) -> bool:
        """Wait for the turn, unless somebody else's turn brings what the caller waits for.

        Args:
            who: asks; not None.
            is_served: whether it has come; asked whenever a turn ends, on that turn's thread.

        Returns:
            Whether the caller has the turn now; False when it is served.
        """
        waiter = _Waiter(who, is_served)
        with self._lock:
            if is_served():
                return False
            if self._holder is None:
                self._holder = who
                return True
            self._waiting.append(waiter)
        waiter.woken.wait()
        with self._lock:  # whoever has woken it is done
            return self._holder is who

    def try_take(self, who: object) -> bool:
        """Take the turn if nobody has it; return whether. Waits for nothing at all.

        So a finalizer may call it, which may run in the middle of any method here.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._holder is None:
                self._holder = who
            return self._holder is who
        finally:
            self._lock.release()

    def is_held_by(self, who: object) -> bool:
        """Return whether somebody has the turn."""
        return self._holder is who

    def give_back(self, who: object) -> None:
        """End somebody's turn, or its wait for one; nothing where it has neither.

        At the end of a turn whoever is served is woken, and the first who is not has the next one.
        """
        try:
            self._end(who)
        finally:
            if self._holder is who:  # Ctrl-C came in between
                self._end(who)

    def _end(self, who: object) -> None:
        with self._lock:
            self._waiting = [waiter for waiter in self._waiting if waiter.who is not who]
            if self._holder is not who:
                return
            following: object = None
            for waiter in self._waiting:
                is_served = waiter.is_served()
                if is_served or following is None:
                    waiter.woken.set()
                if not is_served and following is None:
                    following = waiter.who
            # Last, and at once: until then it can all be done again. Who is woken for nothing asks
            # again.
            self._holder = following
