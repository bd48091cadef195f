"""Plain values, raw arrays and file descriptors ↔ messages over a socket between two processes.

A message is a JSON object, the bytes of arrays beside it, and (parent to worker only) descriptors.
Nothing is unpickled: a worker that has been taken over can lie, but not run code here. Knows what a
`TrackInfo` and our errors are, and nothing of decoding.
"""

import contextlib
import dataclasses
import json
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from llava_video import errors
from llava_video.config import from_mapping, to_mapping
from llava_video.errors import DecodeError, LlavaVideoError
from llava_video.video.probe import TrackInfo

_HEAD = struct.Struct("!II")
# The times and keyframes of a day at 60 frames a second take 124 MB.
_MOST_JSON_BYTES, _MOST_ARRAY_BYTES = 2**22, 2**28
_READ_BYTES = 2**18
_MOST_DESCRIPTORS = 4
# Longer tuples of whole numbers travel as arrays.
_SHORT = 32

# What reading values raises that somebody else chose: np.dtype("(1,") is a syntax error, the length
# 2**70 and Fraction("1/0") are arithmetic.
_NONSENSE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ArithmeticError,
    SyntaxError,
    RecursionError,
)

_ERRORS: dict[str, type[LlavaVideoError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, LlavaVideoError)
}


class Message(NamedTuple):
    """What came: plain values, arrays by name, descriptors that are the receiver's to close."""

    values: dict[str, Any]
    arrays: dict[str, np.ndarray[Any, Any]]
    descriptors: list[int]


class BrokenMessageError(Exception):
    """What came is no message."""


class Channel:
    """One end of the line; any thread may send, one at a time receives.

    Args:
        line: a connected Unix socket, owned from now on.
        takes_descriptors: whether descriptors are accepted; a parent takes none.
    """

    def __init__(self, line: socket.socket, *, takes_descriptors: bool = False) -> None:
        self._line, self._takes_descriptors = line, takes_descriptors
        self._sending = threading.Lock()
        self._held = bytearray()
        self._descriptors: list[int] = []
        self._poll = select.poll()
        self._poll.register(line, select.POLLIN)

    def close(self) -> None:
        """Close the line; the other end reads its end."""
        self._line.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    def send(
        self,
        values: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray[Any, Any]] | None = None,
        descriptors: Sequence[int] = (),
        timeout_s: float | None = None,
    ) -> None:
        """Send one message.

        Raises:
            OSError: the other end has gone, or does not read for `timeout_s`.
        """
        pieces = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
        shapes = {name: [piece.dtype.str, len(piece)] for name, piece in pieces.items()}
        head = json.dumps({**values, "_arrays": shapes, "_descriptors": len(descriptors)}).encode()
        body = b"".join(piece.tobytes() for piece in pieces.values())
        with self._sending:
            self._line.settimeout(timeout_s)
            start = _HEAD.pack(len(head), len(body))
            if descriptors:
                socket.send_fds(self._line, [start], list(descriptors))
            else:
                self._line.sendall(start)
            self._line.sendall(head + body)

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """Return the next message; None when none has come whole in time.

        Args:
            timeout_s: None waits for ever.

        Raises:
            EOFError: the other end has gone. BrokenMessageError: it does not keep to the form.
        """
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while (message := self._parsed()) is None:
            left_s = None if until_s is None else max(0.0, until_s - time.monotonic())
            if not self._poll.poll(None if left_s is None else left_s * 1000):
                return None
            self._read()
        return message

    def _read(self) -> None:
        try:
            if self._takes_descriptors:
                piece, given, _, _ = socket.recv_fds(self._line, _READ_BYTES, _MOST_DESCRIPTORS)
                self._descriptors += given
            else:  # descriptors sent to us are closed by the kernel
                piece = self._line.recv(_READ_BYTES)
        except OSError as cause:
            raise EOFError from cause
        if not piece:
            raise EOFError
        self._held += piece

    def _parsed(self) -> Message | None:
        if len(self._held) < _HEAD.size:
            return None
        json_bytes, array_bytes = _HEAD.unpack_from(self._held)
        if json_bytes > _MOST_JSON_BYTES or array_bytes > _MOST_ARRAY_BYTES:
            raise BrokenMessageError(f"a message of {json_bytes + array_bytes} bytes")
        body, end = _HEAD.size + json_bytes, _HEAD.size + json_bytes + array_bytes
        if len(self._held) < end:
            return None
        try:
            values = json.loads(self._held[_HEAD.size : body])
            arrays = _arrays(bytes(self._held[body:end]), values.pop("_arrays"))
            num_descriptors = int(values.pop("_descriptors"))
        except _NONSENSE as cause:
            raise BrokenMessageError(f"no message ({type(cause).__name__})") from cause
        del self._held[:end]
        descriptors = self._descriptors[:num_descriptors]
        del self._descriptors[:num_descriptors]
        return Message(values, arrays, descriptors)


