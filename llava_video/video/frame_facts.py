"""The first decoded frame → what its pixels are: bits, range, and what is odd about them.

Containers may say other things, or nothing; the frame is what will be converted. Reads no pixels.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llava_video.video.upright import Orientation, orientation_of

if TYPE_CHECKING:
    from av.video.format import VideoFormat
    from av.video.frame import VideoFrame

ColourRange = Literal["limited", "full"]

_RANGES: dict[int, ColourRange] = {1: "limited", 2: "full"}  # Source: FFmpeg, AVColorRange
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # Source: ITU-T H.273, table 3


def colour_range(frame: "VideoFrame") -> ColourRange | None:
    """Return which values stand for black and white; None when nobody says, which means limited.

    Limited are 16 and 235 of 8 bits, full are 0 and 255. RGB is full, and so are FFmpeg's formats
    "yuvj…", whatever else is said.
    """
    if frame.format.is_rgb or frame.format.name.startswith("yuvj"):
        return "full"
    return _RANGES.get(int(frame.color_range))


def bit_depth(pixels: "VideoFormat") -> int | None:
    """Return the bits of one stored sample, the most of any component; None of opaque formats."""
    return max((component.bits for component in pixels.components), default=None)


def odd_pixels(frame: "VideoFrame", transfer: int) -> Iterator[str]:
    """Yield what is odd, one sentence each.

    Args:
        frame: the first one.
        transfer: the codec's transfer characteristic, as ITU-T H.273 counts them.
    """
    if frame.interlaced_frame:
        yield "its pictures are interlaced: two moments in one picture, and left so."
    if transfer in _HDR_TRANSFERS:
        yield f"its colours are HDR ({_HDR_TRANSFERS[transfer]}), shown unmapped."


def orientation_in(frame: "VideoFrame | None") -> Orientation:
    """Return how a decoded frame becomes upright, by its display matrix; as it is without one."""
    if frame is None:
        return Orientation()
    sides: Any = frame.side_data  # PyAV's stub calls the items by their base's name
    for side in sides:
        if side.type.name == "DISPLAYMATRIX":
            return orientation_of(np.frombuffer(side, dtype=np.int32).tolist())
    return Orientation()
