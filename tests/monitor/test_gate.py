"""The gate: its plain twin, its threshold against pixels, and the mean that would fail."""

import itertools

import numpy as np
import pytest

from llava_video.monitor.gate import (
    ChangeGate,
    block_differences,
    least_contrast,
    noise_floor,
    sure_side_px,
)
from llava_video.monitor.scene_settings import GateSettings


def noise(height_px: int, width_px: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)


def plain_differences(one: np.ndarray, other: np.ndarray, block_px: int) -> np.ndarray:
    """The definition, block by block."""
    half_px, (height_px, width_px, _) = block_px // 2, one.shape
    num_rows = max(1, -(-height_px // half_px) - 1)
    num_cols = max(1, -(-width_px // half_px) - 1)
    found = np.zeros((num_rows, num_cols))
    for row, col in itertools.product(range(num_rows), range(num_cols)):
        top, left = row * half_px, col * half_px
        a = one[top : top + block_px, left : left + block_px].astype(int)
        b = other[top : top + block_px, left : left + block_px].astype(int)
        found[row, col] = abs(a - b).sum() / (3 * block_px**2)
    return found


@pytest.mark.parametrize("size_px", [(48, 64), (47, 61), (16, 16), (7, 5), (1, 1), (8, 100)])
@pytest.mark.parametrize("block_px", [2, 8, 16])
def test_blocks_equal_the_definition(size_px: tuple[int, int], block_px: int) -> None:
    one, other = noise(*size_px, seed=1), noise(*size_px, seed=2)
    found = block_differences(one, other, block_px)
    assert np.allclose(found, plain_differences(one, other, block_px), rtol=1e-5)


def test_the_largest_difference_does_not_overflow() -> None:
    black, white = np.zeros((300, 300, 3), np.uint8), np.full((300, 300, 3), 255, np.uint8)
    assert block_differences(black, white, 256).max() == 255.0
    assert block_differences(white, black, 256).max() == 255.0
    large = np.zeros((1100, 20, 3), np.uint8), np.full((1100, 20, 3), 255, np.uint8)
    assert block_differences(*large, 1100).max() == pytest.approx(255 * 20 / 1100)


@pytest.mark.parametrize("side_px", [1, 3, 8, 9, 11, 15, 16, 20, 24, 40])
def test_the_threshold_is_the_formula(side_px: int) -> None:
    """An object at the least contrast is seen at every place, one level below it not at all."""
    settings = GateSettings(threshold=2.0, block_px=16)
    needed = least_contrast(side_px, settings)
    contrast = int(np.ceil(needed))
    if contrast > 200:  # such a small one cannot be seen at this threshold
        assert side_px == 1
        return
    empty = np.full((96, 96, 3), 20, np.uint8)

    def strongest(top: int, left: int, levels: int) -> float:
        picture = empty.copy()
        picture[top : top + side_px, left : left + side_px] += np.uint8(levels)
        return float(block_differences(empty, picture, 16).max())

    # Every place relative to the blocks, the border's too.
    places = [*itertools.product(range(8, 24), repeat=2), (0, 0), (96 - side_px, 96 - side_px)]
    seen = [strongest(top, left, contrast) for top, left in places]
    assert min(seen) >= settings.threshold
    # Somewhere it holds no more than that: the formula is not a timid one.
    exact = contrast * sure_side_px(side_px, 16) ** 2 / 16**2
    assert min(seen) == pytest.approx(exact)
    if contrast - 1 < needed and contrast > 1:
        below = [strongest(top, left, contrast - 1) for top, left in places]
        assert min(below) < settings.threshold


def test_the_mean_of_the_picture_would_miss_it() -> None:
    empty = np.full((540, 960, 3), 100, np.uint8)
    picture = empty.copy()
    picture[500:506, 900:906] = 160
    assert np.abs(picture.astype(int) - empty).mean() < 0.01
    gate = ChangeGate()
    gate.look(empty)
    change = gate.look(picture)
    assert change.is_new
    assert abs(change.at_px[0] - 500) <= 16
    assert abs(change.at_px[1] - 900) <= 16


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_noise_stays_at_its_floor(sigma: float) -> None:
    rng = np.random.default_rng(0)
    base = np.full((240, 320, 3), 128.0)
    found = []
    for _ in range(10):
        one, other = (
            np.clip(np.rint(base + rng.normal(0, sigma, base.shape)), 0, 255).astype(np.uint8)
            for _ in range(2)
        )
        found.append(float(block_differences(one, other, 16).max()))
    floor = noise_floor(sigma, 240, 320, 16)
    assert floor * 0.85 < min(found)
    assert max(found) < floor * 1.15
    # And the default stands above that of a good camera.
    assert noise_floor(3.0, 1080, 1920, 16) < GateSettings().threshold


def test_equal_pixels_are_equal_and_one_pixel_is_not_at_threshold_zero() -> None:
    gate = ChangeGate(GateSettings(threshold=0.0))
    picture = noise(20, 20)
    first = gate.look(picture)
    again = gate.look(picture.copy())
    assert (first.is_new, again.is_new, again.is_same, again.content) == (True, False, True, 0)
    assert again.picture is picture
    other = picture.copy()
    other[19, 19, 2] ^= 1
    changed = gate.look(other)
    assert (changed.is_new, changed.content) == (True, 1)


def test_below_the_threshold_the_earlier_picture_stands_for_it() -> None:
    gate = ChangeGate()
    picture = np.full((64, 64, 3), 100, np.uint8)
    gate.look(picture)
    change = gate.look(picture + np.uint8(3))
    assert (change.is_new, change.is_same, change.content) == (False, False, 0)
    assert change.strongest == pytest.approx(3.0)
    assert change.picture is picture


def test_what_changes_slowly_is_seen_in_the_end() -> None:
    gate = ChangeGate()
    pictures = [np.full((32, 32, 3), 100 + k, np.uint8) for k in range(13)]
    assert [gate.look(picture).content for picture in pictures] == [0] * 6 + [1] * 6 + [2]


def test_another_size_is_another_content() -> None:
    gate = ChangeGate()
    assert gate.look(noise(20, 20)).content == 0
    assert gate.look(noise(20, 24)).content == 1
    gate.forget()
    assert gate.look(noise(20, 24)).content == 2
