"""Videos made for tests: every frame shows its own index, and which side is up.

The bars of `llava_video.world.bars` carry the index; a black strip along the top and a white one
along the bottom tell a turn by 180 degrees from a mirror image.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.codec
import numpy as np
import numpy.typing as npt

from llava_video.world.bars import paint_index, read_index
from llava_video.world.clip import write_clip

__all__ = [
    "can_encode",
    "indices",
    "is_upright",
    "paint_frame",
    "read_index",
    "remux",
    "write_video",
]

os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder announces itself on stderr otherwise

Frame = npt.NDArray[np.uint8]

_QUICK: dict[str, dict[str, str]] = {
    "libx264": {"preset": "ultrafast", "bf": "2", "g": "12"},
    "libx265": {
        "preset": "ultrafast",
        "x265-params": "log-level=none:keyint=12:min-keyint=12:bframes=3:scenecut=0:open-gop=1",
    },
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "g": "12"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "g": "12"},
    # Quicker presets take one picture of bars for another.
    "libsvtav1": {"preset": "8", "g": "12", "crf": "20"},
    "mpeg4": {"bf": "2", "g": "12"},
    "mpeg2video": {"bf": "2", "g": "12"},
}


def can_encode(codec: str) -> bool:
    """Say whether this PyAV has the encoder."""
    try:
        av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def paint_frame(idx: int, height_px: int = 96, width_px: int = 160) -> Frame:
    """Paint an index, a black strip above it and a white one below."""
    frame = paint_index(idx, height_px, width_px)
    strip_px = height_px // 6
    frame[:strip_px], frame[-strip_px:] = 0, 255
    return frame


def is_upright(frame: Frame) -> bool:
    """Say whether the strips of `paint_frame` are where they were painted."""
    strip_px = len(frame) // 12
    return bool(frame[:strip_px].mean() < 40 and frame[-strip_px:].mean() > 215)


def write_video(
    path: Path,
    num_frames: int = 48,
    *,
    codec: str = "libx264",
    height_px: int = 96,
    width_px: int = 160,
    rotation_deg: int = 0,
    mirrored: bool = False,
    codec_options: dict[str, str] | None = None,
    **options: Any,
) -> Path:
    """Write a video whose frame i shows i, upright once the file's display matrix is obeyed.

    Args:
        path: where to; the suffix names the container.
        num_frames: frames, at most 256 for indices to differ.
        codec: FFmpeg's name of the encoder; quick settings with B-frames and a keyframe every 12.
        height_px: height as shown.
        width_px: width as shown.
        rotation_deg: as `write_clip`.
        mirrored: as `write_clip`.
        codec_options: over the quick settings.
        **options: as `write_clip`.
    """

    def frames() -> Iterator[Frame]:
        for idx in range(num_frames):
            stored = np.rot90(paint_frame(idx, height_px, width_px), k=rotation_deg // 90)
            yield stored[:, ::-1] if mirrored else stored

    write_clip(
        path,
        frames(),
        codec=codec,
        rotation_deg=rotation_deg,
        mirrored=mirrored,
        codec_options=_QUICK.get(codec, {}) | (codec_options or {}),
        **options,
    )
    return path


def remux(path: Path, copy: Path, **options: str) -> Path:
    """Write a video's packets into another file, and return its path.

    Args:
        path: from where.
        copy: where to; the suffix names the container.
        **options: of the container's writer.
    """
    with av.open(str(path)) as old, av.open(str(copy), "w", options=options) as new:
        track = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = track
                new.mux(packet)
    return copy


def indices(clips: Any) -> list[int]:
    """Read the indices that the frames of clips show."""
    return [read_index(frame) for clip in clips for frame in clip.frames]