def _arrays(body: bytes, shapes: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    arrays, start = {}, 0
    for name, (kind, length) in shapes.items():
        dtype = np.dtype(kind)
        if dtype.kind not in "biuf" or length < 0:
            raise ValueError(kind)
        arrays[name] = np.frombuffer(body, dtype, count=length, offset=start)
        start += dtype.itemsize * length
    return arrays


def pack_info(info: TrackInfo) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Take an info apart: plain values, and what is long as arrays."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    tuples = []
    for field in dataclasses.fields(info):
        value = getattr(info, field.name)
        if isinstance(value, np.ndarray):
            arrays[field.name] = value
        elif isinstance(value, tuple) and len(value) > _SHORT and isinstance(value[0], int):
            arrays[field.name] = np.array(value, dtype=np.int64)
            tuples.append(field.name)
    empty: dict[str, Any] = dict.fromkeys(arrays, ())
    plain = dataclasses.replace(info, **empty)
    values = {name: value for name, value in to_mapping(plain).items() if name not in arrays}
    return {"plain": values, "tuples": tuples}, arrays


def unpack_info(values: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> TrackInfo:
    """Put an info together again, and see that it can be one.

    Raises:
        BrokenMessageError: it contradicts itself.
    """
    try:
        empty: dict[str, Any] = dict.fromkeys(arrays, ())
        info = from_mapping(TrackInfo, {**values["plain"], **empty})
        longs: dict[str, Any] = {
            name: tuple(array.tolist()) if name in values["tuples"] else array
            for name, array in arrays.items()
        }
        info = dataclasses.replace(info, **longs)
        _check_info(info)
    except (LlavaVideoError, *_NONSENSE) as cause:
        raise BrokenMessageError("facts of a video that cannot be") from cause
    return info


def _check_info(info: TrackInfo) -> None:
    keys = np.asarray(info.keyframe_idxs, dtype=np.int64)
    duration_s = 0.0 if info.duration_s is None else info.duration_s
    is_sound = (
        info.num_frames == len(info.pts_s) > 0
        and info.pts_s.dtype == np.float64
        and bool(np.isfinite(info.pts_s).all())
        and bool((np.diff(info.pts_s) > 0).all())
        and 0 < info.tick_s < np.inf
        and np.isfinite(duration_s)
        and info.packet_idxs.dtype == np.int64
        and info.packet_idxs.shape == (info.num_frames,)
        and min(info.height_px, info.width_px) > 0
        and bool(((keys >= 0) & (keys < info.num_frames)).all())
    )
    if not is_sound:
        raise ValueError("times, sizes or keyframes")


def pack_error(error: LlavaVideoError) -> dict[str, Any]:
    """Take one of our errors apart."""
    pts_s = getattr(error, "pts_s", None)
    kind = type(error).__name__
    return {"error": kind, "message": error.message, "hint": error.hint, "pts_s": pts_s}


def unpack_error(values: Mapping[str, Any]) -> LlavaVideoError:
    """Put an error together again, of the same class."""
    message, hint = str(values.get("message")), str(values.get("hint", ""))
    kind = _ERRORS.get(str(values.get("error")), DecodeError)
    pts_s = values.get("pts_s")
    if issubclass(kind, DecodeError):
        return kind(message, hint, float(pts_s) if isinstance(pts_s, int | float) else None)
    return kind(message, hint)


def end_with(lifeline: int) -> None:
    """End this process when the other end of a pipe closes, whatever this one is doing then.

    A thread could not: C code that never lets go of the interpreter would keep it waiting.
    """
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)  # SIGIO, which ends a process
