"""All levels there are, in the reference's order of operations and precisions."""

import numpy as np
import pytest

from llava_video.ops import levels as subject
from llava_video.ops.levels import STORED, normalise_reference, tables_of

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def test_all_levels_are_normalised_as_by_division():
    every = np.arange(256, dtype=np.uint8)
    expected = (every.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    assert np.array_equal(normalise_reference(every, 0.5, 0.5), expected)
    assert normalise_reference(every, 0.5, 0.5)[[0, 255]].tolist() == [-1.0, 1.0]


def test_bfloat16_is_rounded_to_even():
    # In float32, std = 1: 0 and 1 of 255 parts, and what lies half way between two bfloat16.
    halfway = np.array([0x3F808000, 0x3F818000, 0x3F80C000, 0x3F804000], np.uint32)
    found = subject._bfloat16_bits(halfway.view(np.float32))
    assert [hex(bits) for bits in found] == ["0x3f80", "0x3f82", "0x3f81", "0x3f80"]


@pytest.mark.parametrize("dtype", sorted(STORED))
def test_tables_hold_every_level_of_every_channel(dtype):
    table = tables_of(CLIP_MEAN, CLIP_STD, dtype)
    assert table.shape == (3, 256)
    assert table.dtype == STORED[dtype]
    numbers = table.astype(np.float64)
    if dtype == "bfloat16":
        numbers = (table.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    expected = np.stack(
        [(np.arange(256) / 255 - m) / s for m, s in zip(CLIP_MEAN, CLIP_STD, strict=True)]
    )
    if dtype == "uint8":
        expected = np.tile(np.arange(256), (3, 1))
    precision = {"float32": 2**-21, "float16": 2**-11, "bfloat16": 2**-8, "uint8": 0}[dtype]
    assert np.abs(numbers - expected).max() <= 2.3 * precision
