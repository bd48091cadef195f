"""The process that reads a stream as its parent sees it: told what to open, asked for what came.

Pictures are copied out of shared memory as they come, so that the process always has room. A
process that died is told as the end of its connection, and the next order starts another one.
Knows no waits, no queue and no clock.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from llava_video.config import to_mapping
from llava_video.video.program import Program
from llava_video.video.sandbox_channel import BrokenMessageError
from llava_video.video.sandbox_memory import FrameRing
from llava_video.video.sandbox_process import last_words
from llava_video.video.settings import StreamSettings
from llava_video.video.stream_address import StreamAddress

# What reading a message raises that does not keep to the form.
_NONSENSE = (KeyError, TypeError, ValueError, IndexError)
_SLOTS = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class News:
    """What the process says.

    Attributes:
        kind: "ready", "opened", "pulse", "repeat", "frame" or "ended"; what the message says
            besides is in `values`.
        picture: (H, W, 3) uint8, of a "frame".
        values: plain values.
    """

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)
    picture: npt.NDArray[np.uint8] | None = field(default=None, repr=False)


class StreamProcess:
    """Reads one stream, one connection after the other; at most one process at any time.

    Args:
        module: whose `main` the process runs.
    """

    def __init__(self, module: str = "llava_video.video.stream_worker") -> None:
        self._module = module
        self._program: Program | None = None
        self._ring: FrameRing | None = None
        self._max_side_px = 0

    @property
    def pid(self) -> int | None:
        """The process, or None while there is none."""
        return None if self._program is None else self._program.pid

    def open(self, address: StreamAddress, settings: StreamSettings) -> None:
        """Have the process open a stream; a new one where there is none, or it died.

        Raises:
            CapacityError, BackendMissingError: no process can be started.
        """
        if self._program is None or not self._program.is_alive:
            self.kill()
            self._program = Program(self._module, {})
        self._max_side_px = settings.max_side_px
        order = {"do": "open", "address": asdict(address), "settings": to_mapping(settings)}
        self._program.send(order, timeout_s=settings.open_timeout_s)

    def receive(self, timeout_s: float) -> News | None:
        """Return what the process says next; None when it says nothing in time.

        A process that died, or talks nonsense, is gone by then, and told as "ended".
        """
        program = self._program
        if program is None:
            return _ended("the process that reads it is not there")
        try:
            message = program.receive(timeout_s)
            if message is None:
                return None
            kind = str(message.values["is"])
            if kind == "size":
                self._send_ring(program, message.values)
                return News(kind="pulse")
            picture = self._taken(program, message.values) if kind == "frame" else None
            return News(kind=kind, values=message.values, picture=picture)
        except EOFError:
            found = last_words(program.reap())
        except BrokenMessageError as cause:
            found = f"the process that reads it sent {cause}"
        except _NONSENSE:
            found = "what the process that reads it says makes no sense"
        self.kill()
        return _ended(found)

    def close(self, grace_s: float, hear: Callable[[News], None] | None = None) -> None:
        """End the connection in good order where the process hears in time; end the process.

        A camera that is not told waits for a minute, mostly, before it lets another in.

        Args:
            grace_s: how long to wait.
            hear: given what still comes; None drops it.
        """
        if self._program is not None and self._program.is_alive:
            self._program.send({"do": "close"}, timeout_s=grace_s)
            until_s = time.monotonic() + grace_s
            while (left_s := until_s - time.monotonic()) > 0:
                news = self.receive(left_s)
                if news is None or news.kind == "ended":
                    break
                if hear is not None:
                    hear(news)
        self.kill()

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        program, self._program = self._program, None
        if program is not None:
            program.kill()
        ring, self._ring = self._ring, None
        if ring is not None:
            ring.close()

    def _send_ring(self, program: Program, values: Mapping[str, Any]) -> None:
        height_px, width_px = int(values["height_px"]), int(values["width_px"])
        if not 0 < min(height_px, width_px) <= max(height_px, width_px) <= self._max_side_px:
            raise ValueError("a picture of a size that was not asked for")
        if self._ring is not None:
            self._ring.close()
        ring = self._ring = FrameRing(height_px, width_px, _SLOTS)
        order = {"do": "ring", "shape": [ring.num_slots, *ring.shape]}
        try:
            program.send(order, descriptors=[ring.descriptor])
        finally:
            ring.sent()

    def _taken(self, program: Program, values: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
        if self._ring is None:
            raise ValueError("a picture without memory")
        picture: npt.NDArray[np.uint8] = self._ring.slots[int(values["slot"])].copy()
        program.send({"do": "free"})
        return picture


def _ended(found: str) -> News:
    return News(kind="ended", values={"why": "cut", "text": found, "was_open": True, "died": True})
