"""A decoded picture as stored → as shown: mirrored, turned, and with square pixels.

The same arithmetic for every reader, so that their frames are equal. Knows no container.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from PIL import Image

# A display matrix is only ever a few counts off a right angle; more is a real tilt.
_MAX_TILT_DEG = 1.0


@dataclass(frozen=True, slots=True)
class Orientation:
    """How a stored picture becomes upright: mirrored left to right first, then turned clockwise.

    Attributes:
        rotation_deg: 0, 90, 180 or 270, clockwise.
        mirrored: whether columns are reversed before the turn.
        tilt_deg: what is left of the angle and is not corrected; 0 for all but odd files.
    """

    rotation_deg: int = 0
    mirrored: bool = False
    tilt_deg: float = 0.0


def orientation_of(matrix: Sequence[int]) -> Orientation:
    """Read a display matrix.

    Args:
        matrix: 9 integers (a, b, u, c, d, v, x, y, w); the stored point (x, y), y downwards, is
            shown at (a x + c y, b x + d y).
            Source: FFmpeg, libavutil/display.h.
    """
    a, b, _, c, d = matrix[:5]
    if a == b == 0:  # nothing sensible was stored
        return Orientation()
    mirrored = a * d - b * c < 0
    turn_deg = math.degrees(math.atan2(-b, -a) if mirrored else math.atan2(b, a)) % 360
    quarter = round(turn_deg / 90)
    tilt_deg = turn_deg - quarter * 90
    return Orientation(
        quarter % 4 * 90, mirrored, tilt_deg if abs(tilt_deg) > _MAX_TILT_DEG else 0.0
    )


def shown_size(
    height_px: int, width_px: int, sample_aspect: Fraction, rotation_deg: int
) -> tuple[int, int]:
    """Return (height, width) as shown: the stored width is stretched, then the picture is turned.

    >>> shown_size(480, 720, Fraction(8, 9), 0)
    (480, 640)
    """
    stretched_px = max(1, round(width_px * sample_aspect))
    return (stretched_px, height_px) if rotation_deg % 180 else (height_px, stretched_px)


def turn(
    frame: npt.NDArray[np.uint8], rotation_deg: int, mirrored: bool = False
) -> npt.NDArray[np.uint8]:
    """Mirror a (H, W, 3) picture when asked, then turn it clockwise; a view, nothing is copied."""
    if mirrored:
        frame = frame[:, ::-1]
    return np.rot90(frame, k=-rotation_deg // 90)


def fit_size(frame: npt.NDArray[np.uint8], height_px: int, width_px: int) -> npt.NDArray[np.uint8]:
    """Return the picture at this size; Pillow's bicubic where it has another one.

    Other sizes come from pixels that are not square, and from files that change size midway.
    """
    if frame.shape[:2] == (height_px, width_px):
        return frame
    picture = Image.fromarray(np.ascontiguousarray(frame))
    return np.asarray(picture.resize((width_px, height_px), Image.Resampling.BICUBIC))
