"""The least number that fits is found, asked for few times."""

import doctest

from hypothesis import given
from hypothesis import strategies as st

from llava_video.planning import search
from llava_video.planning.search import least


def test_the_example_is_true():
    assert doctest.testmod(search).attempted == 1
    assert doctest.testmod(search).failed == 0


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(-60, 60))
def test_where_it_turns(low: int, high: int, turn: int):
    asked = []

    def fits(number: int) -> bool:
        asked.append(number)
        return number >= turn

    found = least(low, high, fits)
    expected = [number for number in range(low + 1, high + 1) if number >= turn]
    assert found == (expected[0] if expected else None)
    assert low not in asked
    assert len(asked) <= 8  # 2 + log2(100)
