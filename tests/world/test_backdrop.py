import itertools

import numpy as np
import pytest

from llava_video.world.backdrop import MUTED, PATTERNS, Backdrop, paint_backdrop


def painted(kind: str, pattern: str = "", step: float = 0.1, seed: int = 1) -> np.ndarray:
    backdrop = Backdrop(kind, (100, 104, 96), (180, 184, 176), pattern, step, seed)
    return paint_backdrop(backdrop, 40, 60, 40)


def test_plain_is_one_colour() -> None:
    assert np.unique(painted("plain").reshape(-1, 3), axis=0).tolist() == [[100, 104, 96]]


def test_a_gradient_goes_from_one_colour_to_the_other() -> None:
    across = painted("gradient", "across")
    assert across[7, 0].tolist() == [100, 104, 96]
    assert across[7, 59].tolist() == [180, 184, 176]
    # By hand: 80 levels over 59 steps, rounded down.
    assert across[0, :, 0].tolist() == [100 + 80 * x // 59 for x in range(60)]
    down = painted("gradient", "down")
    assert down[0, 30].tolist() == [100, 104, 96]
    assert down[39, 30].tolist() == [180, 184, 176]
    aslant = painted("gradient", "aslant")
    assert aslant[0, 0].tolist() == [100, 104, 96]
    assert aslant[39, 59].tolist() == [180, 184, 176]


@pytest.mark.parametrize("pattern", [*PATTERNS["a"], *PATTERNS["b"]])
def test_a_texture_has_two_tones_of_one_hue(pattern: str) -> None:
    tones = np.unique(painted("textured", pattern).reshape(-1, 3), axis=0).tolist()
    assert tones == [[100, 104, 96], [122, 126, 118]]


def test_patterns_differ() -> None:
    pictures = [painted("textured", name) for name in (*PATTERNS["a"], *PATTERNS["b"])]
    for one, other in itertools.combinations(pictures, 2):
        assert (one != other).any(axis=2).mean() > 0.05


def test_stripes_stand_and_are_as_wide_as_said() -> None:
    stripes = painted("textured", "stripes")[..., 0] != 100
    assert stripes[5].tolist() == [x // 4 % 2 == 1 for x in range(60)]
    assert (stripes == stripes[5]).all()


def test_grain_is_even_and_the_seeds_own() -> None:
    grain = painted("noisy", step=0.05).astype(int)
    off = grain - [100, 104, 96]
    assert -20 <= off.min() < -14
    assert 14 < off.max() <= 20
    assert (off[::2, ::2] == off[1::2, 1::2]).all()  # grains of 0.05 x 40 px
    assert not np.array_equal(grain, painted("noisy", step=0.05, seed=2))


def test_the_two_sets_share_nothing() -> None:
    assert not set(MUTED["a"]) & set(MUTED["b"])
    assert not set(PATTERNS["a"]) & set(PATTERNS["b"])
