"""What a user hands over → opened visuals: a decoder or a picture, and the item the planner sees.

The door between the user's words (a path, bytes, an array, a list of `Video` and `Picture`) and the
towers of floor 1. Decodes no frame that is not asked for, but the first; knows no model.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llava_video.errors import ConfigError
from llava_video.options import Sandbox, Time
from llava_video.planning.moments import video_end_s
from llava_video.planning.planner import ImageItem, VideoItem
from llava_video.planning.settings import Rule, Sampler, SamplingSettings
from llava_video.values import Clip, Plan, Segment, VideoInfo, VisualPlan
from llava_video.video.decoder import Decoder, open_decoder
from llava_video.video.picture import read_picture
from llava_video.video.sandbox import DecoderPool, open_sandboxed
from llava_video.video.settings import BackendName, FetchSettings, SandboxSettings
from llava_video.video.source import Source, open_source
from llava_video.video.span import parse_time

# PNG, JPEG, BMP and TIFF in either byte order; WebP is asked for apart.
_PICTURE_STARTS = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")
# Motion JPEG is pictures without a container, and begins like one of them.
_MOTION_SUFFIXES = frozenset({".mjpeg", ".mjpg"})

_CHUNK_FRAMES = 8
_DEFAULT_FETCH = FetchSettings()


@dataclass(frozen=True, slots=True)
class Video:
    """One video of a request, with its own span and sampling; None takes the request's.

    Attributes:
        address: path, URL, bytes, file object, or (frames (T, H, W, 3) uint8, times_s (T,)).
        start: first moment, inclusive; seconds, "MM:SS" or "HH:MM:SS.mmm".
        end: end of the span, exclusive; as `start`.
        fps: frames per second of video.
        num_frames: an exact count.
        max_frames: a cap.
        sampling: which moments: "uniform", "keyframe", "scene", "dedupe" or a `Sampler`.
        info: what is known of it already, from `Decoder.info`; None probes the file.
    """

    address: Any
    _: KW_ONLY
    start: Time | None = None
    end: Time | None = None
    fps: float | None = None
    num_frames: int | None = None
    max_frames: int | None = None
    sampling: Rule | Sampler | None = None
    info: VideoInfo | None = None

    def sampled_by(self, base: SamplingSettings) -> SamplingSettings:
        """Return the request's sampling with this video's own settings folded in."""
        own: dict[str, Any] = {
            "start_s": None if self.start is None else parse_time(self.start),
            "end_s": None if self.end is None else parse_time(self.end),
            "fps": self.fps,
            "num_frames": self.num_frames,
            "max_frames": self.max_frames,
            "rule": self.sampling,
        }
        if self.sampling is not None and self.sampling != base.rule:
            # How the request's rule scans says nothing of another rule.
            base = replace(base, scan_fps=None, max_scan_frames=None, dedupe_threshold=None)
        return replace(base, **{name: value for name, value in own.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Picture:
    """One still picture of a request: path, URL, bytes, PIL image or (H, W, 3) uint8 array."""

    address: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedVideo:
    """A probed video, ready to decode; one decoder serves one request at a time."""

    source: Source
    decoder: Decoder
    identity: str
    sampling: SamplingSettings

    @property
    def name(self) -> str:
        """The source, for people."""
        return self.source.name

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width as shown, px."""
        return self.decoder.info.height_px, self.decoder.info.width_px

    @property
    def item(self) -> VideoItem:
        """What the planner sees."""
        return VideoItem(info=self.decoder.info, name=self.name, sampling=self.sampling)

    @property
    def span(self) -> Segment:
        """The span that is looked at."""
        end_s = video_end_s(self.decoder.info)
        if self.sampling.end_s is not None:
            end_s = min(end_s, self.sampling.end_s)
        return Segment(self.sampling.start_s or 0.0, end_s)

    def clips(self, plan: VisualPlan) -> Iterator[Clip]:
        """Decode exactly the plan's frames, in pieces of bounded memory.

        Asks by the frames' true times: under compat="reference" the plan's own times are the
        reference's arithmetic and need not fall on the frames it names.
        """
        info = self.decoder.info
        times_s = info.pts_s[np.asarray(plan.frame_idxs)]
        yield from self.decoder.clips_at(times_s.tolist(), chunk_frames=_CHUNK_FRAMES)

    def part(self, segment: Segment) -> Video:
        """Return a part of the video as an input; nothing is fetched or probed again."""
        sampling = self.sampling
        return Video(
            self.source,
            start=segment.start_s,
            end=segment.end_s,
            fps=sampling.fps,
            num_frames=sampling.num_frames,
            max_frames=sampling.max_frames,
            sampling=sampling.rule,
            info=self.decoder.info,
        )

    def only_at(self, times_s: Sequence[float]) -> "OpenedVideo":
        """Return the same video, sampled at exactly these times, s."""
        sampling = SamplingSettings(times_s=tuple(times_s), end_s=self.sampling.end_s)
        return replace(self, sampling=sampling)

    def close(self) -> None:
        """Close the decoder and its file."""
        self.decoder.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedPicture:
    """A decoded picture."""

    frame: npt.NDArray[np.uint8]
    name: str
    identity: str

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width, px."""
        height_px, width_px = self.frame.shape[:2]
        return height_px, width_px

    @property
    def item(self) -> ImageItem:
        """What the planner sees."""
        height_px, width_px = self.size_px
        return ImageItem(height_px=height_px, width_px=width_px, name=self.name)

    def clips(self, plan: VisualPlan) -> Iterator[Clip]:
        """Yield the picture as a clip of one frame."""
        del plan  # a picture is one frame whatever the plan says of its tiles
        yield Clip(self.frame[None], np.zeros(1), np.zeros(1, dtype=np.int64))

    def only_at(self, times_s: Sequence[float]) -> "OpenedPicture":
        """Return itself: a picture has no times."""
        del times_s
        return self

    def close(self) -> None:
        """Nothing is held open."""


Opened = OpenedVideo | OpenedPicture


def open_visuals(
    visuals: Any,
    sampling: SamplingSettings,
    reader: BackendName = "auto",
    fetch: FetchSettings = _DEFAULT_FETCH,
    sandbox: Sandbox = False,
) -> tuple[Opened, ...]:
    """Open what the user handed over, in order; nothing stays open when one of them fails.

    Args:
        visuals: one address (a picture when its first bytes say so), one `Video` or `Picture`, a
            sequence of those, or None for text alone.
        sampling: the request's sampling, for videos that have none of their own.
        reader: which decoder backend reads videos.
        fetch: whom a download may ask, and its limits.
        sandbox: whether each video is read in a process of its own, and with which limits; True
            takes the defaults. A `DecoderPool` lends one of its own.

    Raises:
        SourceError, DecodeError: when an address cannot be read.
        ConfigError: for a bare list of addresses, which could mean one prompt or many.
    """
    opened: list[Opened] = []
    try:
        for visual in _as_sequence(visuals):
            opened.append(_open_one(visual, sampling, reader, fetch, sandbox))
    except BaseException:
        close_all(opened)
        raise
    return tuple(opened)


def only_video(opened: Sequence[Opened]) -> OpenedVideo:
    """Return the one video among what was opened, closed again: its parts are opened anew.

    Raises:
        ConfigError: there is none, or something beside it.
    """
    close_all(opened)
    if len(opened) != 1 or not isinstance(opened[0], OpenedVideo):
        raise ConfigError("a timeline is of one video.", "give one video.")
    return opened[0]


def reopen(
    plan: Plan,
    video: Any,
    reader: BackendName = "auto",
    fetch: FetchSettings = _DEFAULT_FETCH,
    sandbox: Sandbox = False,
) -> tuple[Opened, ...]:
    """Open a plan's visuals again, by the names in it or from what the caller hands over.

    Raises:
        ConfigError: when they are not the visuals that were planned.
    """
    if video is None:
        video = [
            Picture(v.source) if v.kind == "image" else Video(address=v.source)
            for v in plan.visuals
        ]
    opened = open_visuals(video, SamplingSettings(), reader, fetch, sandbox)
    try:
        _check_same(plan, opened)
    except BaseException:
        close_all(opened)
        raise
    return opened


def _check_same(plan: Plan, opened: Sequence[Opened]) -> None:
    hint = "plan it again, or pass what was planned as video=."
    if plan.prompt.count("<image>") != len(plan.visuals) or not all(
        visual.frame_idxs for visual in plan.visuals
    ):
        raise ConfigError("the plan's marks, visuals and frames do not match.", "plan it again.")
    if len(opened) != len(plan.visuals):
        raise ConfigError(f"{len(plan.visuals)} visuals planned, {len(opened)} given.", hint)
    for visual, own in zip(plan.visuals, opened, strict=True):
        planned = f"{visual.source} was planned as {visual.kind}"
        if (visual.kind == "video") != isinstance(own, OpenedVideo):
            raise ConfigError(f"{planned}; {own.name} is not one.", hint)
        if own.size_px != (visual.height_px, visual.width_px):
            height_px, width_px = own.size_px
            raise ConfigError(
                f"{planned}, {visual.width_px} px wide and {visual.height_px} px high; it is "
                f"{width_px} px wide and {height_px} px high.",
                hint,
            )
        if isinstance(own, OpenedVideo) and not _has_frames(own.decoder.info, visual):
            raise ConfigError(f"{planned} with other frames or times.", hint)


def _has_frames(info: VideoInfo, visual: VisualPlan) -> bool:
    """Whether the planned frames are there, at the planned times or at the reference's."""
    idxs = np.asarray(visual.frame_idxs)
    if idxs.max() >= info.num_frames:
        return False
    rate_hz = info.frame_rate_hz or 1.0
    return any(
        np.allclose(times_s, visual.times_s, rtol=0, atol=info.tick_s)
        for times_s in (info.pts_s[idxs], idxs / rate_hz)
    )


