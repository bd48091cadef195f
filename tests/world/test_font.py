"""Letters against drawings made by hand."""

import itertools
import string

import numpy as np
import pytest

from llava_video.world.font import write_text

_STOP = """
.#### ##### .###. ####.
#.... ..#.. #...# #...#
#.... ..#.. #...# #...#
.###. ..#.. #...# ####.
....# ..#.. #...# #....
....# ..#.. #...# #....
####. ..#.. .###. #....
"""
_SEVEN = """
#####
....#
...#.
..#..
.#...
.#...
.#...
"""


@pytest.mark.parametrize(("text", "drawing"), [("STOP", _STOP), ("7", _SEVEN)])
def test_letters_look_as_drawn(text: str, drawing: str) -> None:
    rows = [[mark == "#" for mark in row] for row in drawing.split("\n") if row]
    assert np.array_equal(write_text(text, 1), np.array(rows))


def test_scale_repeats_every_dot() -> None:
    small, large = write_text("F5", 1), write_text("F5", 3)
    assert large.shape == (21, 33)
    assert all(np.array_equal(large[i::3, j::3], small) for i in range(3) for j in range(3))


def test_no_two_letters_look_alike() -> None:
    letters = {mark: write_text(mark, 1) for mark in string.ascii_uppercase + string.digits}
    for one, other in itertools.combinations(letters, 2):
        # O and Q, or 0 and O, differ least: in two dots.
        assert (letters[one] ^ letters[other]).sum() >= 2, (one, other)


def test_other_marks_are_refused() -> None:
    with pytest.raises(KeyError):
        write_text("go", 1)
