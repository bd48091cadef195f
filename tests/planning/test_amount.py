"""Amounts of memory as people write them."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_video.errors import ConfigError
from llava_video.planning import amount
from llava_video.planning.amount import amount_words, parse_bytes


def test_the_examples_are_true():
    assert doctest.testmod(amount).attempted == 2
    assert doctest.testmod(amount).failed == 0


@pytest.mark.parametrize(
    ("written", "num_bytes"),
    [
        (None, None),
        ("24GiB", 24 * 1024**3),
        ("21.5 GiB", 43 * 1024**3 // 2),
        (" 24 gib ", 24 * 1024**3),
        ("16GB", 16_000_000_000),
        (".5 MiB", 524_288),
        ("1.5KB", 1500),
        ("2TiB", 2 * 1024**4),
        ("300B", 300),
        ("25769803776", 24 * 1024**3),  # as a shell passes bytes on
        (25_769_803_776, 24 * 1024**3),
    ],
)
def test_what_is_read(written: object, num_bytes: int | None):
    assert parse_bytes(written) == num_bytes


NO_AMOUNTS = ["", "much", "24 Gi", "24G", "-1GiB", "1e3 MiB", "GiB", "0GiB", "0.1B", "24,5 GiB"]
NO_AMOUNTS += ["1 GiB 2", 0, -5, True, 24.0, ["24GiB"]]


@pytest.mark.parametrize("written", NO_AMOUNTS)
def test_what_is_no_amount(written: object):
    with pytest.raises(ConfigError, match="memory = ") as refusal:
        parse_bytes(written)
    assert repr(written) in refusal.value.message
    assert "24GiB" in refusal.value.hint


def test_the_name_is_the_callers():
    with pytest.raises(ConfigError, match="cache = 'x'"):
        parse_bytes("x", "cache")


@given(st.integers(1, 2**45))
def test_words_are_read_back_as_no_less_and_little_more(num_bytes: int):
    back = parse_bytes(amount_words(num_bytes))
    assert num_bytes <= back <= num_bytes * 1.1 + 1
