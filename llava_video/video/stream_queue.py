"""Events of a stream on their way to a reader who may be slow: the oldest frame is dropped first.

Marks are kept, and what was dropped is told before the next frame. Any thread puts, any takes.
"""

import threading
from collections import deque
from collections.abc import Callable

from llava_video.video.stream_events import Mark, StreamFrame

StreamEvent = StreamFrame | Mark

# A reader that takes nothing for days must not make marks of a flickering connection pile up.
_MOST_MARKS = 1000


class StreamQueue:
    """Frames and marks in order.

    Args:
        most_frames: frames that wait, at the most.
        most_bytes: what their pictures may take; one always may.
        waits: whether whoever puts waits for room instead of dropping the oldest.
        on_event: called after each event, outside of the lock; wakes a reader of many streams.

    Attributes:
        num_dropped: frames that were dropped.
        num_delivered: frames that were taken out.
        num_lost_marks: marks that were dropped, for want of a reader.
    """

    def __init__(
        self,
        most_frames: int,
        most_bytes: int,
        *,
        waits: bool = False,
        on_event: Callable[[], None] | None = None,
    ) -> None:
        self._most_frames, self._most_bytes, self._waits = most_frames, most_bytes, waits
        self._on_event = on_event
        self._changed = threading.Condition()
        self._events: deque[StreamEvent] = deque()
        self._num_frames = self._num_bytes = self._num_marks = 0
        self._untold: tuple[int, float, float] | None = None
        self._is_closed = self._is_abandoned = False
        self.num_dropped = self.num_delivered = self.num_lost_marks = 0

    @property
    def depth(self) -> int:
        """Frames that wait."""
        return self._num_frames

    @property
    def is_over(self) -> bool:
        """Whether nothing waits and nothing will come."""
        with self._changed:
            return self._is_abandoned or (self._is_closed and not self._events)

    def put(self, event: StreamEvent) -> None:
        """Add an event; an abandoned queue takes none."""
        with self._changed:
            if isinstance(event, StreamFrame):
                self._make_room(event.picture.nbytes)
            if self._is_abandoned:
                return
            self._events.append(event)
            if isinstance(event, StreamFrame):
                self._num_frames += 1
                self._num_bytes += event.picture.nbytes
            else:
                self._num_marks += 1
                self._limit_marks()
            self._changed.notify_all()
        if self._on_event is not None:
            self._on_event()

    def count_dropped(self, num_frames: int, wall_s: float, pts_s: float) -> None:
        """Count frames that were dropped on their way here, and tell of it in their place."""
        with self._changed:
            self.num_dropped += num_frames
        self.put(_dropped(num_frames, wall_s, pts_s))

    def take(self, timeout_s: float | None) -> StreamEvent | None:
        """Return the next event; None when none comes in time, or none will.

        Args:
            timeout_s: None waits until there is one or will be none.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._is_over_now(), timeout_s)
            if not self._events:
                return None
            first = self._events[0]
            if self._untold is not None and isinstance(first, StreamFrame):
                return self._told()
            self._events.popleft()
            if isinstance(first, StreamFrame):
                self._forget(first)
                self.num_delivered += 1
                self._changed.notify_all()
            else:
                self._num_marks -= 1
            return first

    def close(self) -> None:
        """Say that nothing more comes; what waits can still be taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._on_event is not None:
            self._on_event()

    def abandon(self) -> None:
        """Say that nobody takes any more: what waits is let go, and whoever waits goes on."""
        with self._changed:
            self._is_closed = self._is_abandoned = True
            self._events.clear()
            self._num_frames = self._num_bytes = self._num_marks = 0
            self._changed.notify_all()

    def _is_over_now(self) -> bool:
        return self._is_closed or self._is_abandoned

    def _make_room(self, num_bytes: int) -> None:
        if self._waits:
            self._changed.wait_for(lambda: self._is_abandoned or self._has_room(num_bytes))
        while not self._is_abandoned and not self._has_room(num_bytes):
            self._drop_oldest()

    def _has_room(self, num_bytes: int) -> bool:
        if self._num_frames == 0:
            return True
        return (
            self._num_frames < self._most_frames and self._num_bytes + num_bytes <= self._most_bytes
        )

    def _drop_oldest(self) -> None:
        oldest = next(event for event in self._events if isinstance(event, StreamFrame))
        self._events.remove(oldest)
        self._forget(oldest)
        self.num_dropped += 1
        num_before = self._untold[0] if self._untold else 0
        self._untold = (num_before + 1, oldest.wall_s, oldest.pts_s)

    def _forget(self, frame: StreamFrame) -> None:
        self._num_frames -= 1
        self._num_bytes -= frame.picture.nbytes

    def _told(self) -> Mark:
        assert self._untold is not None
        untold, self._untold = self._untold, None
        return _dropped(*untold)

    def _limit_marks(self) -> None:
        if self._num_marks <= _MOST_MARKS:
            return
        oldest = next(event for event in self._events if isinstance(event, Mark))
        self._events.remove(oldest)
        self._num_marks -= 1
        self.num_lost_marks += 1


def _dropped(num_frames: int, wall_s: float, pts_s: float) -> Mark:
    text = f"{num_frames} pictures were dropped: nobody took them in time."
    return Mark(kind="dropped", wall_s=wall_s, pts_s=pts_s, text=text, num_frames=num_frames)
