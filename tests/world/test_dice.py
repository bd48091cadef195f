"""The same names give the same draws everywhere; the expected numbers are those of Python's
documented generator and of PCG64's published stream."""

import hashlib
import random
from collections import Counter

import numpy as np
import pytest

from llava_video.world.dice import Dice, number_of, raw_bytes


def test_draws_are_those_of_a_generator_seeded_by_the_names() -> None:
    dice, twin = Dice("train", 3, 7), random.Random("train/3/7")
    assert [dice.real(2.0, 4.0) for _ in range(5)] == [2.0 + 2.0 * twin.random() for _ in range(5)]


def test_names_tell_draws_apart() -> None:
    first = {Dice(*names).real(0, 1) for names in (("a", 1), ("a", 2), ("b", 1), ("a", 1, ""))}
    assert len(first) == 4


def test_every_item_is_drawn_about_as_often() -> None:
    dice = Dice("fair")
    counts = Counter(dice.pick("abcd") for _ in range(4000))
    assert all(900 < count < 1100 for count in counts.values())
    wholes = Counter(dice.whole(2, 4) for _ in range(3000))
    assert sorted(wholes) == [2, 3, 4]  # both ends; a range without its end has two
    assert all(900 < count < 1100 for count in wholes.values())


def test_weights_and_chances() -> None:
    dice = Dice("weights")
    counts = Counter(dice.weighted([("a", 3.0), ("b", 1.0), ("c", 0.0)]) for _ in range(4000))
    assert 2850 < counts["a"] < 3150
    assert counts["c"] == 0
    assert 300 < sum(dice.chance(0.1) for _ in range(4000)) < 500


def test_a_shuffle_keeps_everything_and_has_no_favourite() -> None:
    dice = Dice("order")
    orders = Counter(tuple(dice.shuffled([1, 2, 3])) for _ in range(6000))
    assert len(orders) == 6
    assert all(sorted(order) == [1, 2, 3] and 850 < n < 1150 for order, n in orders.items())


def test_number_of_is_the_digest() -> None:
    digest = hashlib.sha256(b"a/1").digest()
    assert number_of("a", 1) == int.from_bytes(digest[:8], "little") // 2


@pytest.mark.parametrize("num_bytes", [0, 1, 8, 13])
def test_raw_bytes_are_the_little_ends_of_pcg64(num_bytes: int) -> None:
    words = np.random.PCG64(5).random_raw(2)
    expected = b"".join(int(word).to_bytes(8, "little") for word in words)[:num_bytes]
    assert raw_bytes(5, num_bytes).tobytes() == expected
