"""Callers on several threads → one of them at a time has the turn to work for all.

A plain lock is unfair: whoever lets go of it has it again before a thread that waits wakes up. With
one, a caller whose answer was ready waited for as long as the others had work, and an engine that
could have taken eight requests a step took two. Knows no request.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Waiter:
    def __init__(self, is_served: Callable[[], bool]) -> None:
        self.is_served = is_served
        self.has_turn = False
        self.woken = threading.Event()


class Turns:
    """One turn, which is passed on in the order of asking; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held for moments, never during a turn
        self._is_taken = False
        self._waiting: deque[_Waiter] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn, and have it for a while."""
        self.take(lambda: False)
        try:
            yield
        finally:
            self.give_back()

    def take(self, is_served: Callable[[], bool]) -> bool:
        """Wait for the turn, unless somebody else's turn brings what the caller waits for.

        Args:
            is_served: whether it has come; asked whenever a turn ends, on that turn's thread.

        Returns:
            Whether the caller has the turn now, and must give it back; False when it is served.
        """
        with self._lock:
            if is_served():
                return False
            if not self._is_taken:
                self._is_taken = True
                return True
            waiter = _Waiter(is_served)
            self._waiting.append(waiter)
        try:
            waiter.woken.wait()
        except BaseException:  # Ctrl-C: whoever leaves takes no turn with it
            self._leave(waiter)
            raise
        return waiter.has_turn

    def try_take(self) -> bool:
        """Take the turn if nobody has it; return whether."""
        with self._lock:
            was_taken, self._is_taken = self._is_taken, True
        return not was_taken

    def give_back(self) -> None:
        """End the turn: wake whoever is served, and pass it to the first who is not."""
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
            for waiter in waiting:
                if waiter.is_served():
                    waiter.woken.set()
                else:
                    self._waiting.append(waiter)
            self._is_taken = bool(self._waiting)
            if self._waiting:
                first = self._waiting.popleft()
                first.has_turn = True
                first.woken.set()

    def _leave(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        if waiter.has_turn:
            self.give_back()
