"""A shape and where its centre lies → how much of each pixel it covers.

Half a pixel on either side of an edge fades: the coverage is one half less the distance to the
edge. Only operations that IEEE 754 rounds the same everywhere (no sine, no exponential), so that
the bytes are the same on every machine.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]

OPAQUE: Final = 256
# How far a shape reaches from its centre, in radii: to the sides, up, down. Areas are about alike.
REACH: Final[dict[str, tuple[float, float, float]]] = {
    "circle": (1.0, 1.0, 1.0),
    "square": (0.9, 0.9, 0.9),
    "triangle": (1.125, 1.2, 0.75),
    "diamond": (1.2, 1.2, 1.2),
    "cross": (1.1, 1.1, 1.1),
    "ring": (1.05, 1.05, 1.05),
}
# No part of a shape is farther away than this, in radii (the square's and the triangle's corners).
MOST_REACH: Final = 1.36
_ARM = 0.38  # half the width of a cross's arms
_HOLE, _RIM = 0.5, 1.05  # of a ring
# A side of the triangle from (0, -1.2) to (1.125, 0.75): its normal has length 1.
_SLOPE_X, _SLOPE_Y = 0.8661763291617647, 0.49971711297794117


def _circle(x: Reals, y: Reals, r: Reals) -> Reals:
    return np.sqrt(x * x + y * y) - r


def _square(x: Reals, y: Reals, r: Reals) -> Reals:
    return np.maximum(np.abs(x), np.abs(y)) - 0.9 * r


def _triangle(x: Reals, y: Reals, r: Reals) -> Reals:
    side = np.abs(x) * _SLOPE_X - (y + 1.2 * r) * _SLOPE_Y
    return np.maximum(side, y - 0.75 * r)


def _diamond(x: Reals, y: Reals, r: Reals) -> Reals:
    return (np.abs(x) + np.abs(y) - 1.2 * r) * 0.7071067811865476


def _cross(x: Reals, y: Reals, r: Reals) -> Reals:
    x, y = np.abs(x), np.abs(y)
    lying = np.maximum(x - 1.1 * r, y - _ARM * r)
    return np.minimum(lying, np.maximum(x - _ARM * r, y - 1.1 * r))


def _ring(x: Reals, y: Reals, r: Reals) -> Reals:
    distance = np.sqrt(x * x + y * y)
    return np.maximum(distance - _RIM * r, _HOLE * r - distance)


_EDGES: Final[dict[str, Callable[[Reals, Reals, Reals], Reals]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "cross": _cross,
    "ring": _ring,
}


def cover(shape: str, x_px: Reals, y_px: Reals, radius_px: Reals) -> npt.NDArray[np.uint16]:
    """Return how much of each pixel a shape covers.

    Args:
        shape: one of the vocabulary.
        x_px: of pixels' centres from the shape's centre, to the right; broadcasts.
        y_px: likewise, downwards.
        radius_px: > 0.

    Returns:
        0 (not at all) to 256 (wholly), of the common shape.
    """
    share = np.clip(0.5 - _EDGES[shape](x_px, y_px, radius_px), 0.0, 1.0)
    return (share * OPAQUE + 0.5).astype(np.uint16)
