"""Names of a draw → choices that are the same on every machine, and raw bytes for noise.

Built on the two streams whose numbers are promised never to change: Python's `random()` and the
raw words of NumPy's PCG64. What is made of them is integer arithmetic or one multiplication.
"""

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")


class Dice:
    """Choices drawn from the names of a clip.

    Args:
        names: what tells this draw from all others: a split, a seed, a number, a purpose.
    """

    def __init__(self, *names: object) -> None:
        self._random = random.Random("/".join(str(name) for name in names))

    def real(self, low: float, high: float) -> float:
        """Draw a number from [low, high)."""
        return low + (high - low) * self._random.random()

    def whole(self, low: int, high: int) -> int:
        """Draw a whole number, both ends included."""
        return low + int(self._random.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """Say yes with a probability."""
        return self._random.random() < probability

    def pick(self, items: Sequence[T]) -> T:
        """Draw one item of a sequence that is not empty."""
        return items[int(self._random.random() * len(items))]

    def weighted(self, items: Sequence[tuple[T, float]]) -> T:
        """Draw one item by weight; the weights need not sum to one."""
        left = self._random.random() * sum(weight for _, weight in items)
        for item, weight in items:
            left -= weight
            if left < 0:
                return item
        return items[-1][0]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in a drawn order."""
        rest, drawn = list(items), []
        while rest:
            drawn.append(rest.pop(int(self._random.random() * len(rest))))
        return drawn


def number_of(*names: object) -> int:
    """Turn names into a seed of 63 bits."""
    digest = hashlib.sha256("/".join(str(name) for name in names).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def raw_bytes(seed: int, num_bytes: int) -> npt.NDArray[np.uint8]:
    """Return (num_bytes,) uniform bytes of a seed, >= 0."""
    words = np.random.PCG64(seed).random_raw(-(-num_bytes // 8))
    return np.asarray(words, dtype="<u8").view(np.uint8)[:num_bytes]
