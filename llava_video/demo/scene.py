"""Nothing → the frames of a small scene: a red ball rolls over a field, from left to right.

Painted with NumPy, the same on every machine. Knows no video file.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_SKY_TOP, _SKY_BOTTOM = (84, 146, 220), (206, 228, 246)
_FIELD = (86, 140, 66)
_BALL, _STRIPE = (204, 40, 36), (240, 234, 222)
_HORIZON = 0.62  # share of the height above the field
_BALL_SHARE = 0.13  # radius over height


def paint_scene(num_frames: int, height_px: int, width_px: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Paint the scene frame by frame; the ball enters at the left edge and leaves at the right.

    Args:
        num_frames: how many frames the crossing takes, >= 2.
        height_px: of each frame.
        width_px: of each frame.

    Yields:
        (height_px, width_px, 3) uint8, RGB.
    """
    empty = _field(height_px, width_px)
    radius_px = _BALL_SHARE * height_px
    y_px, x_px = np.ogrid[:height_px, :width_px]
    centre_y_px = (_HORIZON + _BALL_SHARE) * height_px
    for idx in range(num_frames):
        centre_x_px = idx / (num_frames - 1) * width_px
        from_y_px, from_x_px = y_px - centre_y_px, x_px - centre_x_px
        # A ball that rolls without slipping turns by its way over its radius.
        turned = np.arctan2(from_y_px, from_x_px) - centre_x_px / radius_px
        inside = from_y_px**2 + from_x_px**2 <= radius_px**2
        frame = empty.copy()
        frame[inside] = _BALL
        frame[inside & (np.abs(np.sin(turned)) < 0.25)] = _STRIPE
        yield frame


def _field(height_px: int, width_px: int) -> npt.NDArray[np.uint8]:
    horizon_px = round(_HORIZON * height_px)
    share = np.linspace(0, 1, horizon_px)[:, None, None]
    frame = np.empty((height_px, width_px, 3), dtype=np.uint8)
    frame[:horizon_px] = (1 - share) * np.array(_SKY_TOP) + share * np.array(_SKY_BOTTOM)
    frame[horizon_px:] = _FIELD
    return frame
