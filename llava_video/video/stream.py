"""A camera, or a recording in its place → its frames and marks, for ever, in bounded memory.

    with open_stream("rtsp://me:secret@10.0.0.7/ch1", StreamSettings(fps=2)) as stream:
        for event in stream:
            ...  # a StreamFrame, or a Mark

A thread and a process of its own read each stream, so that a slow reader loses the oldest frames
and nothing else, and a hanging camera hangs nobody. Knows no window and no question.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Self

from llava_video.backends import require
from llava_video.errors import LlavaVideoError
from llava_video.video.settings import StreamSettings
from llava_video.video.stream_address import stream_address
from llava_video.video.stream_events import StreamStatus
from llava_video.video.stream_process import StreamProcess
from llava_video.video.stream_queue import StreamEvent, StreamQueue
from llava_video.video.stream_reader import StreamReader

_JOIN_S = 5.0
_DEFAULT = StreamSettings()


class Stream:
    """A stream that is being read; `close` ends that, and so does leaving a `with` block.

    Args:
        address: see `open_stream`.
        settings: rate, patience, room.
        on_event: called from another thread after each event, and at the end.
        process: what reads; for tests.

    Raises:
        SourceError: the address is of an unknown kind, or names a file that is not there.
        BackendMissingError: without PyAV.
    """

    def __init__(
        self,
        address: str | os.PathLike[str],
        settings: StreamSettings,
        *,
        on_event: Callable[[], None] | None = None,
        process: StreamProcess | None = None,
    ) -> None:
        opened = stream_address(address, settings)
        if process is None:
            require("av")  # told here, not by a process that dies again and again
        self.name = opened.shown
        self._queue = StreamQueue(
            settings.queue_frames,
            settings.queue_bytes,
            waits=opened.kind == "file" and settings.pace == "fast",
            on_event=on_event,
        )
        self._reader = StreamReader(opened, settings, self._queue, process=process)
        self._thread = threading.Thread(target=self._reader.run, name=f"stream {self.name}")
        self._thread.daemon = True
        self._thread.start()

    @property
    def error(self) -> LlavaVideoError | None:
        """Why it ended; None while it goes on, and after an end that is no error."""
        return self._reader.error

    @property
    def is_over(self) -> bool:
        """Whether no event waits and none will come."""
        return self._queue.is_over

    def next(self, timeout_s: float | None = None) -> StreamEvent | None:
        """Return the next frame or mark.

        Args:
            timeout_s: how long to wait for it; None waits as long as any may come.

        Returns:
            None when none came in time, or none will come: `is_over` tells which.
        """
        return self._queue.take(timeout_s)

    def status(self) -> StreamStatus:
        """Say where the stream stands, without taking anything."""
        return self._reader.status()

    def begin_close(self) -> None:
        """Have reading end, and return at once."""
        self._reader.stop()

    def close(self) -> None:
        """End reading: the process is gone when this returns, and what waited is let go."""
        self.begin_close()
        self._thread.join(_JOIN_S)

    def __iter__(self) -> Iterator[StreamEvent]:
        """Yield events until the stream ends for good."""
        while (event := self.next()) is not None:
            yield event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def open_stream(address: str | os.PathLike[str], settings: StreamSettings = _DEFAULT) -> Stream:
    """Begin to read a stream; returns at once, whether or not it can be reached.

    Args:
        address: rtsp, rtsps, http or https (HLS, MJPEG, MPEG-TS), tcp or udp URL; "/dev/video0"; or
            a file. A password in it reaches nothing but its own host.
        settings: rate, patience, room.

    Raises:
        SourceError: the address is of an unknown kind, or names a file that is not there.
        BackendMissingError: without PyAV.
    """
    return Stream(address, settings)


class StreamGroup:
    """Several streams, each by a name; events come from all, nobody waits for a silent one.

    Args:
        streams: name -> (address, settings).

    Raises:
        SourceError: an address is of an unknown kind, or names a file that is not there.
    """

    def __init__(
        self, streams: Mapping[str, tuple[str | os.PathLike[str], StreamSettings]]
    ) -> None:
        self._bell = threading.Event()
        self.streams: dict[str, Stream] = {}
        self._turns: list[str] = []
        try:
            for name, (address, settings) in streams.items():
                self.streams[name] = Stream(address, settings, on_event=self._bell.set)
                self._turns.append(name)
        except BaseException:
            self.close()
            raise

    @property
    def is_over(self) -> bool:
        """Whether all of them are."""
        return all(stream.is_over for stream in self.streams.values())

    def next(self, timeout_s: float | None = None) -> tuple[str, StreamEvent] | None:
        """Return the next event and whose it is; each stream in turn where several have one.

        Args:
            timeout_s: how long to wait for it; None waits as long as any may come.
        """
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._bell.clear()  # before looking: what comes after that rings again
            for turn, name in enumerate(self._turns):
                event = self.streams[name].next(0)
                if event is not None:
                    self._turns = self._turns[turn + 1 :] + self._turns[: turn + 1]
                    return name, event
            left_s = None if until_s is None else until_s - time.monotonic()
            if self.is_over or (left_s is not None and left_s <= 0):
                return None
            self._bell.wait(left_s)

    def close(self) -> None:
        """End all of them, at the same time."""
        for stream in self.streams.values():
            stream.begin_close()
        for stream in self.streams.values():
            stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
