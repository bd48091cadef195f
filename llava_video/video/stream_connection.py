"""One connection to a stream → its pictures, decoded one by one, with times and what was odd.

Runs in the process that may hang or crash; ends with a `Fault` where the bytes end. Knows no rate,
no queue and nobody who reads.
"""

import contextlib
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import av.error
import numpy as np
import numpy.typing as npt

from llava_video.video.container import limit_pixels
from llava_video.video.frame_facts import orientation_in
from llava_video.video.rgb import rgb_of
from llava_video.video.settings import StreamSettings
from llava_video.video.stream_address import StreamAddress
from llava_video.video.stream_faults import Fault, fault_of
from llava_video.video.upright import fit_size, shown_size, turn

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Formats without times of their own: FFmpeg makes some up.
_UNTIMED_FORMATS = frozenset({"mpjpeg", "mjpeg"})
# So many packets are remembered to tell what a playlist brings again: ten minutes at 25 a second.
_MOST_REMEMBERED = 15_000
# A playlist or a multipart stream may stumble and go on.
_MOST_STUMBLES = 20
# A stream that never sends a keyframe again mends itself bit by bit: 20 s at 25 a second.
_MOST_DOUBTFUL = 500
_MAX_SAMPLE_ASPECT = 8


class Remembered:
    """Packets that came already, for connections that bring some of them again."""

    def __init__(self) -> None:
        self._order: deque[tuple[int, int]] = deque()
        self._keys: set[tuple[int, int]] = set()

    def is_new(self, packet: "Packet[Any]") -> bool:
        """Say whether a packet, told by its time and its bytes, has not come before; keep it."""
        key = (packet.pts if packet.pts is not None else -1, zlib.crc32(bytes(packet)))
        if key in self._keys:
            return False
        self._keys.add(key)
        self._order.append(key)
        if len(self._order) > _MOST_REMEMBERED:
            self._keys.discard(self._order.popleft())
        return True


@dataclass(slots=True)
class Tally:
    """What a connection has brought so far: decoded, damaged and repeated pictures."""

    decoded: int = 0
    damaged: int = 0
    repeated: int = 0


