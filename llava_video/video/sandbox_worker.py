"""The program of a sandbox's worker: messages in, facts and frames out, until the line closes.

Started by `sandbox_process.py` as a program of its own, so that neither the user's script nor torch
nor a model is ever loaded here. Opens what it is told to with the function it is told to, counts
what that reads, and writes frames into memory it shares with its parent. Knows no pool.
"""

import contextlib
import dataclasses
import functools
import importlib
import logging
import mmap
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llava_video import backends
from llava_video.config import from_mapping
from llava_video.errors import DecodeError, LlavaVideoError
from llava_video.values import VideoInfo
from llava_video.video.ahead import read_ahead
from llava_video.video.container import (
    limit_pixels,
    open_container,
    prepare_containers,
    watch_packets,
)
from llava_video.video.decoder import Decoder
from llava_video.video.probe import TrackInfo
from llava_video.video.sandbox_channel import (
    Channel,
    Message,
    end_with,
    pack_error,
    pack_info,
    unpack_info,
)
from llava_video.video.sandbox_memory import is_short_of_memory, status_bytes
from llava_video.video.settings import SandboxSettings, more_of
from llava_video.video.source import Source

_PULSE_S = 0.5
_MOST_LOG_LINES = 100


def main(words: Mapping[str, Any]) -> None:
    """Serve one parent.

    Args:
        words: "line" and "lifeline", descriptors; "settings", the limits; "opener", which function
            opens a source, "module:function".
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(int(words["lifeline"]))
    line = socket.socket(fileno=int(words["line"]))
    channel = Channel(line, takes_descriptors=True)
    settings = from_mapping(SandboxSettings, words["settings"])
    module, _, function = str(words["opener"]).partition(":")
    try:
        opener = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as cause:
        channel.send({"is": "error", "message": f"{type(cause).__name__}: {cause}"})
        return
    with contextlib.suppress(LlavaVideoError):
        backends.require("av")  # before memory is counted
    worker = _Worker(channel, settings, opener)
    channel.send({"is": "ready"})
    with contextlib.suppress(EOFError):
        while True:
            message = channel.receive()
            if message is not None:
                worker.obey(message)


class _Walk:
    """Counts the packets that are read, tells the parent that things move, and ends a long walk."""

    def __init__(self, channel: Channel, max_frames: int) -> None:
        self._channel, self._max_frames = channel, max_frames
        self._lock = threading.Lock()
        self._pulse_s = 0.0
        self._is_decoding, self._num_frames, self._name = False, 0, ""
        watch_packets(self.step)

    def begin(self, name: str, *, is_decoding: bool) -> None:
        """Start counting; a probe reads packets and decodes none of them."""
        self._is_decoding, self._num_frames, self._name = is_decoding, 0, name

    def step(self) -> None:
        """Take one packet for one frame.

        Raises:
            DecodeError: more than the limit.
        """
        with self._lock:
            self._num_frames += 1
            now_s = time.monotonic()
            is_due = now_s - self._pulse_s >= _PULSE_S
            self._pulse_s = now_s if is_due else self._pulse_s
        if self._is_decoding:
            self.check(self._num_frames)
        if is_due:
            self._channel.send({"is": "pulse"})

    def check(self, num_frames: int) -> None:
        """Raise `DecodeError` when so many frames are over the limit."""
        if num_frames > self._max_frames:
            raise DecodeError(
                f"{self._name}: more than {self._max_frames:,} frames would have to be decoded for "
                "those asked for (max_walked_frames).",
                f"ask for a shorter span; {more_of('max_walked_frames')}.",
            )


class _LogLines(logging.Handler):
    """What the library logs here is logged by the parent."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(logging.WARNING)
        self._channel, self.num_left = channel, _MOST_LOG_LINES

    def emit(self, record: logging.LogRecord) -> None:
        if self.num_left > 0:
            self.num_left -= 1
            words = {"logger": record.name, "level": record.levelno, "text": record.getMessage()}
            self._channel.send({"is": "log", **words})


