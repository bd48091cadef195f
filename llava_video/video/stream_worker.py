"""The program that reads one stream: orders in, pictures and facts out, until the line closes.

Started by `stream_process.py` as a process of its own: whatever FFmpeg does there, hang, crash or
write to its log, stays there. Pictures go into memory it shares with its parent. It never waits for
its parent where a stream is live; a picture that finds no room is counted. Knows no waits and no
queue.
"""

import contextlib
import gc
import mmap
import os
import signal
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llava_video.config import from_mapping
from llava_video.video.sandbox_channel import Channel, Message, end_with
from llava_video.video.settings import StreamSettings
from llava_video.video.stream_address import StreamAddress
from llava_video.video.stream_clock import Placed, StreamClock
from llava_video.video.stream_connection import Connection, Remembered, StreamFaultError
from llava_video.video.stream_rate import RateSampler

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Picture = npt.NDArray[np.uint8]

_PULSE_S = 0.25
# The longest sleep of a recording that is read at its own speed: orders are looked for after it.
_NAP_S = 0.05
_RING_TIMEOUT_S = 10.0
# The parent copies a picture as soon as it runs: longer than this, and something is wrong with it.
_ROOM_S = 1.0


def main(words: Mapping[str, Any]) -> None:
    """Serve one parent.

    Args:
        words: "line" and "lifeline", descriptors.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(int(words["lifeline"]))
    channel = Channel(socket.socket(fileno=int(words["line"])), takes_descriptors=True)
    channel.send({"is": "ready"})
    remembered, last = Remembered(), None
    with contextlib.suppress(EOFError, OSError):
        while True:
            message = channel.receive()
            if message is not None and message.values.get("do") == "open":
                last = serve(channel, message, remembered, last)


def serve(
    channel: Channel, message: Message, remembered: Remembered, last: Picture | None = None
) -> Picture | None:
    """Open what an order names, and send what comes until it is over.

    Args:
        channel: to the parent.
        message: the order.
        remembered: of earlier connections.
        last: the last picture sent of these, (H, W, 3) uint8: one that is frozen stays frozen.

    Returns:
        The last picture sent by now.

    Raises:
        EOFError, OSError: the parent has gone.
    """
    settings = from_mapping(StreamSettings, message.values["settings"])
    address = StreamAddress(**message.values["address"])
    try:
        connection = Connection(address, settings, remembered)
    except StreamFaultError as error:
        kind, text = error.fault
        channel.send({"is": "ended", "why": kind, "text": text, "was_open": False})
        return last
    visit = _Visit(channel, address, settings, connection, last)
    try:
        visit.run()
        return visit.last
    finally:
        visit.close()


class _Visit:
    """One connection, from its first picture to its end."""

    def __init__(
        self,
        channel: Channel,
        address: StreamAddress,
        settings: StreamSettings,
        connection: Connection,
        last: Picture | None,
    ) -> None:
        self._channel, self._settings, self._connection = channel, settings, connection
        self._is_file = address.kind == "file"
        self._waits = self._is_file and settings.pace == "fast"
        self._has_speed = self._is_file and settings.pace == "real"
        self._clock = StreamClock(
            gap_s=settings.gap_s,
            max_jump_s=settings.max_jump_s,
            late_s=settings.late_s,
            is_live=not self._is_file or settings.pace == "follow",
        )
        self._rate = RateSampler(settings.fps)
        self._slots: npt.NDArray[np.uint8] = np.empty((0, 0, 0, 3), dtype=np.uint8)
        self._ring: mmap.mmap | None = None
        self._num_free = self._next = self._num_unroomed = 0
        self.last = last
        self._odd: list[tuple[str, float]] = []
        self._begun_s = time.monotonic()
        self._pulse_s = 0.0
        self._is_wanted = True

    def run(self) -> None:
        """Send what comes, then say why it is over."""
        connection = self._connection
        self._channel.send(
            {
                "is": "opened",
                "codec": connection.codec,
                "recorded_at_s": connection.recorded_at_s,
                "duration_s": connection.duration_s,
                "is_playlist": connection.is_playlist,
            }
        )
        self._begun_s = time.monotonic()
        for picture in connection.pictures():
            self._hear()
            if picture is None:
                self._pulse("repeat")
                continue
            frame, raw_s = picture
            placed = self._clock.place(raw_s, time.monotonic())
            if placed.odd is not None:
                self._odd.append((placed.odd, placed.odd_s))
            if self._has_speed:
                self._sleep_until(self._begun_s + placed.pts_s)
            if not self._is_wanted:
                break
            if self._rate.takes(placed.pts_s):
                self._send(frame, placed)
            else:
                self._pulse()
        fault = connection.fault
        tally = connection.tally
        is_old = tally.repeated > 0 and not tally.decoded
        end = ("end", "it brings nothing new" if is_old else "it ended")
        why, text = end if fault is None else fault
        self._channel.send(
            {"is": "ended", "why": why, "text": text, "was_open": True, **self._counts()}
        )

    def close(self) -> None:
        """Let the connection and the shared memory go."""
        self._connection.close()
        gc.collect()  # PyAV's containers hold themselves: half a megabyte a connection
        self._slots = np.empty((0, 0, 0, 3), dtype=np.uint8)
        self._let_ring_go()

    def _send(self, frame: "VideoFrame", placed: Placed) -> None:
        now_s, wall_s = time.monotonic(), time.time()
        try:
            picture = self._connection.upright(frame)
        except ValueError:
            self._connection.tally.damaged += 1
            return
        if picture.shape != self._slots.shape[1:]:
            self._renew_ring(picture.shape[0], picture.shape[1])
        if not self._num_free:
            self._hear(None if self._waits else _ROOM_S)
        if not self._num_free or not self._is_wanted:
            self._num_unroomed += self._is_wanted
            return
        slot = self._next % len(self._slots)
        is_same = self.last is not None and np.array_equal(self.last, picture)
        np.copyto(self._slots[slot], picture)
        self.last = picture
        self._next, self._num_free = self._next + 1, self._num_free - 1
        odd, self._odd = self._odd, []
        self._channel.send(
            {
                "is": "frame",
                "slot": slot,
                "pts_s": placed.pts_s,
                "lag_s": placed.lag_s,
                "now_s": now_s,
                "wall_s": wall_s,
                "is_same": is_same,
                "odd": odd,
                **self._counts(),
            }
        )
        self._pulse_s = now_s

    def _pulse(self, kind: str = "pulse") -> None:
        """Tell the parent now and then that pictures come, though none is due, or none is new."""
        now_s = time.monotonic()
        if now_s - self._pulse_s >= _PULSE_S:
            self._pulse_s = now_s
            self._channel.send({"is": kind, **self._counts()})

    def _counts(self) -> dict[str, int]:
        tally = self._connection.tally
        return {
            "decoded": tally.decoded,
            "damaged": tally.damaged,
            "repeated": tally.repeated,
            "unroomed": self._num_unroomed,
        }

    def _hear(self, timeout_s: float | None = 0) -> None:
        """Take the parent's orders; where there is no room, wait for one that gives some."""
        while self._is_wanted:
            message = self._channel.receive(0 if self._num_free else timeout_s)
            if message is None:
                return
            order = message.values.get("do")
            if order == "free":
                self._num_free += 1
            elif order == "close":
                self._is_wanted = False
            elif order == "ring":
                self._take_ring(message)

    def _renew_ring(self, height_px: int, width_px: int) -> None:
        """Ask the parent for memory that fits; slots that are under way are the parent's still."""
        self._slots = np.empty((0, 0, 0, 3), dtype=np.uint8)
        self._num_free = 0
        self._channel.send({"is": "size", "height_px": height_px, "width_px": width_px})
        until_s = time.monotonic() + _RING_TIMEOUT_S
        while not len(self._slots) and self._is_wanted and time.monotonic() < until_s:
            message = self._channel.receive(_NAP_S)
            if message is None:
                continue
            # What frees a slot of the old ring comes before the new one.
            if message.values.get("do") == "ring":
                self._take_ring(message)
            elif message.values.get("do") == "close":
                self._is_wanted = False

    def _take_ring(self, message: Message) -> None:
        shape = tuple(message.values["shape"])
        (descriptor,) = message.descriptors
        self._let_ring_go()
        try:
            self._ring = mmap.mmap(descriptor, int(np.prod(shape)))
        finally:
            os.close(descriptor)
        self._slots = np.frombuffer(self._ring, dtype=np.uint8).reshape(shape)
        self._num_free, self._next = shape[0], 0

    def _let_ring_go(self) -> None:
        if self._ring is not None:
            with contextlib.suppress(BufferError):
                self._ring.close()
            self._ring = None

    def _sleep_until(self, until_s: float) -> None:
        """Wait for a recording's next picture, with signs of life: it may take an hour."""
        while self._is_wanted and (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _NAP_S))
            self._pulse()
            self._hear()
