"""Frames a user decoded himself → the frames asked for. Nothing is decoded, nothing copied."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt


class FramesReader:
    """Give frames of an array.

    Args:
        frames: (T, H, W, 3) uint8.
    """

    def __init__(self, frames: npt.NDArray[np.uint8]) -> None:
        self._frames = frames

    def frames(self, idxs: Sequence[int]) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """Yield (index, (H, W, 3) view of the frame)."""
        for idx in idxs:
            yield idx, self._frames[idx]

    def close(self) -> None:
        """Nothing is held open."""