class _Worker:
    """One video at a time."""

    def __init__(
        self, channel: Channel, settings: SandboxSettings, opener: Callable[..., Decoder]
    ) -> None:
        self._channel, self._settings, self._opener = channel, settings, opener
        self._walk = _Walk(channel, settings.max_walked_frames)
        prepare_containers(functools.partial(limit_pixels, settings.max_pixels))
        self._lines = _LogLines(channel)
        logging.getLogger("llava_video").addHandler(self._lines)
        logging.getLogger("llava_video").propagate = False
        self._decoder: Decoder | None = None
        self._name = ""
        self._descriptors: list[int] = []
        self._ring: mmap.mmap | None = None
        self._base_bytes = status_bytes("VmSize")
        self._most_bytes = self._base_bytes + settings.max_memory_bytes
        _limit_memory(self._most_bytes)

    def obey(self, message: Message) -> None:
        """Do what a message says and answer it; errors are answers."""
        orders: dict[str, Callable[[Message], None]] = {
            "open": self._open,
            "read": self._read,
            "close": self._close,
        }
        order = orders.get(message.values["do"])
        if order is None:  # "free" and "stop" that crossed with the end of a reading
            return
        try:
            order(message)
        except LlavaVideoError as error:
            self._answer_error(pack_error(error))
        except MemoryError:
            self._answer_error({"is_memory": True})
        except EOFError:
            raise
        except Exception as error:  # noqa: BLE001 - the border of the process
            what = "".join(traceback.format_exception(error))[-4000:]
            found = f"{type(error).__name__}: {error}"
            self._answer_error({"error": "", "message": found, "traceback": what})

    def _answer_error(self, values: dict[str, Any]) -> None:
        was_short = values.pop("is_memory", False) or self._was_short_of_memory()
        self._channel.send({"is": "error", "was_short": was_short, **values})

    def _open(self, message: Message) -> None:
        values = message.values
        self._name, self._lines.num_left = values["name"], _MOST_LOG_LINES
        self._descriptors = message.descriptors
        path = f"/proc/self/fd/{message.descriptors[0]}" if message.descriptors else values["path"]
        source = Source(kind="path", name=self._name, path=Path(path))
        info = unpack_info(values["info"], message.arrays) if values["info"] else None
        self._walk.begin(self._name, is_decoding=False)
        if info is None:
            self._refuse_large(_declared_size(source))
        self._decoder = self._opener(source, backend=values["backend"], info=info)
        opened = self._decoder.info
        self._refuse_large((opened.height_px, opened.width_px))
        facts, arrays = pack_info(_track(opened))
        answer = {"is": "opened", "info": facts, **self._choice()}
        self._channel.send(answer, arrays)

    def _choice(self) -> dict[str, str]:
        if self._decoder is None:
            return {}
        return {"backend": self._decoder.backend, "reason": self._decoder.reason}

    def _refuse_large(self, size_px: tuple[int, int]) -> None:
        height_px, width_px = size_px
        if height_px * width_px > self._settings.max_pixels:
            raise DecodeError(
                f"{self._name}: its frames are {width_px} px wide and {height_px} px high, more "
                f"than {self._settings.max_pixels:,} pixels (max_pixels).",
                f"if the file is to be trusted: {more_of('max_pixels')}.",
            )

    def _read(self, message: Message) -> None:
        if self._decoder is None:
            raise DecodeError("nothing is open.")
        slots = self._shared_slots(message)
        times_s = message.arrays["times_s"]
        self._walk.begin(self._name, is_decoding=True)
        if self._decoder.backend != "pyav":  # the others read packets by themselves
            self._walk.check(least_walk(self._decoder.info, times_s))
        # One by one, and copied while the next one is decoded.
        clips = read_ahead(self._decoder.clips_at(times_s.tolist(), chunk_frames=1))
        num_sent, num_free = 0, len(slots)
        try:
            for clip in clips:
                num_free = self._wait_for_room(num_free)
                if num_free == 0:
                    break
                np.copyto(slots[num_sent % len(slots)], clip.frames[0], casting="no")
                self._channel.send({"is": "frame", "idx": int(clip.frame_idxs[0])})
                num_sent, num_free = num_sent + 1, num_free - 1
        finally:
            clips.close()
        was_short = num_sent < len(times_s) and self._was_short_of_memory()
        self._channel.send({"is": "end", "was_short": was_short, **self._choice()})

    def _wait_for_room(self, num_free: int) -> int:
        """Return how many slots are free, at least one; 0 when no more frames are wanted."""
        while True:
            order = self._channel.receive(0 if num_free else None)
            if order is None:
                return num_free
            if order.values["do"] == "stop":
                return 0
            num_free += 1

    def _shared_slots(self, message: Message) -> npt.NDArray[np.uint8]:
        shape = tuple(message.values["shape"])
        (descriptor,) = message.descriptors
        self._ring = None
        try:
            num_bytes = int(np.prod(shape))
            _limit_memory(self._most_bytes + num_bytes)
            self._ring = mmap.mmap(descriptor, num_bytes)
        finally:
            os.close(descriptor)
        return np.frombuffer(self._ring, dtype=np.uint8).reshape(shape)

    def _close(self, message: Message) -> None:
        del message
        if self._decoder is not None:
            self._decoder.close()
        self._decoder = self._ring = None
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
        self._channel.send({"is": "closed", "is_worn": self._was_short_of_memory()})

    def _was_short_of_memory(self) -> bool:
        return is_short_of_memory(self._base_bytes, self._settings.max_memory_bytes)


def least_walk(info: VideoInfo, times_s: npt.NDArray[np.float64]) -> int:
    """Return how many frames have to be decoded for those shown at ascending times, at least.

    With keyframes at 0 and 10, the frames 3, 5 and 12 take 4 + 2 + 3.
    """
    idxs = np.unique(info.frame_idxs_at(times_s))
    keys = np.asarray((0, *info.keyframe_idxs))
    starts = keys[np.searchsorted(keys, idxs, side="right") - 1]
    before = np.concatenate([[-1], idxs[:-1]])
    return int((idxs - np.maximum(before, starts - 1)).sum())


def _track(info: VideoInfo) -> TrackInfo:
    if isinstance(info, TrackInfo):
        return info
    facts = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
    return TrackInfo(**facts, packet_idxs=np.arange(info.num_frames))


def _declared_size(source: Source) -> tuple[int, int]:
    """Return height and width of the largest video track, before a frame of it is decoded."""
    with open_container(source) as container:
        tracks = [track.codec_context for track in container.streams.video if track.codec_context]
        sizes = [(track.height, track.width) for track in tracks]
    return max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))


def _limit_memory(most_bytes: int) -> None:
    if sys.platform == "linux":  # elsewhere the limit is not kept to
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = most_bytes if hard == resource.RLIM_INFINITY else min(most_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no file behind
