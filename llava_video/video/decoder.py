"""A `Source` → a `Decoder`: which package reads it, and why.

"auto" is PyAV with the seek planner: exact for every kind of file, and faster than decord wherever
decord is exact (docs/reading.md has the table). decord may be asked for, and reads only what it
reads exactly: 8-bit 4:2:0 H.264 and VP9 in MP4, MOV, MKV or WebM, told apart by the probe, and then
only when its own timestamps are the file's and its first frame is PyAV's. The choice is made once
and stands in `backend` and `reason`.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, Self, get_args

import numpy as np
import numpy.typing as npt

from llava_video import backends
from llava_video.errors import ConfigError, DecodeError
from llava_video.values import Clip, VideoInfo
from llava_video.video.clips import Frame, clips_at
from llava_video.video.probe import TrackInfo, probe
from llava_video.video.settings import BackendName
from llava_video.video.source import Source

_DECORD_CODECS = frozenset({"h264", "vp9"})
_DECORD_FORMATS = frozenset({"mov", "matroska"})  # PyAV's names of the MP4 and the WebM family
_DECORD_PIXELS = frozenset({"yuv420p", "yuvj420p"})
# decord keeps its times in float32.
_FLOAT32_STEP = float(np.finfo(np.float32).eps)


class Decoder(Protocol):
    """A source that can be asked for frames.

    Attributes:
        info: what the probe found.
        backend: "decord", "pyav", "torchcodec" or "frames" (decoded by the user).
        reason: why this backend, one sentence.
    """

    info: VideoInfo
    backend: str
    reason: str

    def clips_at(self, times_s: Sequence[float], *, chunk_frames: int = 8) -> Iterator[Clip]:
        """Yield the frames shown at ascending times, each decoded once, in bounded pieces.

        Frames that a damaged file does not give are left out.

        Args:
            times_s: seconds from the first frame; equal ones repeat the frame.
            chunk_frames: most frames in one clip.

        Raises:
            ConfigError: times that are not finite and ascending.
            DecodeError: none of the frames can be decoded.
        """

    def close(self) -> None:
        """Free what is held open."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *raised: object) -> None: ...


class _Reader(Protocol):
    def frames(self, idxs: Sequence[int]) -> Iterator[tuple[int, Frame]]: ...

    def close(self) -> None: ...


def open_decoder(
    source: Source, *, backend: BackendName = "auto", info: VideoInfo | None = None
) -> Decoder:
    """Choose and open the reader of a source.

    Args:
        source: from `open_source`.
        backend: "auto" is PyAV; a named backend never falls back.
        info: of an earlier `probe` of the same source, which saves another one.

    Raises:
        SourceError: no video.
        DecodeError: no frames, or the named backend does not read this file exactly.
        BackendMissingError: PyAV, or the named backend, is not installed.
        ConfigError: a backend named for frames that are already decoded.
    """
    if backend not in get_args(BackendName):
        hint = f"allowed: {', '.join(map(repr, get_args(BackendName)))}."
        raise ConfigError(f"reader = {backend!r}.", hint)
    if source.frames is not None:
        return _open_frames(source, backend)
    track = info if isinstance(info, TrackInfo) else probe(source)
    pyav = _pyav(source, track)
    if backend == "torchcodec":
        return _Decoder(source.name, track, _torchcodec(source, track, pyav), backend, "asked for.")
    if backend == "decord":
        return _Decoder(source.name, track, _decord(source, track, pyav), "decord", "asked for.")
    return _Decoder(
        source.name, track, pyav, "pyav", "asked for." if backend == "pyav" else _why_pyav(track)
    )


def _why_pyav(info: TrackInfo) -> str:
    objection = decord_objection(info)
    if objection:
        return f"PyAV is exact, decord is not: {objection}."
    return "PyAV is exact, and faster than decord."


