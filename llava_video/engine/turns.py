"""Callers on several threads → one of them at a time has the turn to work for all.

A plain lock is unfair: whoever lets go of it has it again before a thread that waits wakes up. With
one, a caller whose answer was ready waited for as long as the others had work, and an engine that
could have taken eight requests a step took two. Knows no request.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class _Waiter:
    who: object
    is_served: Callable[[], bool]
    has_turn: bool = False
    woken: threading.Event = field(default_factory=threading.Event)


class Turns:
    """One turn, which is passed on in the order of asking; any thread may use it.

    Whoever asks gives back in a `finally` around the asking itself: it may be interrupted at any
    moment, and what it does not have is not taken from anybody.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held for moments, never during a turn
        self._holder: object = None
        self._waiting: deque[_Waiter] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn, and have it for a while."""
        who = object()
        try:
            self.take(who, lambda: False)
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
        with self._lock:
            if is_served():
                return False
            if self._holder is None:
                self._holder = who
                return True
            waiter = _Waiter(who, is_served)
            self._waiting.append(waiter)
        waiter.woken.wait()
        return waiter.has_turn

    def try_take(self, who: object) -> bool:
        """Take the turn if nobody has it; return whether."""
        with self._lock:
            if self._holder is None:
                self._holder = who
            return self._holder is who

    def give_back(self, who: object) -> None:
        """End somebody's turn, or its wait for one; nothing where it has neither.

        At the end of a turn whoever is served is woken, and the first who is not has the next one.
        """
        with self._lock:
            waiting = [waiter for waiter in self._waiting if waiter.who is not who]
            self._waiting = deque(waiting)
            if self._holder is not who:
                return
            self._holder = None
            for waiter in waiting:
                if waiter.is_served():
                    self._waiting.remove(waiter)
                    waiter.woken.set()
            if self._waiting:
                first = self._waiting.popleft()
                self._holder, first.has_turn = first.who, True
                first.woken.set()
