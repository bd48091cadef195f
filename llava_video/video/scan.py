"""A decoder and times → how much each frame differs from an earlier one: numbers, no pixels.

What sampling by content is made from. At most one clip and one more frame are held. Two measures,
each for its question: thumbnails for whether it is another picture, blocks for whether anything at
all has changed. Knows no rule of sampling.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from llava_video.values import Scan
from llava_video.video.clips import Frame
from llava_video.video.decoder import Decoder

THUMBNAIL_SIZE = 18, 32  # rows, columns: 16:9, a cell is 60 px of a 1080p frame
BLOCK_PX = 8

# Pixels read of a cell, per side: 64 of them make noise of 8 grey levels one level.
_CELL_SAMPLES = 8
# Luma of ITU-R BT.601, as still pictures have it.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def scan_cuts(decoder: Decoder, times_s: Sequence[float]) -> Scan:
    """Measure how far each frame is from the one before it: `thumbnail_change`.

    Args:
        decoder: of the video.
        times_s: ascending, seconds from the first frame.

    Raises:
        DecodeError: none of the frames can be decoded.
    """
    before: npt.NDArray[np.float32] | None = None

    def change(frame: Frame) -> float:
        nonlocal before
        last, before = before, thumbnail(frame)
        return np.inf if last is None else thumbnail_change(last, before)

    return _scan(decoder, times_s, change)


def scan_changes(decoder: Decoder, times_s: Sequence[float], *, threshold: float) -> Scan:
    """Measure how far each frame is from the last one that was new: `block_change`.

    New are the first frame and each that differs from the last new one by more than the threshold.
    So what moves slowly adds up until it is seen.

    Args:
        decoder: of the video.
        times_s: ascending, seconds from the first frame.
        threshold: grey levels.

    Raises:
        DecodeError: none of the frames can be decoded.
    """
    kept: Frame | None = None

    def change(frame: Frame) -> float:
        nonlocal kept
        levels = np.inf if kept is None else block_change(kept, frame)
        if levels > threshold:
            kept = frame.copy()  # a view would hold the whole clip
        return levels

    return _scan(decoder, times_s, change)


def thumbnail(frame: Frame) -> npt.NDArray[np.float32]:
    """Return a frame's luma in 18 x 32 cells, each the mean of 8 x 8 evenly spaced pixels.

    Args:
        frame: (H, W, 3) uint8 RGB, of any size and shape; a small one's pixels are read repeatedly.

    Returns:
        (18, 32) float32, 0 to 255.
    """
    (rows, cols), per_side = THUMBNAIL_SIZE, _CELL_SAMPLES
    height_px, width_px = frame.shape[:2]
    row_idxs = _middles(rows * per_side, height_px)
    col_idxs = _middles(cols * per_side, width_px)
    luma = frame[row_idxs[:, None], col_idxs] @ _LUMA
    cells: npt.NDArray[np.float32] = luma.reshape(rows, per_side, cols, per_side).mean((1, 3))
    return cells


def thumbnail_change(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Return the mean absolute difference of two thumbnails, grey levels."""
    return float(np.abs(one - other).mean())


def block_change(one: Frame, other: Frame) -> float:
    """Return the largest mean absolute difference of one colour in one block of 8 x 8 px.

    The largest and not the mean over the frame, which hides what is small; of absolute differences,
    so that nothing that moves within a block cancels. Blocks begin at the top left; those cut off
    at the right and at the bottom are means over the pixels they have. A square of s x s px that
    appears with a contrast of c levels changes some block by c where s >= 15, and by c / 4 or more
    where s = 8, however it lies.

    Args:
        one: (H, W, 3) uint8.
        other: of the same size.

    Returns:
        Grey levels, 0 to 255; 0 where all pixels are equal.

    >>> still = np.zeros((16, 16, 3), np.uint8)
    >>> moved = still.copy()
    >>> moved[2:6, 2:6, 0] = 100  # 16 of the 64 px of a block, in red
    >>> block_change(still, moved)
    25.0
    """
    difference = np.maximum(one, other) - np.minimum(one, other)
    height_px, width_px = one.shape[:2]
    # Rows first, all columns and colours at once: long runs of memory. 64 x 255 fits in 16 bits.
    by_rows = _sums_of_eight(difference.reshape(height_px, width_px * 3))
    by_cols = by_rows.reshape(-1, width_px, 3).transpose(1, 0, 2)
    sums = _sums_of_eight(by_cols)  # (columns, rows, colours) of blocks
    pixels = _sides_px(width_px)[:, None] * _sides_px(height_px)
    return float((sums / pixels[..., None]).max())


def _scan(decoder: Decoder, times_s: Sequence[float], change: Callable[[Frame], float]) -> Scan:
    idxs: list[int] = []
    changes: list[float] = []
    for clip in decoder.clips_at(times_s):
        idxs += clip.frame_idxs.tolist()
        changes += [change(frame) for frame in clip.frames]
        del clip  # before the next one is made
    return Scan(
        frame_idxs=np.array(idxs, dtype=np.int64),
        changes=np.array(changes, dtype=np.float64),
        num_asked=len(times_s),
    )


def _middles(num_parts: int, length_px: int) -> npt.NDArray[np.int64]:
    """Return the pixels in the middle of so many equal parts of a side."""
    return ((2 * np.arange(num_parts) + 1) * length_px // (2 * num_parts)).astype(np.int64)


def _sums_of_eight(values: npt.NDArray[np.integer]) -> npt.NDArray[np.uint16]:
    """Add up every eight rows; the last sum may be of fewer."""
    sums = np.zeros((-(-len(values) // BLOCK_PX), *values.shape[1:]), dtype=np.uint16)
    for offset in range(BLOCK_PX):
        rows = values[offset::BLOCK_PX]
        sums[: len(rows)] += rows
    return sums


def _sides_px(length_px: int) -> npt.NDArray[np.int64]:
    """Return the sides of the blocks along a side."""
    return np.minimum(BLOCK_PX, length_px - np.arange(0, length_px, BLOCK_PX))
