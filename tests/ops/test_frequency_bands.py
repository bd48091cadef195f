"""Llama 3's frequency bands as a value; `test_rotation.py` proves the formula."""

import dataclasses

import pytest

from llava_video.ops.frequency_bands import FrequencyBands


def test_bands_cannot_be_changed() -> None:
    bands = FrequencyBands(factor=8.0, low_factor=1.0, high_factor=4.0, positions=8192)
    with pytest.raises(dataclasses.FrozenInstanceError):
        bands.factor = 2.0  # type: ignore[misc]  # that is the point
