"""A run of packets → the frames asked for, by PyAV: seek, decode, tell each frame by its time.

Three degrees of care, each slower and surer than the one before:

    FAST     seeking to the nearest keyframe; pictures that nothing refers to are skipped;
    CAREFUL  one thread, so that an error belongs to its packet, and one keyframe earlier, so that
             open GOPs and gradual refreshes have what they refer to. After an undecodable packet
             nothing is believed until the next keyframe: pictures built on a lost one can look
             whole and show the wrong moment;
    LINEAR   one thread, from the first packet, no seeking.

Knows neither pixels nor who asks; which care a run gets is `decode_pyav.py`'s decision.
"""

import bisect
import contextlib
import enum
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from llava_video.video.container import packets_of
from llava_video.video.h264 import is_disposable
from llava_video.video.probe import TrackInfo
from llava_video.video.seek_plan import Run


class Care(enum.IntEnum):
    """How a run is read; see above."""

    FAST = 0
    CAREFUL = 1
    LINEAR = 2


class Doubt(Exception):
    """A frame did not come out, and a surer way of reading may give it."""


class Pass:
    """An open container that runs are read from, one after the other, in any order.

    Args:
        container: open, nobody else's.
        info: the probe's.
        care: how to read.
        thread_type: the codec's threads, "AUTO" or "NONE"; more care than FAST has none.
        is_wanted: asked between packets; False ends the run without its frames.
    """

    def __init__(
        self,
        container: InputContainer,
        info: TrackInfo,
        care: Care,
        thread_type: str = "NONE",
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._container, self._info, self._care, self._is_wanted = container, info, care, is_wanted
        self._track: VideoStream = container.streams[info.track_idx]  # type: ignore[assignment]  # probed as video
        self._track.thread_type = thread_type if care is Care.FAST else "NONE"
        # Not a list: the ticks of two hours would be 9 MB of objects, in every thread.
        self._ticks = array("q", bytes(8 * info.num_frames))
        ticks = np.frombuffer(self._ticks, dtype=np.int64)
        ticks[:] = np.rint(info.pts_s / info.tick_s)
        ticks += info.first_ticks
        self._keys = frozenset(info.keyframe_idxs)
        # HEVC's non-reference pictures are so in their own temporal layer only.
        self._may_skip = care is Care.FAST and info.codec == "h264"
        self._extradata = self._track.codec_context.extradata
        self._is_at_start = True
        self._fed_key = -1
        self._num_fed = self._num_out = 0

    def frames(self, run: Run) -> Iterator[tuple[int, VideoFrame]]:
        """Yield (index, frame) of a run, in order, but for those that are lost for good.

        Raises:
            Doubt: when a surer way of reading may still give the next frame.
        """
        left = deque(run.idxs)
        for position, frame in self._decode(run):
            while left and left[0] < position:
                self._lose(left.popleft())
            if left and left[0] == position:
                if frame.is_corrupt:
                    self._lose(left.popleft())
                else:
                    yield left.popleft(), frame
            if not left:
                return
        for idx in left:
            self._lose(idx)

    def _lose(self, idx: int) -> None:
        if self._care is Care.FAST and self._is_wanted():
            raise Doubt(f"frame {idx} did not come out")

    def _decode(self, run: Run) -> Iterator[tuple[int, VideoFrame]]:
        """Yield (frame index, frame) as they are shown; packets before a keyframe are dropped.

        Feeding ends with the last packet that holds a frame asked for: what the decoder still has
        is then taken out of it, rather than pushed out by packets nobody wants.
        """
        sought = self._seek(run)
        waits = sought is not None
        missing = set(run.idxs)
        for packet in self._packets():
            if not self._is_wanted():
                return
            idx = -1 if self._info.by_order else self._idx_of(packet.pts)
            # A second field carries no time of its own: it still belongs to the last picture.
            if not missing and idx >= 0:
                yield from self._placed(self._held())
                return
            self._num_fed += bool(packet.size)
            key = self._enter_key(packet)
            if waits and key is None and packet.size:
                continue
            if key is not None:
                if sought is not None and key > sought:
                    raise Doubt("the seek landed too late")
                if waits:  # every packet that was left out was a frame
                    self._num_out = self._num_fed - 1
                sought = None
            if self._may_skip and idx >= 0 and idx not in missing and self._is_idle(packet):
                continue
            missing.discard(idx)
            frames, waits = self._frames_of(packet)
            yield from self._placed(frames)

    def _placed(self, frames: list[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        for frame in frames:
            idx = self._num_out if self._info.by_order else self._idx_of(frame.pts)
            self._num_out += 1
            yield idx, frame

    def _seek(self, run: Run) -> int | None:
        """Go to where a run starts; return its first frame, or None at the start of the file."""
        if self._is_at_start and (run.key is None or run.first_packet == 0):
            self._is_at_start = False
            return None
        self._is_at_start = False
        ticks = self._info.key_ticks[run.key or 0]
        try:
            self._container.seek(ticks, stream=self._track)
        except av.error.FFmpegError as cause:
            raise Doubt("the container does not seek") from cause
        self._fed_key = -1
        return run.idxs[0]

    def _is_idle(self, packet: "Packet[Any]") -> bool:
        return is_disposable(bytes(packet), self._extradata)

    def _frames_of(self, packet: "Packet[Any]") -> tuple[list[VideoFrame], bool]:
        """Return what a packet brings out, and whether to wait for a keyframe after it."""
        try:
            return self._track.decode(packet), False
        except av.error.EOFError:  # emptied already
            return [], False
        except av.error.FFmpegError as error:
            if self._care is Care.FAST:
                raise Doubt("a packet cannot be decoded") from error
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
