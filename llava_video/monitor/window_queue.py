"""Windows that wait for the model: bounded for each camera, the oldest dropped and never forgotten.

What is dropped keeps its place as a note without pictures, so that each window of a camera comes
out once, in its order. Cameras come in turn; a busy one takes no other's place.
"""

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from llava_video.monitor.feed import WindowJob

# Notes of dropped windows of one camera; above it the oldest are counted together.
_MOST_NOTES = 256
_NO_PICTURE = np.empty((0, 0, 3), np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A window, or the note that it was dropped.

    Attributes:
        job: the window; without pictures when it was dropped.
        num_dropped: windows that this note stands for; 0 for one that is to be judged.
    """

    job: WindowJob
    num_dropped: int = 0


@dataclass(slots=True)
class _Line:
    notes: deque[Waiting] = field(default_factory=deque)  # older than all that wait
    jobs: deque[WindowJob] = field(default_factory=deque)


class WindowQueue:
    """Pass windows from the cameras' thread to the model's.

    Args:
        cameras: their names.
        most: windows of one camera that may wait.
        waits: whether `put` waits for room instead, as for a recording that is read fast.

    Attributes:
        num_dropped: windows dropped, by camera.
    """

    def __init__(self, cameras: Iterable[str], most: int, *, waits: bool = False) -> None:
        self._lines = {name: _Line() for name in cameras}
        self._turns = deque(self._lines)
        self._most, self._waits = most, waits
        self._bell = threading.Condition()
        self._is_closed = False
        self.num_dropped = dict.fromkeys(self._lines, 0)

    def put(self, job: WindowJob) -> None:
        """Add a window; after `close` it is dropped."""
        with self._bell:
            line = self._lines[job.camera]
            while self._waits and len(line.jobs) >= self._most and not self._is_closed:
                self._bell.wait()
            if self._is_closed:
                self._drop(line, job)
            else:
                line.jobs.append(job)
                if len(line.jobs) > self._most:
                    self._drop(line, line.jobs.popleft())
            self._bell.notify_all()

    def take(self, timeout_s: float | None = None) -> Waiting | None:
        """Return the next window, or note.

        Args:
            timeout_s: how long to wait for one; None as long as any may come.

        Returns:
            None when none came in time, or none will come: `is_over` tells which.
        """
        with self._bell:
            self._bell.wait_for(lambda: self._is_closed or self._has_any(), timeout_s)
            for _ in range(len(self._turns)):
                line = self._lines[self._turns[0]]
                self._turns.rotate(-1)
                if line.notes:
                    return line.notes.popleft()
                if line.jobs:
                    job = line.jobs.popleft()
                    self._bell.notify_all()
                    return Waiting(job=job)
            return None

    def close(self, *, keeps: bool) -> None:
        """Let no more in.

        Args:
            keeps: whether what waits is still given out; otherwise it is dropped.
        """
        with self._bell:
            self._is_closed = True
            for line in self._lines.values():
                while line.jobs and not keeps:
                    self._drop(line, line.jobs.popleft())
            self._bell.notify_all()

    @property
    def is_over(self) -> bool:
        """Whether nothing waits and nothing will come."""
        with self._bell:
            return self._is_closed and not self._has_any()

    def depths(self) -> dict[str, int]:
        """Return how many windows wait, by camera."""
        with self._bell:
            return {name: len(line.jobs) for name, line in self._lines.items()}

    def _has_any(self) -> bool:
        return any(line.notes or line.jobs for line in self._lines.values())

    def _drop(self, line: _Line, job: WindowJob) -> None:
        self.num_dropped[job.camera] += 1
        bare = replace(job, pictures=(), frames=(), last=replace(job.last, picture=_NO_PICTURE))
        line.notes.append(Waiting(job=bare, num_dropped=1))
        if len(line.notes) > _MOST_NOTES:
            older, newer = line.notes.popleft(), line.notes.popleft()
            together = replace(newer.job, start_s=older.job.start_s)
            num = older.num_dropped + newer.num_dropped
            line.notes.appendleft(Waiting(job=together, num_dropped=num))
