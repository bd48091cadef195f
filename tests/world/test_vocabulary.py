"""Words and what they stand for: nothing is called by two names, nothing looks like another."""

import doctest
import itertools
import math

import pytest

from llava_video.world import vocabulary
from llava_video.world.backdrop import MUTED
from llava_video.world.font import write_text
from llava_video.world.vocabulary import COLOURS, DIRECTIONS, PLACES, SHAPES, SIGN_WORDS, STRAIGHT


def test_the_examples_of_the_docstrings() -> None:
    assert doctest.testmod(vocabulary).failed == 0


def test_directions_are_eighths_of_a_turn() -> None:
    for idx, (dx, dy) in enumerate(DIRECTIONS.values()):
        turn = math.radians(45 * idx)  # y runs down, so a turn to the right is clockwise
        assert (dx, dy) == pytest.approx((math.cos(turn), math.sin(turn)))
    assert set(STRAIGHT) == {name for name in DIRECTIONS if " " not in name}


def test_colours_are_far_apart_and_backgrounds_grey() -> None:
    for one, other in itertools.combinations(COLOURS.values(), 2):
        assert math.dist(one, other) > 75
    for colour in itertools.chain(*MUTED.values()):
        assert max(colour) - min(colour) <= 20
        assert min(math.dist(colour, bright) for bright in COLOURS.values()) > 75


def test_names_are_unique() -> None:
    places = list(itertools.chain(*PLACES))
    for names in (list(COLOURS), SHAPES, places, SIGN_WORDS):
        assert len(set(names)) == len(names)
    assert len(places) == 9


def test_every_sign_can_be_written() -> None:
    assert all(write_text(word, 1).any() for word in SIGN_WORDS)
    assert max(len(word) for word in SIGN_WORDS) == 4