def close_all(opened: Sequence[Opened]) -> None:
    """Close every visual."""
    for visual in opened:
        visual.close()


def _as_sequence(visuals: Any) -> Sequence[Any]:
    if visuals is None:
        return ()
    if not isinstance(visuals, list) and not _is_tuple_of_parts(visuals):
        return (visuals,)
    if not all(isinstance(part, Video | Picture) for part in visuals):
        raise ConfigError(
            "a list of visuals holds something that is neither Video nor Picture.",
            "for one prompt with several, wrap each; for one answer each, call batch().",
        )
    return list(visuals)


def _is_tuple_of_parts(visuals: Any) -> bool:
    # A tuple may also be (frames, times_s), which is one video.
    return isinstance(visuals, tuple) and all(isinstance(p, Video | Picture) for p in visuals)


def _open_one(
    visual: Any,
    sampling: SamplingSettings,
    reader: BackendName,
    fetch: FetchSettings,
    sandbox: Sandbox,
) -> Opened:
    if isinstance(visual, Picture):
        return _open_picture(visual.address, fetch)
    if type(visual).__module__.startswith("PIL."):
        return _open_picture(visual)
    video = visual if isinstance(visual, Video) else Video(address=visual)
    source = open_source(video.address, fetch_settings=fetch)
    if not isinstance(visual, Video) and _is_picture(source):
        return _open_picture(source)
    if isinstance(sandbox, DecoderPool):
        decoder = sandbox.open(source, backend=reader, info=video.info)
    elif sandbox:
        limits = SandboxSettings() if sandbox is True else sandbox
        decoder = open_sandboxed(source, backend=reader, info=video.info, settings=limits)
    else:
        decoder = open_decoder(source, backend=reader, info=video.info)
    identity = _fingerprint(source)
    return OpenedVideo(
        source=source, decoder=decoder, identity=identity, sampling=video.sampled_by(sampling)
    )


