"""Frames by PyAV: any file FFmpeg reads, every frame told by its presentation time.

Three ways of reading, each slower and surer than the one before; a frame that does not come out of
one is tried with the next, and what the last does not give is left out:

    FAST     all threads, seeking to the nearest keyframe;
    CAREFUL  one thread, so that an error belongs to its packet, and one keyframe earlier, so that
             open GOPs and gradual refreshes have what they refer to. After an undecodable packet
             nothing is believed until the next keyframe: pictures built on a lost one can look
             whole and show the wrong moment;
    LINEAR   one thread, from the first packet, no seeking.

Knows nothing of sampling; which files it reads is `decoder.py`'s decision.
"""

import bisect
import contextlib
import enum
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from llava_video.errors import DecodeError
from llava_video.video.clips import Frame
from llava_video.video.container import open_container, packets_of
from llava_video.video.probe import TrackInfo
from llava_video.video.source import Source
from llava_video.video.upright import fit_size, turn

_log = logging.getLogger(__name__)

# Emptying and refilling a decoder costs about as much as decoding this many frames.
_SEEK_WORTH_FRAMES = 12


class _Care(enum.IntEnum):
    FAST = 0
    CAREFUL = 1
    LINEAR = 2


class _Doubt(Exception):
    """A frame did not come out, and a surer way of reading may give it."""


