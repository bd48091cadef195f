"""Made-up footage of any length -> a video file, in seconds: a clip's packets are repeated.

A textured picture is panned, squares move over it and a little noise lies on top, so that there are
motion and B-frames as in ordinary footage; what repeats is the time, not a decoder's work.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

RATE_HZ = 30
# Levels of noise: 1080p becomes 3 Mbit/s, keyframes of 140 kB and others of 12 kB.
_GRAIN = 25


def write_footage(
    path: Path,
    *,
    seconds: int,
    gop_frames: int,
    height_px: int = 1080,
    width_px: int = 1920,
    clip_s: int = 25,
    crf: int = 25,
) -> Path:
    """Write H.264 in the container of the suffix, 30 frames per second, B-frames, closed groups.

    Args:
        path: where to.
        seconds: length; rounded up to whole clips.
        gop_frames: frames from one keyframe to the next; divides the clip's frames.
        height_px: of a frame.
        width_px: of a frame.
        clip_s: length of what is encoded and then repeated.
        crf: x264's quality.
    """
    clip_s = min(clip_s, seconds)
    clip = path.with_name(f"{path.stem}_clip.mp4")
    options = {
        "preset": "veryfast",
        "crf": str(crf),
        "x264-params": f"keyint={gop_frames}:min-keyint={gop_frames}:scenecut=0:bframes=3",
    }
    with av.open(str(clip), "w") as file:
        track = file.add_stream("libx264", rate=RATE_HZ, options=options)
        track.height, track.width, track.pix_fmt = height_px, width_px, "yuv420p"
        for picture in _pictures(clip_s * RATE_HZ, height_px, width_px):
            file.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(track.encode(None))
    _repeat(clip, path, clip_s, -(-seconds // clip_s))
    clip.unlink()
    return path


def _pictures(num_frames: int, height_px: int, width_px: int) -> Iterator[npt.NDArray[np.uint8]]:
    generator = np.random.default_rng(0)
    coarse = generator.integers(
        0, 256, (height_px // 48 + 1, width_px // 24 + 1, 3), dtype=np.uint8
    )
    size = (width_px * 2, height_px + 128)
    scene = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    grain = generator.integers(0, _GRAIN, (8, height_px, width_px, 1), dtype=np.uint8)
    side_px = height_px // 6
    for idx in range(num_frames):
        left, top = idx * 3 % width_px, idx % 128
        picture = scene[top : top + height_px, left : left + width_px] // 8 * 7 + grain[idx % 8]
        for square in range(3):
            x = (idx * (5 + 4 * square)) % (width_px - side_px)
            y = (idx * (3 + square) + 200 * square) % (height_px - side_px)
            picture[y : y + side_px, x : x + side_px] = 60 * square + 40
        yield picture


def _repeat(clip: Path, path: Path, clip_s: int, times: int) -> None:
    with av.open(str(clip)) as source, av.open(str(path), "w") as file:
        track = source.streams.video[0]
        copy = file.add_stream_from_template(track)
        packets = [packet for packet in source.demux(track) if packet.size]
        tick = Fraction(track.time_base or 1)
        stamps = [(packet.pts, packet.dts) for packet in packets]
        for repeat in range(times):
            shift = round(repeat * clip_s / tick)
            for packet, (pts, dts) in zip(packets, stamps, strict=True):
                packet.stream, packet.time_base = copy, tick
                packet.pts, packet.dts = pts + shift, dts + shift
                file.mux_one(packet)
