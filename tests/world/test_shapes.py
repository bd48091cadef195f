"""Coverage against areas known from geometry, and reaches against the pixels that are covered."""

import math

import numpy as np
import pytest

from llava_video.world.shapes import MOST_REACH, OPAQUE, REACH, cover

_R = 20.0
# By geometry, in squares of the radius.
_AREAS = {
    "circle": math.pi,
    "square": 1.8**2,
    "triangle": 2.25 * 1.95 / 2,
    "diamond": 2.4**2 / 2,
    "cross": 2 * (2.2 * 0.76) - 0.76**2,
    "ring": math.pi * (1.05**2 - 0.5**2),
}


def covered(shape: str, radius: float = _R, x: float = 0.3, y: float = -0.2) -> np.ndarray:
    along = np.arange(-40, 40) + 0.5
    return cover(shape, along[None] - x, along[:, None] - y, np.float64(radius)) / OPAQUE


@pytest.mark.parametrize("shape", _AREAS)
def test_areas_are_those_of_geometry(shape: str) -> None:
    # Half a pixel along an outline of 160 px would be 6 %: a rim drawn outside is noticed.
    assert covered(shape).sum() == pytest.approx(_AREAS[shape] * _R**2, rel=0.01)


@pytest.mark.parametrize("shape", REACH)
def test_reaches_are_where_the_ink_ends(shape: str) -> None:
    side, up, down = (reach * _R for reach in REACH[shape])
    rows, columns = np.nonzero(covered(shape) >= 0.25)
    assert columns.max() + 1 - 40 - 0.3 == pytest.approx(side, abs=1.0)
    assert 40 - columns.min() + 0.3 == pytest.approx(side, abs=1.0)
    assert 40 - rows.min() - 0.2 == pytest.approx(up, abs=1.5)  # a tip fades
    assert rows.max() + 1 - 40 + 0.2 == pytest.approx(down, abs=1.5)
    far = np.hypot(*(np.argwhere(covered(shape) > 0).T - 39.5))
    assert far.max() <= MOST_REACH * _R + 1.5


def test_a_step_of_less_than_a_pixel_shows() -> None:
    there, here = covered("square", x=0.0), covered("square", x=0.25)
    row = here[40] - there[40]
    # The right edge gains a quarter of a pixel, the left one loses it.
    assert sorted(row[row != 0]) == pytest.approx([-0.25, 0.25])


def test_nothing_is_more_than_opaque() -> None:
    for shape in REACH:
        levels = cover(shape, np.zeros(1), np.zeros(1), np.full(1, 5.0))
        assert levels[0] == (0 if shape == "ring" else 256)