class Connection:
    """One opened stream.

    Args:
        address: what to open.
        settings: timeouts and what to decode.
        remembered: packets of earlier connections.

    Attributes:
        tally: what it has brought.
        fault: why it is over; None until then, and after the end of a file.
        is_playlist: its pictures come in pieces, of which a new connection brings the last again.

    Raises:
        StreamFaultError: it cannot be opened.
    """

    def __init__(
        self, address: StreamAddress, settings: StreamSettings, remembered: Remembered
    ) -> None:
        self._settings, self._remembered = settings, remembered
        self.tally = Tally()
        self.fault: Fault | None = None
        self._repeated: set[int] = set()
        self._num_doubtful = 0
        # A file that grows is silent for as long as nobody writes it.
        is_patient = address.kind == "file" and settings.pace == "follow"
        read_s = None if is_patient else settings.stall_timeout_s
        try:
            self._container: InputContainer = av.open(
                address.url,
                format=address.format,
                options=address.options,
                metadata_errors="replace",
                timeout=(settings.open_timeout_s, read_s),
            )
        except (av.error.FFmpegError, OSError, ValueError) as cause:
            raise StreamFaultError(fault_of(cause)) from None
        if not self._container.streams.video:
            self._container.close()
            raise StreamFaultError(Fault("unreadable", "it brings no video"))
        self._track: VideoStream = self._container.streams.video[0]
        context = self._track.codec_context
        # A codec's threads hold a picture each: it would come so many pictures late.
        is_fast = address.kind == "file" and settings.pace == "fast"
        context.thread_type = "AUTO" if is_fast else "NONE"
        if settings.keyframes_only:
            context.skip_frame = "NONKEY"
        limit_pixels(settings.max_pixels, self._container)
        self.format = self._container.format.name
        self._is_untimed = bool(_UNTIMED_FORMATS & set(self.format.split(",")))
        self.is_playlist = "hls" in self.format

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec."""
        return str(self._track.codec_context.name)

    @property
    def recorded_at_s(self) -> float | None:
        """When a recording began, seconds since 1970, as far as it says so itself."""
        text = str(self._container.metadata.get("creation_time", ""))
        return stated_time_s(text)

    @property
    def duration_s(self) -> float:
        """How long a recording is, as it says; 0 where it does not."""
        return (self._container.duration or 0) / 1e6

    def pictures(self) -> Iterator[tuple["VideoFrame", float | None] | None]:
        """Yield (stored picture, time by the stream's clock in s or None), until it is over.

        None in its place stands for a picture that an earlier connection brought already.
        """
        for packet in self._packets():
            for frame in self._frames_of(packet):
                if frame.pts in self._repeated:
                    self._repeated.discard(frame.pts)
                    self.tally.repeated += 1
                    yield None
                    continue
                self.tally.decoded += 1
                raw_s = None if self._is_untimed or frame.time is None else float(frame.time)
                yield frame, raw_s

    def upright(self, frame: "VideoFrame") -> npt.NDArray[np.uint8]:
        """Return a picture as it is shown, (H, W, 3) uint8 RGB, no side longer than allowed.

        Raises:
            ValueError: its pixels cannot become RGB.
        """
        try:
            stored = rgb_of(frame)
        except av.error.FFmpegError as cause:
            raise ValueError(frame.format.name) from cause
        orientation = orientation_in(frame)
        pixels = turn(stored, orientation.rotation_deg, orientation.mirrored)
        aspect = self._track.codec_context.sample_aspect_ratio or Fraction(1)
        if not 1 / _MAX_SAMPLE_ASPECT <= aspect <= _MAX_SAMPLE_ASPECT:
            aspect = Fraction(1)
        height_px, width_px = shown_size(
            frame.height, frame.width, Fraction(aspect), orientation.rotation_deg
        )
        share = min(1.0, self._settings.max_side_px / max(height_px, width_px))
        return fit_size(pixels, max(1, round(height_px * share)), max(1, round(width_px * share)))

    def close(self) -> None:
        """Let the connection go."""
        with contextlib.suppress(av.error.FFmpegError):
            self._container.close()

    def _packets(self) -> Iterator["Packet[Any]"]:
        """Yield packets and, at the end, one without bytes, which empties the decoder."""
        stumbles = 0
        while True:
            try:
                for packet in self._container.demux(self._track):
                    stumbles = 0
                    yield packet
                return
            except IndexError:  # PyAV 18.1 trips over a track that begins midway (MPEG-TS)
                break
            except av.error.InvalidDataError as error:
                stumbles += 1
                self.tally.damaged += 1
                if stumbles > _MOST_STUMBLES:
                    self.fault = fault_of(error)
                    break
            except (av.error.FFmpegError, OSError) as error:
                self.fault = fault_of(error)
                break
        yield av.Packet()

    def _frames_of(self, packet: "Packet[Any]") -> Iterator["VideoFrame"]:
        if self.is_playlist and packet.size and not self._remembered.is_new(packet):
            # Decoded all the same: the pictures after it may refer to it.
            self._repeated.add(packet.pts if packet.pts is not None else -1)
        # A playlist's pieces come whole; between two of them, MPEG-TS counts may well start anew.
        if packet.is_corrupt and not self.is_playlist:
            self._num_doubtful = _MOST_DOUBTFUL
        try:
            frames = self._track.decode(packet)
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            self.tally.damaged += 1
            self._num_doubtful = _MOST_DOUBTFUL
            return
        for frame in frames:
            if self._is_doubtful(frame):
                self.tally.damaged += 1
            else:
                yield frame

    def _is_doubtful(self, frame: "VideoFrame") -> bool:
        """Say whether a picture may refer to what was lost: all do, up to the next keyframe.

        FFmpeg paints over what is missing and says nothing; such a picture raises false alarms.
        """
        if frame.is_corrupt:
            self._num_doubtful = _MOST_DOUBTFUL
            return True
        self._num_doubtful = 0 if frame.key_frame else max(0, self._num_doubtful - 1)
        return self._num_doubtful > 0


class StreamFaultError(Exception):
    """A stream cannot be opened.

    Args:
        fault: why.
    """

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


def stated_time_s(text: str) -> float | None:
    """Return the seconds since 1970 of a time as files state it; None of anything else.

    >>> stated_time_s("1970-01-01T00:01:00.000000Z")
    60.0
    """
    with contextlib.suppress(ValueError, OverflowError):
        clean = text.strip().replace("Z", "+00:00")
        stated = datetime.fromisoformat(clean)
        if stated.tzinfo is None:
            stated = stated.replace(tzinfo=UTC)
        return stated.timestamp()
    return None
