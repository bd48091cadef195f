"""Pictures with times → a video file, by PyAV. For demonstrations and tests; knows no scene."""

import os
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llava_video.backends import require
from llava_video.errors import ConfigError


def write_clip(
    path: str | os.PathLike[str],
    frames: Iterable[npt.NDArray[np.uint8]],
    *,
    frame_rate_hz: Fraction | int = 30,
    times_s: Sequence[float] | None = None,
    ticks_per_s: int = 90_000,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    codec_options: Mapping[str, str] | None = None,
    rotation_deg: int = 0,
    mirrored: bool = False,
    sample_aspect: Fraction = Fraction(1),
    container: str | None = None,
) -> None:
    """Write a video without sound.

    Args:
        path: where to; the suffix names the container.
        frames: (H, W, 3) uint8 RGB, all of one size, as stored (before any turn).
        frame_rate_hz: frames per second, and the rate the file states.
        times_s: a time for each frame, s, ascending, ascending; None spaces them evenly.
        ticks_per_s: steps those times are rounded to; MPEG-4 takes at most 65,535.
        codec: FFmpeg's name of the encoder.
        pixel_format: stored pixels, "yuv420p10le" for 10 bits.
        codec_options: the encoder's own options.
        rotation_deg: clockwise turn a player should make, written as the display matrix.
        mirrored: whether a player should first reverse the picture left to right.
        sample_aspect: width of a stored pixel over its height.
        container: FFmpeg's name of the container; None takes the suffix.

    Raises:
        ConfigError: no frames, or not as many times as frames.
        BackendMissingError: without PyAV.
    """
    av = require("av")
    tick = 1 / Fraction(frame_rate_hz) if times_s is None else Fraction(1, ticks_per_s)
    num_frames = 0
    with av.open(str(Path(path)), "w", format=container) as file:
        track = None
        for picture in frames:
            if track is None:
                track = _add_track(file, codec, frame_rate_hz, codec_options)
                track.height, track.width = picture.shape[:2]
                track.pix_fmt = pixel_format
                track.codec_context.time_base = tick
                track.codec_context.sample_aspect_ratio = sample_aspect
                if rotation_deg or mirrored:
                    _set_orientation(track, rotation_deg, mirrored)
            if times_s is not None and num_frames >= len(times_s):
                raise ConfigError(f"more frames than the {len(times_s)} times.")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            frame.time_base = tick
            frame.pts = num_frames if times_s is None else round(times_s[num_frames] / tick)
            file.mux(track.encode(frame))
            num_frames += 1
        if track is None or (times_s is not None and num_frames < len(times_s)):
            raise ConfigError(f"{num_frames} frames, {times_s and len(times_s)} times.")
        file.mux(track.encode(None))


def _add_track(
    file: Any, codec: str, rate_hz: Fraction | int, options: Mapping[str, str] | None
) -> Any:
    track = file.add_stream(codec, rate=rate_hz, options=dict(options or {}))
    track.codec_context.thread_count = 1  # the same bytes on every machine
    return track


def _set_orientation(track: Any, rotation_deg: int, mirrored: bool) -> None:
    """Write the display matrix: mirrored first, then turned clockwise."""
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[rotation_deg % 360]
    flip = -1 if mirrored else 1
    one, corner = 1 << 16, 1 << 30
    matrix = [flip * cos * one, flip * sin * one, 0, -sin * one, cos * one, 0, 0, 0, corner]
    track.set_display_matrix(matrix)
