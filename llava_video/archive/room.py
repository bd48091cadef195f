"""An engine → the same engine, for as many videos at once as their decoded frames have room.

Frames are decoded ahead of the model. How many videos may do so is a question of bytes: four of 8K
take what a hundred of 360p do. Counts, beside that, how much of the time the engine had something
to do. Knows no video and no row.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Final

from llava_video.engine.request import (
    Engine,
    Event,
    Failed,
    Finished,
    FusedPart,
    Request,
    VisualPart,
)
from llava_video.errors import CapacityError
from llava_video.video.ahead import MAX_CLIPS

# What a decoder gives at once, and what the decoder itself holds beside: pictures of references
# and of threads.
_CLIP_FRAMES: Final = 8
_DECODER_FRAMES: Final = 16


def request_bytes(request: Request) -> int:
    """Return the bytes of decoded frames that a request holds at most, RGB."""
    return sum(_part_bytes(part) for part in request.parts)


def _part_bytes(part: object) -> int:
    visual = part.visual if isinstance(part, FusedPart) else part
    if not isinstance(visual, VisualPart):
        return 0
    plan = visual.plan
    most_frames = (MAX_CLIPS + 1) * _CLIP_FRAMES + _DECODER_FRAMES
    return min(plan.num_frames, most_frames) * plan.height_px * plan.width_px * 3


class Room:
    """Bytes that may be held, and who holds them; any thread may ask.

    Args:
        limit_bytes: in all.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._changed = threading.Condition()
        self.held_bytes = 0
        self.most_bytes = 0

    def has(self, num_bytes: int) -> bool:
        """Say whether there is room now; what is larger than all of it has it when alone."""
        return self.held_bytes == 0 or self.held_bytes + num_bytes <= self._limit_bytes

    def take(self, num_bytes: int, *, may_wait: bool) -> None:
        """Take room, waiting for it where that is allowed."""
        with self._changed:
            if may_wait:
                self._changed.wait_for(lambda: self.has(num_bytes))
            self.held_bytes += num_bytes
            self.most_bytes = max(self.most_bytes, self.held_bytes)

    def give_back(self, num_bytes: int) -> None:
        """Give room back."""
        with self._changed:
            self.held_bytes -= num_bytes
            self._changed.notify_all()


class BusyTime:
    """How long somebody was at work since it was made; any thread may tell."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began_s = self._since_s = time.monotonic()
        self._num_working = 0
        self._worked_s = 0.0

    def change(self, more: int) -> None:
        """Note that so many more, or fewer, are at work."""
        with self._lock:
            now_s = time.monotonic()
            if self._num_working:
                self._worked_s += now_s - self._since_s
            self._since_s = now_s
            self._num_working += more

    @property
    def share(self) -> float:
        """Time with somebody at work over all time, 0..1."""
        self.change(0)
        return self._worked_s / max(self._since_s - self._began_s, 1e-9)


class RoomyEngine:
    """An engine that is given a request only when its frames have room; an `Engine`.

    The first request of a `run` waits for room. Further ones do not, since whoever waits for them
    would not take the answers of those before: a run ends without them, and who batches draws them
    in another one.

    Args:
        engine: answers.
        room: shared by everybody who runs.
    """

    def __init__(self, engine: Engine, room: Room) -> None:
        self._engine, self.room = engine, room
        self.busy = BusyTime()
        self._is_stopped = False

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        """Answer requests, as many as there is room for, but at least one.

        Raises:
            CapacityError: it was stopped.
        """
        held: dict[int, int] = {}

        def admitted() -> Iterator[Request]:
            for request in requests:
                num_bytes = request_bytes(request)
                self.room.take(num_bytes, may_wait=not held)
                held[request.request_id] = num_bytes
                self.busy.change(1)
                yield request
                if not self.room.has(num_bytes):
                    return

        try:
            for event in self._engine.run(admitted()):
                if self._is_stopped:
                    raise CapacityError("the run was stopped.", "start it again to go on.")
                if isinstance(event, Finished | Failed):
                    self._let_go(held.pop(event.request_id))
                yield event
        finally:
            for num_bytes in held.values():
                self._let_go(num_bytes)

    def stop(self) -> None:
        """Let everybody's runs end with their next event; the engine within is its owner's."""
        self._is_stopped = True

    def _let_go(self, num_bytes: int) -> None:
        self.room.give_back(num_bytes)
        self.busy.change(-1)
