"""Scenes of the small world look like it; bars, photographs' like and each limit alone do not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from llava_video.world.bars import paint_index
from llava_video.world.composer import compose
from llava_video.world.likeness import Looks, looks_of, unlike
from llava_video.world.render import render
from llava_video.world.splits import SPLITS, split_settings

LIKE = Looks(plain=0.9, chroma=6.0, coloured=0.05, known=0.98)


def scene_frames(split: str, seed: int, idx: int, **changes: object) -> np.ndarray:
    settings = dataclasses.replace(split_settings(split), **changes)
    scene = compose(settings, split, seed, idx)
    every = max(1, round(scene.rate_hz / 2))
    return render(scene)[::every][:24]


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_are_of_the_world(split: str) -> None:
    changes = {"lengths_s": (9.0,)} if split in ("long", "monitor") else {}
    for idx in range(6):
        looks = looks_of(scene_frames(split, 5, idx, **changes))
        assert unlike(looks) == "", (idx, looks)


@pytest.mark.parametrize("size_px", [(256, 256), (240, 426), (480, 270)])
def test_larger_pictures_are_too(size_px: tuple[int, int]) -> None:
    for idx in range(2):
        frames = scene_frames("heldout", 6, idx, sizes_px=(size_px,), rates_hz=(2.0,))
        assert unlike(looks_of(frames)) == "", idx


def test_the_numbers_of_a_made_picture() -> None:
    """A ramp of greys with a square of 16 x 16 of 40 x 50 px in the world's red.

    Red is no part of the ramp and nothing else is coloured, so both shares are counts.
    """
    frame = np.zeros((40, 50, 3), np.uint8)
    frame[:] = np.linspace(60, 180, 50)[:, None].astype(np.uint8)
    frame[8:24, 12:28] = (216, 36, 36)
    looks = looks_of(frame[None])
    assert looks.plain == pytest.approx(1 - 256 / 2000)
    assert looks.coloured == pytest.approx(256 / 2000)
    assert looks.known == 1.0
    assert looks.chroma < 1
    # Without a slope only greys within 36 of the median, 60 of 120 levels, would count as plain.
    assert looks.plain > 0.7


def test_the_largest_share_of_colour_counts_and_the_middle_of_the_rest() -> None:
    empty = np.full((30, 30, 3), 118, np.uint8)
    full = empty.copy()
    full[:10, :10] = (36, 76, 222)
    looks = looks_of(np.stack([empty, empty, full]))
    assert looks == Looks(plain=1.0, chroma=0.0, coloured=pytest.approx(100 / 900), known=1.0)
    strange = empty.copy()
    strange[:10, :10] = (0, 255, 0)  # strong, and none of the eight
    assert looks_of(strange[None]).known == 0.0


def test_edges_are_blends_and_not_strange() -> None:
    """Seven tenths of red over near white: (224, 98, 98), 62 levels from red and 126 of chroma."""
    frame = np.full((30, 30, 3), 244, np.uint8)
    frame[5:15, 5:15] = (224, 98, 98)
    assert np.abs(np.array([224, 98, 98]) - (216, 36, 36)).max() == 62
    assert looks_of(frame[None]).known == 1.0
    frame[5:15, 5:10] = (60, 255, 60)  # no blend of green, which is (36, 166, 56)
    assert looks_of(frame[None]).known == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"plain": 0.4}, "an even background explains 40% of a frame"),
        ({"chroma": 60.0}, "the background has a strong colour"),
        ({"coloured": 0.001}, "no frame has an object in one of the"),
        ({"known": 0.25}, "75% of the strong colours are none of"),
    ],
)
def test_each_limit_alone_is_told(change: dict[str, float], said: str) -> None:
    assert unlike(LIKE) == ""
    assert unlike(dataclasses.replace(LIKE, **change)).startswith(said)


def test_other_pictures_are_not_of_it() -> None:
    dice = np.random.default_rng(3)
    bars = np.stack([paint_index(idx, 96, 128) for idx in range(8)])
    noise = dice.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    for frames in (bars, noise, np.zeros_like(noise), np.full_like(noise, 255)):
        assert unlike(looks_of(frames)) != ""


def test_the_pictures_of_the_reference_are_not_of_it(shared: Path) -> None:
    num_found = 0
    for path in sorted((shared / "golden").rglob("*.npz")):
        with np.load(path) as arrays:
            for name in arrays.files:
                picture = arrays[name]
                if picture.dtype == np.uint8 and picture.ndim in (3, 4) and picture.shape[-1] == 3:
                    frames = picture.reshape(-1, *picture.shape[-3:])
                    assert unlike(looks_of(frames)) != "", (path.name, name)
                    num_found += 1
    assert num_found >= 20


@pytest.mark.parametrize("size_px", [(1, 1), (2, 300), (300, 2)])
def test_pictures_of_hardly_any_pixels(size_px: tuple[int, int]) -> None:
    looks = looks_of(np.full((1, *size_px, 3), 118, np.uint8))
    assert (looks.plain, looks.coloured, looks.known) == (1.0, 0.0, 1.0)
