"""Two pictures of one camera → whether, how strongly and where they differ.

The picture is laid out in blocks of b x b px that overlap by half, and the difference of a block is
the mean of |difference| over its pixels and colours. A picture has changed when its *strongest*
block has: a mean over the whole picture would lose a small object among a million equal pixels.

**What the threshold means.** An object of s x s px whose colours differ from what was there by c
levels (the mean over the three colours, 0 to 255) is seen, wherever it stands, if and only if

    c * m * m >= threshold * b * b,   m = s                           for s <= b / 2,
                                      m = min(b, ceil((s + b/2) / 2)) for larger ones

(m is the side of what the block that holds most of it is sure to hold.) With blocks of 16 px and a
threshold of 6, an object of 8 px is seen from 24 levels on, one of 4 px from 96, one of 24 px or
more from 6. `least_contrast` computes it. From below, noise is the limit: `noise_floor` says what a
sensor's noise makes of the strongest block, and a threshold stands above that.

The reference is the picture that was last taken for new, not the one before: what changes slowly
adds up until it is seen. Knows no window and no question.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from llava_video.monitor.scene_settings import GateSettings

Picture = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.float32]

_DEFAULT = GateSettings()
# 257 rows of 255 levels are 65,535.
_MOST_ROWS_OF_16_BITS = 257


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What became of one picture.

    Attributes:
        content: a number that names what is shown; equal numbers, no change between them.
        picture: the picture that stands for all of this content; give this one to the model, and
            equal contents are equal pixels.
        is_new: whether the content is a new one.
        is_same: whether not a pixel differs from `picture`'s before this one came.
        strongest: difference of the strongest block, levels; 0 of the first picture.
        at_px: (top, left) of that block.
        blocks: (rows, cols) differences of all blocks; None of a first picture, of an equal one and
            of one of another size.
    """

    content: int
    picture: Picture = field(repr=False)
    is_new: bool
    is_same: bool
    strongest: float = 0.0
    at_px: tuple[int, int] = (0, 0)
    blocks: Levels | None = field(default=None, repr=False)


class ChangeGate:
    """Compares the pictures of one camera with what was last seen there.

    Args:
        settings: threshold and blocks.
    """

    def __init__(self, settings: GateSettings = _DEFAULT) -> None:
        self._settings = settings
        self._reference: Picture | None = None
        self._content = -1

    def look(self, picture: Picture) -> Change:
        """Compare the next picture.

        Args:
            picture: (H, W, 3) uint8; kept, and not to be written to.
        """
        earlier = self._reference
        if earlier is None or earlier.shape != picture.shape:
            return self._renew(picture)
        if np.array_equal(earlier, picture):
            return Change(content=self._content, picture=earlier, is_new=False, is_same=True)
        blocks = block_differences(earlier, picture, self._settings.block_px)
        row, col = np.unravel_index(int(blocks.argmax()), blocks.shape)
        strongest = float(blocks[row, col])
        half_px = self._settings.block_px // 2
        at_px = (int(row) * half_px, int(col) * half_px)
        if strongest >= self._settings.threshold:
            return self._renew(picture, strongest, at_px, blocks)
        return Change(
            content=self._content,
            picture=earlier,
            is_new=False,
            is_same=False,
            strongest=strongest,
            at_px=at_px,
            blocks=blocks,
        )

    def forget(self) -> None:
        """Take the next picture for new, whatever it shows."""
        self._reference = None

    def _renew(
        self,
        picture: Picture,
        strongest: float = 0.0,
        at_px: tuple[int, int] = (0, 0),
        blocks: Levels | None = None,
    ) -> Change:
        self._reference = picture
        self._content += 1
        return Change(
            content=self._content,
            picture=picture,
            is_new=True,
            is_same=False,
            strongest=strongest,
            at_px=at_px,
            blocks=blocks,
        )


def block_differences(one: Picture, other: Picture, block_px: int) -> Levels:
    """Return the mean absolute difference of each block, in levels.

    Args:
        one: (H, W, 3) uint8.
        other: (H, W, 3) uint8.
        block_px: side of a block, even; blocks begin at every half of it. What lies beyond the
            right and the lower border counts as equal.

    Returns:
        (rows, cols): block (r, c) begins at row r * block_px / 2 and column c * block_px / 2.
    """
    half_px = block_px // 2
    differences = np.maximum(one, other)
    differences -= np.minimum(one, other)
    height_px, width_px, _ = differences.shape
    flat = differences.reshape(height_px, 3 * width_px)
    # Row by row of all cells at once: `reduceat` along this axis takes ten times as long.
    kind = np.uint16 if half_px <= _MOST_ROWS_OF_16_BITS else np.uint32
    by_row = np.zeros((-(-height_px // half_px), 3 * width_px), dtype=kind)
    for start in range(min(half_px, height_px)):
        rows = flat[start::half_px]
        by_row[: len(rows)] += rows
    columns = range(0, 3 * width_px, 3 * half_px)
    cells = np.add.reduceat(by_row, columns, axis=1, dtype=np.uint32)
    sums = np.zeros((max(2, cells.shape[0]), max(2, cells.shape[1])), dtype=np.float32)
    sums[: cells.shape[0], : cells.shape[1]] = cells
    of_blocks = sums[:-1, :-1] + sums[1:, :-1] + sums[:-1, 1:] + sums[1:, 1:]
    return (of_blocks / (3 * block_px**2)).astype(np.float32)


def sure_side_px(side_px: int, block_px: int) -> int:
    """Return the side of what the best block holds of an object, wherever that stands, px.

    >>> [sure_side_px(side_px, 16) for side_px in (4, 8, 9, 16, 24, 100)]
    [4, 8, 9, 12, 16, 16]
    """
    half_px = block_px // 2
    if side_px <= half_px:
        return side_px
    return min(block_px, math.ceil((side_px + half_px) / 2))


def least_contrast(side_px: int, settings: GateSettings) -> float:
    """Return the contrast from which on an object is seen wherever it stands, in levels.

    >>> [least_contrast(side_px, GateSettings()) for side_px in (4, 8, 24)]
    [96.0, 24.0, 6.0]

    Args:
        side_px: its side, px.
        settings: threshold and blocks.
    """
    return settings.threshold * (settings.block_px / sure_side_px(side_px, settings.block_px)) ** 2


def noise_floor(sigma: float, height_px: int, width_px: int, block_px: int) -> float:
    """Return what a sensor's noise makes of the strongest block, about, in levels.

    The difference of two noisy pixels is sigma * sqrt(2) wide; the mean of its size is
    2 / sqrt(pi) * sigma = 1.13 sigma, and it strays by 0.85 sigma from pixel to pixel. Of N blocks
    the strongest lies about sqrt(2 ln N) strayings of a block's mean above that. Noise of 2 levels
    in 1080p makes 2.5 of blocks of 16 px.

    >>> round(noise_floor(2.0, 1080, 1920, 16), 1)
    2.5

    Args:
        sigma: of one colour of one pixel of one picture, levels, independent of all others.
        height_px: of the picture.
        width_px: of the picture.
        block_px: side of a block.
    """
    mean, straying = 2 / math.sqrt(math.pi), math.sqrt(2 - 4 / math.pi)
    num_blocks = max(2.0, 4 * height_px * width_px / block_px**2)
    of_a_block = straying / (block_px * math.sqrt(3))
    return sigma * (mean + of_a_block * math.sqrt(2 * math.log(num_blocks)))