class PyavReader:
    """Read one source with PyAV; every call of `frames` opens the source anew."""

    def __init__(self, source: Source, info: TrackInfo) -> None:
        self._source, self._info = source, info

    def frames(self, idxs: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """Yield (index, (H, W, 3) uint8 upright frame) for ascending indices, but for lost ones.

        Raises:
            SourceError: the file has gone. DecodeError: its pixel format cannot be converted.
        """
        care, rest = _Care.FAST, list(idxs)
        while rest:
            try:
                with open_container(self._source) as container:
                    one_pass = _Pass(container, self._info, care)
                    while rest:
                        frame = one_pass.frame(rest[0])
                        idx = rest.pop(0)
                        if frame is not None:
                            yield idx, self._upright(frame, idx)
            except _Doubt:
                care = _Care(care + 1)
                _log.debug("%s: reading %s from frame %d on", self._source.name, care.name, rest[0])

    def close(self) -> None:
        """Nothing is held open."""

    def _upright(self, frame: VideoFrame, idx: int) -> Frame:
        info = self._info
        try:
            pixels = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
        except (av.error.FFmpegError, ValueError) as cause:
            raise DecodeError(
                f"{self._source.name}: pixels of {frame.format.name} cannot become RGB.",
                "convert the file to yuv420p.",
                pts_s=float(info.pts_s[idx]),
            ) from cause
        return fit_size(
            turn(pixels, info.rotation_deg, info.mirrored), info.height_px, info.width_px
        )


class _Pass:
    """One forward pass over an open container.

    Attributes of the state: `_position` is the last frame that came out, `_fed_key` the last
    keyframe that went in, both as frame indices, -1 before the first.
    """

    def __init__(self, container: InputContainer, info: TrackInfo, care: _Care) -> None:
        self._container, self._info, self._care = container, info, care
        self._track: VideoStream = container.streams[info.track_idx]  # type: ignore[assignment]  # probed as video
        self._track.thread_type = "AUTO" if care is _Care.FAST else "NONE"
        ticks = np.rint(info.pts_s / info.tick_s).astype(np.int64) + info.first_ticks
        self._ticks: list[int] = ticks.tolist()
        self._can_seek = care is not _Care.LINEAR and bool(info.key_ticks)
        self._keys = frozenset(info.keyframe_idxs)
        self._position = self._fed_key = -1
        self._num_fed = self._num_out = 0
        self._ahead: tuple[int, VideoFrame] | None = None
        self._decoded = self._decode(sought=None)

    def frame(self, idx: int) -> VideoFrame | None:
        """Return the frame; None when it is lost for good.

        Raises:
            _Doubt: when a surer way of reading may still give it.
        """
        self._seek_if_worth(idx)
        while (placed := self._ahead or next(self._decoded, None)) is not None:
            position, frame = placed
            if position > idx:
                self._ahead = placed
                break
            self._position, self._ahead = max(self._position, position), None
            if position == idx and not frame.is_corrupt:
                return frame
        if self._care is _Care.FAST:
            raise _Doubt
        return None

    def _seek_if_worth(self, idx: int) -> None:
        if not self._can_seek:
            return
        keys = self._info.keyframe_idxs
        # One keyframe more to go back when careful.
        before = bisect.bisect_right(keys, idx) - 1 - int(self._care is _Care.CAREFUL)
        if before < 0:
            return
        key = keys[before]
        if key <= self._fed_key or key - self._position <= _SEEK_WORTH_FRAMES:
            return
        try:
            self._container.seek(self._info.key_ticks[before], stream=self._track)
        except av.error.FFmpegError as cause:
            raise _Doubt from cause
        self._ahead = None
        self._decoded = self._decode(sought=idx)

    def _decode(self, sought: int | None) -> Iterator[tuple[int, VideoFrame]]:
        """Yield (frame index, frame) as they are shown; packets before a keyframe are dropped.

        Args:
            sought: the frame a seek was made for; None from the start of the file.
        """
        waits = sought is not None
        for packet in self._packets():
            self._num_fed += bool(packet.size)
            key = self._enter_key(packet)
            if waits and key is None and packet.size:
                continue
            if key is not None:
                if sought is not None and key > sought:
                    raise _Doubt  # the seek landed too late
                if waits:  # every packet that was left out was a frame
                    self._num_out = self._num_fed - 1
                sought = None
            frames, waits = self._frames_of(packet)
            for frame in frames:
                idx = self._num_out if self._info.by_order else self._idx_of(frame.pts)
                self._num_out += 1
                yield idx, frame

    def _frames_of(self, packet: "Packet[Any]") -> tuple[list[VideoFrame], bool]:
        """Return what a packet brings out, and whether to wait for a keyframe after it."""
        try:
            return self._track.decode(packet), False
        except av.error.EOFError:  # emptied already
            return [], False
        except av.error.FFmpegError as error:
            if self._care is _Care.FAST:
                raise _Doubt from error
            if self._is_leading(packet):
                return [], False  # nothing is built on a picture shown before its keyframe
            return self._held(), True

    def _held(self) -> list[VideoFrame]:
        """Take what the decoder holds out of it, and make it ready for the next keyframe."""
        try:
            frames = self._track.decode(None)
        except av.error.FFmpegError:
            frames = []
        self._track.codec_context.flush_buffers()
        return frames

    def _packets(self) -> Iterator["Packet[Any]"]:
        with contextlib.suppress(av.error.FFmpegError):  # a file that ends in the middle
            yield from packets_of(self._container, [self._track])
        yield Packet()  # an empty packet: the decoder gives what it still holds

    def _enter_key(self, packet: "Packet[Any]") -> int | None:
        """Return the frame of a keyframe the probe believes; None of any other packet."""
        if not packet.size or not packet.is_keyframe:
            return None
        key = self._idx_of(packet.pts)
        if not self._info.by_order and key not in self._keys:
            return None
        self._fed_key = max(self._fed_key, key)
        return key

    def _is_leading(self, packet: "Packet[Any]") -> bool:
        if self._info.by_order or packet.pts is None or self._fed_key < 0:
            return False
        return packet.pts < self._ticks[self._fed_key]

    def _idx_of(self, pts: int | None) -> int:
        """Return the index of the frame with this pts; -1 when there is none."""
        if pts is None:
            return -1
        idx = bisect.bisect_left(self._ticks, pts)
        return idx if idx < len(self._ticks) and self._ticks[idx] == pts else -1
