"""Tasks that several threads work on at once → their items, in the order of the tasks.

Like `map` over threads, but a task gives its items one by one, and what is held is bounded: a
thread that is ahead of the consumer waits. Knows no video, and any work will do.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Work = Callable[[T], Iterator[R]]


def in_order(
    tasks: Sequence[T],
    workers: Sequence[AbstractContextManager[Work[T, R]]],
    *,
    max_items: int,
) -> Generator[R]:
    """Yield the items of every task, tasks in order, while the workers go on with the next ones.

    The threads begin with the first item that is asked for, and have ended when the generator ends
    or is closed.

    Args:
        tasks: taken by whichever worker is free, in order.
        workers: a thread each; entered and left in its thread. What it gives turns a task into
            items.
        max_items: most items held before they are taken, of all tasks together; the task whose
            turn it is may always hold one.

    Raises:
        BaseException: what a worker raised, after the items before it.
    """
    crew: _Crew[T, R] = _Crew(tasks, max_items)
    threads = [
        threading.Thread(target=crew.run, args=(worker,), name="llava-video decoding", daemon=True)
        for worker in workers[: len(tasks)]
    ]
    try:
        for thread in threads:
            thread.start()
        yield from crew.items()
    finally:
        crew.stop()
        # The garbage collector may close a forgotten generator in one of the threads, which then
        # may hold what another one waits for.
        if threading.current_thread() not in threads:
            for thread in threads:
                if thread.ident is not None:
                    thread.join()


class _Crew(Generic[T, R]):
    """What the threads share: which task is next, whose turn it is, and what has come out."""

    def __init__(self, tasks: Sequence[T], max_items: int) -> None:
        self._tasks, self._max_items = tasks, max_items
        self._changed = threading.Condition()
        self._held: list[deque[R]] = [deque() for _ in tasks]
        self._has_ended = [False] * len(tasks)
        self._num_held = self._num_taken = self._turn = 0
        # By the task that failed; where a worker never got to one, by the next that nobody took.
        self._errors: dict[int, BaseException] = {}
        self._is_stopped = False

    def run(self, worker: AbstractContextManager[Work[T, R]]) -> None:
        """Work on tasks until there are none, one fails, or nobody wants more."""
        idx: int | None = None
        try:
            with worker as work:
                while (idx := self._take()) is not None:
                    self._work(idx, work)
        except BaseException as error:  # noqa: BLE001 - it travels to the consumer
            self._fail(idx, error)

    def items(self) -> Iterator[R]:
        """Yield what comes out, in order."""
        for idx in range(len(self._tasks)):
            with self._changed:
                self._turn = idx
                self._changed.notify_all()
            while self._wait_for_item(idx):
                yield self._next(idx)

    def stop(self) -> None:
        """Let every thread end as soon as it gives its next item."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _take(self) -> int | None:
        with self._changed:
            if self._is_stopped or self._errors or self._num_taken == len(self._tasks):
                return None
            self._num_taken += 1
            return self._num_taken - 1

    def _work(self, idx: int, work: Work[T, R]) -> None:
        items = work(self._tasks[idx])
        try:
            for item in items:
                if not self._put(idx, item):
                    break
        finally:
            getattr(items, "close", lambda: None)()
        with self._changed:
            self._has_ended[idx] = True
            self._changed.notify_all()

    def _put(self, idx: int, item: R) -> bool:
        """Wait for room and hold an item; return whether more are wanted."""

        def has_room() -> bool:
            is_its_turn = idx == self._turn and not self._held[idx]
            return self._is_stopped or is_its_turn or self._num_held < self._max_items

        with self._changed:
            self._changed.wait_for(has_room)
            if not self._is_stopped:
                self._held[idx].append(item)
                self._num_held += 1
                self._changed.notify_all()
            return not self._is_stopped

    def _fail(self, idx: int | None, error: BaseException) -> None:
        with self._changed:
            self._errors.setdefault(self._num_taken if idx is None else idx, error)
            self._changed.notify_all()

    def _wait_for_item(self, idx: int) -> bool:
        """Wait until a task has given or ended; return whether it has one more item.

        Raises:
            BaseException: what its worker raised.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._held[idx] or self._has_ended[idx] or idx in self._errors
            )
            if not self._held[idx] and not self._has_ended[idx]:
                raise self._errors[idx]
            return bool(self._held[idx])

    def _next(self, idx: int) -> R:
        with self._changed:
            self._num_held -= 1
            self._changed.notify_all()
            return self._held[idx].popleft()
