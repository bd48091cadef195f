"""The weights of a resize pass are Pillow's, to the bit."""

import tracemalloc
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tile_cases import by_hand, by_pillow, noise

from llava_video.ops.resample import PRECISION_BITS, Filter, is_height_first, taps

RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
FILTERS = sorted(RESAMPLING)


def resized(line: np.ndarray, new_px: int, kind: Filter) -> np.ndarray:
    """Resize one line of levels by the formula, one new pixel after the other."""
    pass_taps = taps(len(line), new_px, kind)
    new = []
    for start, count, weights in zip(
        pass_taps.starts, pass_taps.counts, pass_taps.weights, strict=True
    ):
        levels = line[start : start + count].astype(np.int64)
        total = int((levels * weights[:count]).sum()) + (1 << (PRECISION_BITS - 1))
        new.append(min(max(total >> PRECISION_BITS, 0), 255))
    return np.array(new, dtype=np.uint8)


@given(
    old_px=st.integers(1, 5000),
    new_px=st.integers(1, 1200),
    kind=st.sampled_from(FILTERS),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150)
def test_a_line_is_resized_as_pillow_does(old_px: int, new_px: int, kind: Filter, seed: int):
    line = np.random.default_rng(seed).integers(0, 256, old_px, dtype=np.uint8)
    expected = Image.fromarray(line[None]).resize((new_px, 1), RESAMPLING[kind])
    assert np.array_equal(resized(line, new_px, kind), np.asarray(expected)[0])


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize(("old_px", "new_px"), [(1, 1), (1, 7), (7, 1), (3840, 384), (97, 384)])
def test_weights_sum_to_one_and_stand_inside(old_px: int, new_px: int, kind: Filter):
    found = taps(old_px, new_px, kind)
    assert found.weights.shape[0] == new_px
    # Each of the weights is rounded by half a unit at most.
    assert np.abs(found.weights.sum(axis=1) - (1 << PRECISION_BITS)).max() <= found.counts.max() / 2
    assert (found.starts >= 0).all()
    assert (found.starts + found.counts <= old_px).all()
    past = np.arange(found.weights.shape[1]) >= found.counts[:, None]
    assert not found.weights[past].any()


@given(old_px=st.integers(1, 5000), new_px=st.integers(1, 1200))
@settings(max_examples=300)
def test_the_nearest_pixels_are_torchs(old_px: int, new_px: int):
    places = torch.arange(old_px, dtype=torch.float32)[None, None]
    expected = torch.nn.functional.interpolate(places, size=new_px)[0, 0]
    found = taps(old_px, new_px, "nearest")
    assert found.starts.tolist() == expected.int().tolist()
    assert set(found.counts.tolist()) == {1}
    assert found.weights.tolist() == [[1 << PRECISION_BITS]] * new_px


def test_whole_numbers_take_other_pixels():
    """As the module says: three of 720 made 336."""
    found = taps(720, 336, "nearest").starts
    assert (found != np.arange(336) * 720 // 336).sum() == 3


def test_another_cubic_is_noticed():
    # a = -3/4 is what OpenCV and torch take without antialiasing.
    line = np.random.default_rng(0).integers(0, 256, 640, dtype=np.uint8)
    expected = np.asarray(Image.fromarray(line[None]).resize((384, 1), Image.Resampling.BICUBIC))
    from llava_video.ops import resample

    taps.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "_BICUBIC_A", -0.75)
        other = resized(line, 384, "bicubic")
    taps.cache_clear()
    assert not np.array_equal(other, expected[0])
    assert np.array_equal(resized(line, 384, "bicubic"), expected[0])


@given(old=st.tuples(*[st.integers(1, 160)] * 2), new=st.tuples(*[st.integers(1, 100)] * 2))
@settings(max_examples=150)
def test_the_passes_come_in_pillows_order(old: tuple[int, int], new: tuple[int, int]):
    (frame,) = noise(1, *old)
    by_rule = by_hand(frame, new, is_rows_first=not is_height_first(old, new))
    assert np.array_equal(by_rule, by_pillow(frame, new))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ((300, 199), (100, 100), True),  # 200 > 2 x 99
        ((300, 200), (100, 100), False),  # 200 = 2 x 100
        ((60, 20), (59, 40), True),  # one row less, and wider
        ((60, 20), (61, 40), False),  # no row less
        ((1080, 1920), (384, 384), False),
        ((1920, 1080), (384, 384), True),  # 1536 > 2 x 696
    ],
)
def test_the_order_by_hand(old: tuple[int, int], new: tuple[int, int], expected: bool):
    assert is_height_first(old, new) is expected
    (frame,) = noise(1, *old)
    found = by_pillow(frame, new)
    assert np.array_equal(found, by_hand(frame, new, is_rows_first=not expected))
    # As Pillow before 13 had it, or had it been the other way: noticed in both directions.
    assert not np.array_equal(found, by_hand(frame, new, is_rows_first=expected))


@given(
    old_px=st.integers(1, 3000),
    new_px=st.integers(1, 900),
    kind=st.sampled_from(get_args(Filter)),
    data=st.data(),
)
@settings(max_examples=150)
def test_the_weights_of_some_new_pixels_are_those_of_all(old_px: int, new_px: int, kind, data):
    first = data.draw(st.integers(0, new_px - 1))
    num_kept = data.draw(st.integers(1, new_px - first))
    whole, found = taps(old_px, new_px, kind), taps(old_px, new_px, kind, first, num_kept)
    kept = slice(first, first + num_kept)
    assert np.array_equal(found.starts, whole.starts[kept])
    assert np.array_equal(found.counts, whole.counts[kept])
    assert np.array_equal(found.weights, whole.weights[kept])
    assert np.array_equal(taps(old_px, new_px, kind, first).weights, whole.weights[first:])


@pytest.mark.parametrize("kind", get_args(Filter))
def test_only_the_weights_of_the_kept_are_made(kind: Filter):
    """All of them would take 437 MB and more of int32."""
    tracemalloc.start()
    try:
        found = taps(65_000, 21_840_000, kind, 10_919_832, 336)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.weights) == 336
    assert peak_bytes < 1_000_000
    # 336 new pixels to an old one, in the middle: 32499 ends where 32500 begins.
    middle = found.starts + (found.counts - 1) // 2
    assert (abs(middle - 32_500) <= 1).all()


def test_the_weights_cannot_be_written_over():
    with pytest.raises(ValueError, match="read-only"):
        taps(10, 5).weights[0, 0] = 1