def _open_picture(address: Any, fetch: FetchSettings = _DEFAULT_FETCH) -> OpenedPicture:
    frame = read_picture(address, fetch_settings=fetch)
    name = f"picture {frame.shape[1]}x{frame.shape[0]}"
    if isinstance(address, Source):
        name = address.name
    elif isinstance(address, str | os.PathLike):
        name = str(address)
    return OpenedPicture(frame=frame, name=name, identity=_digest(frame))


def _is_picture(source: Source) -> bool:
    """Whether the first bytes are those of a still picture; FFmpeg would read it as a video."""
    if source.frames is not None or Path(source.name).suffix.lower() in _MOTION_SUFFIXES:
        return False
    if source.content is not None:
        head = source.content[:16]
    else:
        with Path(source.path or "").open("rb") as file:
            head = file.read(16)
    return head.startswith(_PICTURE_STARTS) or (head[:4], head[8:12]) == (b"RIFF", b"WEBP")


def _fingerprint(source: Source) -> str:
    """Name a source's content for cache keys, without reading a whole film when a file will do."""
    if source.kind != "path" or source.path is None or source.spool is not None:
        return source.identity()  # a download's file has another name and date each time
    status = source.path.stat()
    return f"{source.path.resolve()} {status.st_size} bytes, modified {status.st_mtime_ns} ns"


def _digest(frame: npt.NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(frame).data).hexdigest()
