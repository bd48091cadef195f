"""A number ↔ a picture of eight black or white bars, bit i in bar i from the left.

Bars survive compression, scaling and colour conversion, so the number read back says which frame a
picture really is. NumPy only; knows no video.
"""

import numpy as np
import numpy.typing as npt

NUM_BARS = 8


def paint_index(idx: int, height_px: int, width_px: int) -> npt.NDArray[np.uint8]:
    """Paint a number's lowest eight bits as bars.

    Args:
        idx: >= 0; 256 looks like 0 again.
        height_px: height of the picture.
        width_px: width of the picture, >= 8.

    Returns:
        (height_px, width_px, 3) uint8, 0 for a bit that is 0, 255 for one.
    """
    bar_idxs = np.arange(width_px) * NUM_BARS // width_px
    levels = ((idx >> bar_idxs) & 1).astype(np.uint8) * np.uint8(255)
    return np.broadcast_to(levels[None, :, None], (height_px, width_px, 3)).copy()


def read_index(frame: npt.NDArray[np.uint8]) -> int:
    """Read the number of a picture of bars.

    Args:
        frame: (H, W, 3) uint8, W >= 8, of any size the painted picture was brought to.

    Returns:
        0..255; of a picture without bars, a number without meaning.
    """
    height_px, width_px = frame.shape[:2]
    rows = frame[height_px // 4 : max(height_px // 4 + 1, height_px * 3 // 4)]
    idx = 0
    for bar_idx in range(NUM_BARS):
        left_px = -(-bar_idx * width_px // NUM_BARS)
        right_px = -(-(bar_idx + 1) * width_px // NUM_BARS)
        inset_px = (right_px - left_px) // 4  # compression and scaling blur the edges of a bar
        idx |= int(rows[:, left_px + inset_px : right_px - inset_px].mean() >= 127.5) << bar_idx
    return idx
