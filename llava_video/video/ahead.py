"""Clips as a decoder gives them → the same clips, read ahead by a thread of their own.

While the model works on one clip the next ones are decoded; decoders and the model let other
threads run meanwhile. At most `max_items` are held, the one being decoded among them. Knows no
decoder, and any iterator will do.
"""

import threading
from collections import deque
from collections.abc import Generator, Iterator
from typing import Final, Generic, TypeVar

T = TypeVar("T")

# One that is ready and one being decoded: a third would only take memory.
MAX_CLIPS: Final = 2


def read_ahead(source: Iterator[T], max_items: int = MAX_CLIPS) -> Generator[T]:
    """Yield what an iterator gives, in order, while a thread asks it for the next ones.

    The thread begins with the first item that is asked for. It ends, and the source is closed in
    it, when the source ends or raises, and when the generator is closed; `close` waits for what
    the source is doing at that moment, so nobody reads from it afterwards.

    Args:
        source: used by no one else from now on.
        max_items: most items held before they are taken, at least 1.

    Raises:
        BaseException: whatever the source raised, after the items before it.
    """
    reader = _Reader(source, max_items)
    reader.start()
    try:
        while reader.has_next():
            yield reader.take()  # bound to no name: the consumer's alone from here on
    finally:
        reader.stop()


class _Reader(threading.Thread, Generic[T]):
    """The thread, and what it has read."""

    def __init__(self, source: Iterator[T], max_items: int) -> None:
        # A daemon: an iterator that was never closed must not keep the program from ending.
        super().__init__(name="llava-video read ahead", daemon=True)
        self._source = source
        self._max_items = max_items
        self._changed = threading.Condition()
        self._items: deque[T] = deque()
        self._error: BaseException | None = None
        self._has_ended = self._is_stopped = False

    def run(self) -> None:
        """Read until the source ends, raises, or nobody wants more; then close it."""
        error: BaseException | None = None
        try:
            while self._wait_for_room() and self._read_one():
                pass
        except BaseException as raised:  # noqa: BLE001 - it travels to the consumer
            error = raised
        try:
            getattr(self._source, "close", lambda: None)()
        except BaseException as raised:  # noqa: BLE001 - as above
            error = error or raised
        with self._changed:
            self._error, self._has_ended = error, True
            self._changed.notify_all()

    def has_next(self) -> bool:
        """Wait for the next item; return whether there is one.

        Raises:
            BaseException: what the source raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._has_ended)
            if not self._items:
                self._raise()
            return bool(self._items)

    def take(self) -> T:
        """Return the next item, which is there."""
        with self._changed:
            self._changed.notify_all()
            return self._items.popleft()

    def stop(self) -> None:
        """End the thread and wait for it.

        Raises:
            BaseException: what the source raised, if nobody was told yet.
        """
        with self._changed:
            self._is_stopped = True
            self._items.clear()
            self._changed.notify_all()
        # The garbage collector may close a forgotten generator in any thread, this one included.
        if threading.current_thread() is not self:
            self.join()
            self._raise()

    def _wait_for_room(self) -> bool:
        """Wait until one more may be held; return whether it is still wanted."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or len(self._items) < self._max_items)
            return not self._is_stopped

    def _read_one(self) -> bool:
        for item in self._source:
            with self._changed:
                if not self._is_stopped:
                    self._items.append(item)
                    self._changed.notify_all()
            return True
        return False

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error
