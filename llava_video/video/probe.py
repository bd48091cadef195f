"""A `Source` → `VideoInfo`: when every frame is shown, how it is turned, and what is broken.

Reads packets, not pixels, with one exception: PyAV shows a track's display matrix only on decoded
frames, so the first frame is decoded (and thrown away). That frame also tells where the pictures
that can be decoded begin. Knows no sampling and no model.
"""

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llava_video.backends import require
from llava_video.errors import DecodeError, SourceError
from llava_video.values import VideoInfo
from llava_video.video.container import open_container, packets_of
from llava_video.video.frame_facts import bit_depth, colour_range, odd_pixels, orientation_in
from llava_video.video.h264 import KeyKind, key_kind
from llava_video.video.seek_index import (
    ALWAYS_INDEXED,
    INDEXED_FORMATS,
    is_indexed,
    last_indexed_tick,
)
from llava_video.video.source import Source
from llava_video.video.track_times import PacketTable, TrackTimes, track_times
from llava_video.video.upright import shown_size

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# Decode times only: H.264 with B-frames comes out of an AVI with meaningless presentation times.
_UNTIMED_FORMATS = frozenset({"avi"})
# These state how long the file is, and have no index of all frames.
_STATED_FORMATS = frozenset({"matroska", "flv"})
# FFmpeg finds a place in these by bisecting the file for a decode time.
_SEARCHED_FORMATS = frozenset({"mpegts"})
# These state a time now and then, and FFmpeg guesses the others, differently after a seek.
_UNSEEKABLE_FORMATS = frozenset({"mpeg", "mpegvideo"})
# Packets tried for the first frame: longer than the longest reordering, short of minutes.
_MAX_FIRST_PACKETS = 300
# A muxer's idea of the end may differ from the last frame's by this much.
_END_SLACK_S = 0.5
_MAX_SAMPLE_ASPECT = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrackInfo(VideoInfo):
    """What the readers need beyond `VideoInfo`.

    Attributes:
        first_ticks: the first frame's pts as the container counts it.
        by_order: frames are told by their order, not by their times.
        num_hidden: packets outside the edit list.
        key_ticks: for each of `keyframe_idxs`, where the container seeks to it; () where seeking
            is not to be trusted.
        clean_keys: whether nothing after a keyframe refers behind it, as far as H.264 tells.
    """

    first_ticks: int = 0
    by_order: bool = False
    num_hidden: int = 0
    key_ticks: tuple[int, ...] = field(default=(), repr=False)
    packet_idxs: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.empty(0, dtype=np.int64), repr=False
    )
    clean_keys: bool = True


@dataclass(slots=True)
class _Scan:
    """What one pass over the packets found."""

    packets: PacketTable
    first_frame: "VideoFrame | None" = None
    # End of the last packet of each track, in its ticks from the container's zero.
    end_ticks: dict[int, int] = field(default_factory=dict)
    stopped: str = ""
    clean_keys: bool = True


def probe(source: Source) -> TrackInfo:
    """Read what is known of a video without its pixels.

    The best track is taken: no cover picture, most pixels, then the default one, then the first.

    Raises:
        SourceError: no video file, or no video track in it.
        DecodeError: a track without frames, or of a codec PyAV has no decoder for.
        BackendMissingError: without PyAV.
    """
    if source.frames is not None and source.times_s is not None:
        return _info_of_frames(source)
    with open_container(source) as container:
        track = _best_track(source, container)
        num_stated = _num_stated(container, track)
        last_indexed = last_indexed_tick(source, container, track)
        scan = _scan(container, track)
        num_packets = len(scan.packets.pts)
        if num_packets == 0:
            raise DecodeError(
                f"{source.name} has a video track without a single frame.",
                "record or export it again: there is nothing to look at.",
            )
        frame, tick = scan.first_frame, Fraction(track.time_base or 1)
        times = track_times(
            scan.packets,
            tick=tick,
            rate_hz=track.guessed_rate,
            untimed=_is(container, _UNTIMED_FORMATS),
            first_shown=frame.pts if frame else None,
        )
        if not len(times.ticks):
            raise DecodeError(
                f"{source.name} shows no frame: its edit list leaves all of them out.",
                "remux it without the edit list: ffmpeg -ignore_editlist 1 -i IN -c copy OUT.",
            )
        cut = _cut_off(container, scan, times, num_stated)
        indexed = _is(container, frozenset({ALWAYS_INDEXED})) or _is_indexed(times, last_indexed)
        faults = [cut] if cut else []
        if not (indexed or cut) and _is(container, INDEXED_FORMATS):
            faults.append("it has no index: a seek searches for its keyframes.")
        facts = _info(container, track, scan, times, [*faults, *times.faults])
        return replace(facts, is_indexed=indexed, truncated_at_s=_length_s(times) if cut else None)


