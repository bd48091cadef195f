"""Frames by torchcodec: files it reads exactly, one by one. Only where it is asked for by name.

torchcodec turns frames by the rotation it finds itself, knows neither mirrors nor the sample aspect
ratio, and seeks by the presentation times of keyframes, so it is wrong where those do not lead to a
clean start. Tried with torchcodec 0.17.0 on FFmpeg 5.1, every frame of 48, in random order:

    exact           H.264, HEVC (open groups too), AV1, VP9, MPEG-4 in MP4, MKV, WebM, FLV
    wrong pictures  MPEG-TS, MPEG-PS, AVI, H.264 with gradual refresh, mirrored pictures
    other colours   10 bits with colour: up to 120 levels from PyAV's at edges

What is exact is bit-equal to PyAV, but for VP9 of odd sizes (a level here and there). Each frame's
time is compared with the probe's as it comes.
"""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from torchcodec.decoders import VideoDecoder

from llava_video.errors import DecodeError
from llava_video.video.probe import TrackInfo
from llava_video.video.source import Source
from llava_video.video.upright import fit_size

_FORMATS = frozenset({"mov", "matroska", "flv"})  # PyAV's names of the MP4 and the WebM family
_ERRORS = (RuntimeError, ValueError, IndexError, OSError)
_HINT = 'reader="auto" reads it with PyAV.'


def torchcodec_objection(info: TrackInfo) -> str | None:
    """Say why torchcodec may not read a track, from the probe alone; None when it may."""
    container = info.container.split(",")[0]
    objections = (
        (container not in _FORMATS, f"the container is {container}"),
        (info.by_order, "its frames are told by order, not by time"),
        (info.num_hidden > 0, "its edit list hides frames"),
        (info.mirrored, "its picture is mirrored"),
        ((info.bit_depth or 8) > 8, f"its pixels have {info.bit_depth} bits"),
        (
            info.codec == "vp9" and bool(info.height_px % 2 or info.width_px % 2),
            "its sides are odd, in VP9",
        ),
        (not info.clean_keys, "not every keyframe of it is a clean start"),
        (bool(info.faults), f"the file is faulty: {'; '.join(info.faults).rstrip('.')}"),
    )
    return next((text for holds, text in objections if holds), None)


class TorchcodecReader:
    """Read one source with torchcodec; calls from several threads take turns.

    Raises:
        DecodeError: when torchcodec cannot open it, or counts other frames than the probe.
    """

    def __init__(self, source: Source, info: TrackInfo) -> None:
        self._name, self._info = source.name, info
        self._first_s = info.first_ticks * info.tick_s
        self._lock = threading.Lock()
        # An absolute path, because FFmpeg takes what stands before a colon for a protocol.
        place = source.content if source.path is None else str(source.path.absolute())
        try:
            self._reader: VideoDecoder | None = VideoDecoder(
                place,
                stream_index=info.track_idx,
                dimension_order="NHWC",
                num_ffmpeg_threads=0,  # as many as FFmpeg likes
                seek_mode="exact",  # by a scan of all packets, not by the header
            )
        except _ERRORS as cause:
            raise DecodeError(f"torchcodec cannot open {source.name}.", _HINT) from cause
        num_frames = len(self._reader)
        if num_frames != info.num_frames:
            found = f"torchcodec counts {num_frames} frames of {info.num_frames} in {source.name}."
            raise DecodeError(found, _HINT)

    def frames(self, idxs: Sequence[int]) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """Yield (index, (H, W, 3) uint8 upright frame) for ascending indices.

        Raises:
            DecodeError: at the first frame that does not decode, or has another time.
        """
        for idx in idxs:
            yield idx, self._read(int(idx))

    def close(self) -> None:
        """Free torchcodec's decoder."""
        with self._lock:
            self._reader = None

    def _read(self, idx: int) -> npt.NDArray[np.uint8]:
        pts_s = float(self._info.pts_s[idx])
        what = f"{self._name} at {pts_s:.2f} s"
        with self._lock:
            if self._reader is None:
                raise DecodeError(f"{self._name} is closed.", "open it again.", pts_s=pts_s)
            try:
                frame = self._reader.get_frame_at(idx)
                pixels = np.asarray(frame.data.numpy(), dtype=np.uint8)
            except _ERRORS as cause:
                message = f"torchcodec cannot decode {what}."
                raise DecodeError(message, _HINT, pts_s=pts_s) from cause
        off_s = abs(frame.pts_seconds - self._first_s - pts_s)
        if not off_s <= self._info.tick_s / 2:
            message = f"torchcodec gives another frame for {what}, {off_s:.3f} s off."
            raise DecodeError(message, _HINT, pts_s=pts_s)
        return fit_size(pixels, self._info.height_px, self._info.width_px)