def decord_objection(info: TrackInfo) -> str | None:
    """Say why decord may not read a track, from the probe alone; None when it may."""
    container = info.container.split(",")[0]
    objections = (
        (info.codec not in _DECORD_CODECS, f"the codec is {info.codec}"),
        (info.pixel_format not in _DECORD_PIXELS, f"the pixels are {info.pixel_format}"),
        (container not in _DECORD_FORMATS, f"the container is {container}"),
        (info.by_order, "its frames are told by order, not by time"),
        (info.num_hidden > 0, "its edit list hides frames"),
        (info.mirrored, "its picture is mirrored"),
        # Tried: decord gives 7 to 80 % wrong frames after a seek to such a keyframe.
        (not info.clean_keys, "not every keyframe of it is a clean start (open GOP)"),
        (bool(info.faults), f"the file is faulty: {'; '.join(info.faults).rstrip('.')}"),
    )
    return next((text for holds, text in objections if holds), None)


class _Decoder:
    """A reader with the clips made of its frames."""

    def __init__(
        self, name: str, info: TrackInfo, reader: _Reader, backend: str, reason: str
    ) -> None:
        self.info: VideoInfo = info
        self.backend, self.reason = backend, reason
        self._name, self._reader = name, reader

    def __repr__(self) -> str:
        return f"Decoder({self.backend}: {self.reason})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def clips_at(self, times_s: Sequence[float], *, chunk_frames: int = 8) -> Iterator[Clip]:
        """See `Decoder`."""
        return clips_at(
            self.info, times_s, self._reader.frames, chunk_frames=chunk_frames, name=self._name
        )

    def close(self) -> None:
        """See `Decoder`."""
        self._reader.close()


def _open_frames(source: Source, backend: BackendName) -> Decoder:
    from llava_video.video.decode_frames import FramesReader

    if backend != "auto":
        raise ConfigError(
            f"reader = {backend!r} for frames that are decoded already.", 'use reader="auto".'
        )
    if source.frames is None:
        raise ConfigError("a source without frames.")
    return _Decoder(
        source.name, probe(source), FramesReader(source.frames), "frames", "decoded by the caller."
    )


def _pyav(source: Source, info: TrackInfo) -> _Reader:
    backends.require("av")
    from llava_video.video.decode_pyav import PyavReader

    return PyavReader(source, info)


def _decord(source: Source, info: TrackInfo, pyav: _Reader) -> _Reader:
    """Open decord's reader.

    Raises:
        DecodeError: it does not read this file exactly. BackendMissingError: it is not there.
    """
    objection = decord_objection(info)
    if not objection:
        backends.require("decord")
        from llava_video.video.decode_decord import DecordReader

        reader = DecordReader(source, info)
        objection = _times_differ(reader.pts_s(), info) or _first_frame_differs(reader, pyav)
        if not objection:
            return reader
        reader.close()
    raise DecodeError(
        f"decord does not read {source.name} exactly: {objection}.",
        'reader="auto" reads it with PyAV.',
    )


def _torchcodec(source: Source, info: TrackInfo, pyav: _Reader) -> _Reader:
    """Open torchcodec's reader, which is only ever asked for by name."""
    backends.require("torchcodec")
    from llava_video.video.decode_torchcodec import TorchcodecReader, torchcodec_objection

    objection = torchcodec_objection(info)
    if objection is None:
        reader = TorchcodecReader(source, info)
        objection = _first_frame_differs(reader, pyav)
        if objection is None:
            return reader
        reader.close()
    raise DecodeError(
        f"torchcodec does not read {source.name} exactly: {objection}.",
        'reader="auto" reads it with PyAV.',
    )


def _times_differ(pts_s: npt.NDArray[np.float64], info: TrackInfo) -> str | None:
    if len(pts_s) != info.num_frames:
        return f"decord counts {len(pts_s)} frames of {info.num_frames}"
    # Rounding of the start and of the time itself, one step each, and of PyAV's own division.
    allowed_s = 3 * _FLOAT32_STEP * (np.abs(info.pts_s) + abs(info.first_ticks) * info.tick_s)
    off_s = np.abs(pts_s - info.pts_s)
    if (off_s > allowed_s + 1e-9).any():
        return f"decord's times are off by up to {off_s.max():.3g} s"
    return None


def _first_frame_differs(reader: _Reader, pyav: _Reader) -> str | None:
    """Compare pixels once: orientation and colour can differ where the times agree."""
    one, other = next(reader.frames([0]), None), next(pyav.frames([0]), None)
    if one is None or other is None or not np.array_equal(one[1], other[1]):
        return "its first frame differs from PyAV's"
    return None