def _best_track(source: Source, container: "InputContainer") -> "VideoStream":
    disposition = require("av").stream.Disposition
    tracks = [t for t in container.streams.video if not t.disposition & disposition.attached_pic]
    if not tracks:
        kinds = ", ".join(sorted({stream.type for stream in container.streams}))
        found = f"only {kinds}" if kinds else "nor any other"
        raise SourceError(
            f"{source.name} has no video track, {found}.",
            "pass a video, a file with pictures in it.",
        )

    def merit(track: "VideoStream") -> tuple[int, bool, int]:
        pixels = (
            track.codec_context.width * track.codec_context.height if track.codec_context else 0
        )
        return pixels, bool(track.disposition & disposition.default), -track.index

    best = max(tracks, key=merit)
    if best.codec_context is None:
        raise DecodeError(f"{source.name}: PyAV has no decoder for its video.", "convert it first.")
    return best


def _num_stated(container: "InputContainer", track: "VideoStream") -> int:
    """Return the packets the file should hold; 0 when it does not say. Ask before reading any."""
    if _is(container, frozenset({"mov"})):
        return len(track.index_entries)  # its own count includes what the edit list cuts away
    return track.frames if _is(container, frozenset({"avi"})) else 0


def _scan(container: "InputContainer", track: "VideoStream") -> _Scan:
    """Read all packets; decode until the first frame comes out."""
    av = require("av")
    scan = _Scan(PacketTable())
    # Other tracks only where the end of the file is told by the longest of them.
    tracks: list[Stream] = list(container.streams) if _is(container, _STATED_FORMATS) else [track]
    try:
        for packet in packets_of(container, tracks):
            if packet.stream_index == track.index:
                if scan.first_frame is None and len(scan.packets.pts) < _MAX_FIRST_PACKETS:
                    scan.first_frame = _first_good(packet, av.error.FFmpegError)
                if packet.size:
                    _enter(scan, packet, track.codec_context)
            if packet.pts is not None and packet.size:
                end, idx = packet.pts + (packet.duration or 0), packet.stream_index
                scan.end_ticks[idx] = max(scan.end_ticks.get(idx, 0), end)
    except av.error.FFmpegError as error:
        scan.stopped = error.strerror or type(error).__name__
    return scan


def _enter(scan: _Scan, packet: "Packet[Any]", codec: "VideoCodecContext") -> None:
    is_key = packet.is_keyframe
    if is_key and codec.codec.canonical_name == "h264":
        kind = key_kind(bytes(packet), codec.extradata)
        # The first packet has nothing behind it that a better start could be.
        is_key = kind is not KeyKind.NONE or not scan.packets.pts
        scan.clean_keys = scan.clean_keys and kind is KeyKind.CLEAN
    scan.packets.add(
        packet.pts,
        packet.dts,
        packet.duration or 0,
        is_key=is_key,
        is_hidden=packet.is_discard,
        is_damaged=packet.is_corrupt,
    )


def _first_good(packet: "Packet[Any]", ffmpeg_error: type[Exception]) -> "VideoFrame | None":
    try:
        return next((frame for frame in packet.decode() if not frame.is_corrupt), None)
    except ffmpeg_error:  # a damaged start: the next packets may be whole
        return None


def _cut_off(container: "InputContainer", scan: _Scan, times: TrackTimes, num_stated: int) -> str:
    """Say where the file ends too early, and how one can tell; "" when it does not."""
    num_packets, length_s = len(scan.packets.pts), _length_s(times)
    if scan.stopped:
        return f"truncated at {length_s:.2f} s: reading stops there ({scan.stopped})."
    if num_packets < num_stated:
        found = f"{num_packets} of {num_stated} frames are in the file"
        return f"truncated at {length_s:.2f} s: {found}."
    if _is(container, _STATED_FORMATS) and container.duration:
        stated_s = container.duration / 1e6  # FFmpeg counts a container in microseconds
        ends = scan.end_ticks.items()
        end_s = max(
            (float(end * (container.streams[i].time_base or 1)) for i, end in ends), default=0
        )
        if end_s + _END_SLACK_S < stated_s:
            return f"truncated at {length_s:.2f} s: its header says {stated_s:.2f} s."
    return ""


