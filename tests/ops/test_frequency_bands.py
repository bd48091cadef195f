"""Llama 3's frequency bands: the three cases of their source, and what they refuse."""

import dataclasses
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_video.errors import ConfigError
from llava_video.ops.frequency_bands import FrequencyBands

LLAMA = FrequencyBands(factor=8.0, low_factor=1.0, high_factor=4.0, positions=8192)


def by_cases(wave: float, bands: FrequencyBands) -> float:
    """What a frequency of so many positions per turn is multiplied by, as its source says it."""
    if wave < bands.positions / bands.high_factor:
        return 1.0
    if wave > bands.positions / bands.low_factor:
        return 1.0 / bands.factor
    share = (bands.positions / wave - bands.low_factor) / (bands.high_factor - bands.low_factor)
    return (1 - share) / bands.factor + share


@pytest.mark.parametrize(
    ("turns_over_all", "multiplier"),
    [
        (100, 1.0),
        (4, 1.0),
        (2.5, 0.5625),  # in the middle: half stays, half is an eighth
        (1, 0.125),
        (0.01, 0.125),
        (0, 0.125),
    ],
)
def test_by_hand(turns_over_all: float, multiplier: float):
    assert LLAMA.multiplier(Decimal(turns_over_all) / 8192) == Decimal(multiplier)


@given(
    wave=st.floats(1, 1e7),
    factor=st.floats(1, 64),
    low=st.floats(0.5, 3),
    width=st.floats(0.1, 5),
    positions=st.integers(16, 100_000),
)
def test_the_three_cases(wave: float, factor: float, low: float, width: float, positions: int):
    bands = FrequencyBands(
        factor=factor, low_factor=low, high_factor=low + width, positions=positions
    )
    found = float(bands.multiplier(1 / Decimal(wave)))
    assert found == pytest.approx(by_cases(wave, bands), rel=1e-9, abs=1e-9)


def test_another_order_of_the_bands_is_noticed():
    swapped = dataclasses.replace(LLAMA, low_factor=2.0)
    assert LLAMA.multiplier(Decimal("1.5") / 8192) != swapped.multiplier(Decimal("1.5") / 8192)
    stretched_all = Decimal(1) / 8  # as a linear scale of the factor would
    assert LLAMA.multiplier(Decimal(5) / 8192) != stretched_all


@pytest.mark.parametrize(
    "changes",
    [{"factor": 0.0}, {"high_factor": 1.0}, {"positions": 0}, {"low_factor": 0.0}],
)
def test_numbers_that_leave_no_bands_are_refused(changes: dict[str, float]):
    with pytest.raises(ConfigError, match="high_factor above low_factor"):
        dataclasses.replace(LLAMA, **changes)


def test_bands_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        LLAMA.factor = 2.0  # type: ignore[misc]  # that is the point