def _is_indexed(times: TrackTimes, last_indexed: int | None) -> bool:
    # Told by their order, frames have no keyframes to seek to; an index lists them all.
    ticks = times.ticks if times.by_order else times.key_ticks
    return len(ticks) > 0 and is_indexed(last_indexed, int(ticks[0]), int(ticks[-1]))


def _info(
    container: "InputContainer",
    track: "VideoStream",
    scan: _Scan,
    times: TrackTimes,
    faults: list[str],
) -> TrackInfo:
    frame, context = scan.first_frame, track.codec_context
    orientation = orientation_in(frame)
    sample_aspect = track.sample_aspect_ratio or Fraction(1)
    if frame is None:
        faults.append("its first frames cannot be decoded.")
    if orientation.tilt_deg:
        faults.append(f"it asks to be tilted by {orientation.tilt_deg:.0f} degrees, and is not.")
    if not 1 / _MAX_SAMPLE_ASPECT <= sample_aspect <= _MAX_SAMPLE_ASPECT:
        faults.append(f"its sample aspect ratio {sample_aspect} is absurd and taken as 1.")
        sample_aspect = Fraction(1)
    if frame is not None:
        faults += odd_pixels(frame, context.color_trc)
    height_px, width_px = shown_size(
        frame.height if frame else context.height,
        frame.width if frame else context.width,
        sample_aspect,
        orientation.rotation_deg,
    )
    rate_hz = track.average_rate
    if times.tick != track.time_base:  # no times, so that FFmpeg's average is made up
        rate_hz = 1 / times.tick
    return TrackInfo(
        duration_s=_length_s(times) if times.last_ticks else None,
        num_frames=len(times.ticks),
        frame_rate_hz=float(rate_hz) if rate_hz else None,
        height_px=height_px,
        width_px=width_px,
        rotation_deg=orientation.rotation_deg,
        sample_aspect=sample_aspect,
        codec=context.codec.canonical_name,
        container=container.format.name,
        pixel_format=frame.format.name if frame else context.pix_fmt,
        bit_depth=bit_depth(frame.format) if frame else None,
        colour_range=colour_range(frame) if frame else None,
        pts_s=_seconds(times),
        tick_s=float(times.tick),
        keyframe_idxs=times.keyframe_idxs,
        track_idx=track.index,
        faults=tuple(faults),
        first_ticks=int(times.ticks[0]),
        by_order=times.by_order,
        mirrored=orientation.mirrored,
        num_hidden=times.num_hidden,
        key_ticks=_seek_ticks(container, times),
        packet_idxs=times.packet_idxs,
        clean_keys=scan.clean_keys,
    )


def _seek_ticks(container: "InputContainer", times: TrackTimes) -> tuple[int, ...]:
    if times.by_order or _is(container, _UNSEEKABLE_FORMATS):
        return ()
    if _is(container, _SEARCHED_FORMATS):  # a seek to the presentation time would land behind
        return times.key_ticks
    return tuple(times.ticks[list(times.keyframe_idxs)].tolist())


def _seconds(times: TrackTimes) -> npt.NDArray[np.float64]:
    numerators = (times.ticks - times.ticks[0]) * np.float64(times.tick.numerator)
    return np.asarray(numerators / times.tick.denominator)


def _length_s(times: TrackTimes) -> float:
    """Return seconds from the first frame to the end of the last."""
    ticks = int(times.ticks[-1] - times.ticks[0]) + times.last_ticks
    return float(ticks * times.tick)


def _is(container: "InputContainer", formats: frozenset[str]) -> bool:
    return not formats.isdisjoint(container.format.name.split(","))


def _info_of_frames(source: Source) -> TrackInfo:
    frames, times_s = source.frames, source.times_s
    if frames is None or times_s is None:
        raise SourceError(f"{source.name} holds no frames.")
    gaps_s = np.diff(times_s)
    num_frames, height_px, width_px, _ = frames.shape
    usual_s = float(np.median(gaps_s)) if len(gaps_s) else None
    return TrackInfo(
        duration_s=None if usual_s is None else float(times_s[-1] - times_s[0]) + usual_s,
        num_frames=num_frames,
        frame_rate_hz=None if usual_s is None else 1 / float(gaps_s.mean()),
        height_px=height_px,
        width_px=width_px,
        codec="raw",
        container="array",
        pixel_format="rgb24",
        bit_depth=8,
        colour_range="full",
        pts_s=times_s - times_s[0],
        # Finer than any gap, coarser than the error of float seconds.
        tick_s=min(1e-6, float(gaps_s.min()) / 2) if len(gaps_s) else 1e-6,
        keyframe_idxs=tuple(range(num_frames)),
        packet_idxs=np.arange(num_frames, dtype=np.int64),
    )
