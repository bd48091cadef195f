"""The tile of a thin frame is what Pillow makes of the whole, at a fraction of its bytes."""

import tracemalloc
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tile_cases import CLIP_MEAN, CLIP_STD, RESAMPLING

from llava_video.ops import tiles
from llava_video.ops.native import native
from llava_video.ops.native_tiles import Field, Picture
from llava_video.ops.resample import Filter
from llava_video.ops.thin_frames import thin_tile
from llava_video.ops.tiles import Tiling, clip_tiles, clip_tiles_reference, crop_size
from llava_video.values import Grid

COLOUR = (122, 116, 104)


def noise(height_px: int, width_px: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng((seed, height_px, width_px))
    return generator.integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)


def crop(frame: np.ndarray, tile_px: int, kind: Filter = "bicubic") -> np.ndarray:
    old = frame.shape[:2]
    picture = Picture(crop_size(*old, tile_px), (tile_px, tile_px))
    return thin_tile(frame, Field(old, old, (0, 0), COLOUR), picture, kind)


def pad(frame: np.ndarray, tile_px: int, kind: Filter = "bicubic") -> np.ndarray:
    old, side = frame.shape[:2], max(frame.shape[:2])
    offset = ((side - old[0]) // 2, (side - old[1]) // 2)
    picture = Picture((tile_px, tile_px), (tile_px, tile_px))
    return thin_tile(frame, Field(old, (side, side), offset, COLOUR), picture, kind)


def whole_crop(frame: np.ndarray, tile_px: int, kind: Filter = "bicubic") -> np.ndarray:
    """Return what Pillow makes: all of the picture, then its middle."""
    height, width = crop_size(*frame.shape[:2], tile_px)
    whole = np.asarray(Image.fromarray(frame).resize((width, height), RESAMPLING[kind]))
    top, left = (height - tile_px) // 2, (width - tile_px) // 2
    return whole[top : top + tile_px, left : left + tile_px]


def whole_pad(
    frame: np.ndarray, tile_px: int, kind: Filter = "bicubic", colour: tuple = COLOUR
) -> np.ndarray:
    """Return what Pillow makes of the square."""
    side = max(frame.shape[:2])
    square = Image.new("RGB", (side, side), colour)
    square.paste(
        Image.fromarray(frame), ((side - frame.shape[1]) // 2, (side - frame.shape[0]) // 2)
    )
    return np.asarray(square.resize((tile_px, tile_px), RESAMPLING[kind]))


@st.composite
def frames(draw) -> np.ndarray:
    long_px, short_px = draw(st.integers(1, 900)), draw(st.integers(1, 60))
    size = (long_px, short_px) if draw(st.booleans()) else (short_px, long_px)
    frame = noise(*size, draw(st.integers(0, 99)))
    # Black and white: every sum that can overshoot does.
    return np.where(frame > 127, 255, 0).astype(np.uint8) if draw(st.booleans()) else frame


SIDES = st.sampled_from([1, 2, 5, 13, 58, 127, 224, 336])


@given(frames(), SIDES, st.sampled_from(sorted(RESAMPLING)))
@settings(max_examples=150, deadline=None)
def test_a_crop_is_pillows(frame: np.ndarray, tile_px: int, kind: Filter):
    ratio = max(frame.shape[:2]) / min(frame.shape[:2])
    if tile_px**2 * ratio > 4_000_000:  # of Pillow's whole
        tile_px = 58
    assert np.array_equal(crop(frame, tile_px, kind), whole_crop(frame, tile_px, kind))


@given(frames(), SIDES, st.sampled_from(sorted(RESAMPLING)))
@settings(max_examples=150, deadline=None)
def test_a_padded_frame_is_pillows(frame: np.ndarray, tile_px: int, kind: Filter):
    assert np.array_equal(pad(frame, tile_px, kind), whole_pad(frame, tile_px, kind))


@given(frames(), SIDES, st.sampled_from(["pad", "crop"]), st.sampled_from(get_args(Filter)))
@settings(max_examples=100, deadline=None)
def test_a_clips_tiles_are_the_same_thin_or_not(frame: np.ndarray, tile_px: int, fit, kind):
    tiling = Tiling(fit, Grid(1, 1), tile_px, CLIP_MEAN, CLIP_STD, dtype="uint8", kind=kind)
    if fit == "crop" and tile_px > 58:
        tiling = tiling._replace(tile_px=58)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "_MOST_ASPECT", 0)
        found = clip_tiles_reference(frame[None], tiling)
        patch.setattr(tiles, "_MOST_ASPECT", 1_000)
        assert np.array_equal(found, clip_tiles_reference(frame[None], tiling))


def test_wrong_tiles_are_noticed():
    frame = noise(7, 300)
    assert np.array_equal(pad(frame, 58), whole_pad(frame, 58))
    assert not np.array_equal(pad(frame, 58), whole_pad(frame, 58, colour=(122, 116, 105)))
    assert not np.array_equal(pad(frame, 58), whole_pad(frame, 58, "bilinear"))
    moved = np.roll(frame, 1, axis=0)
    assert not np.array_equal(pad(frame, 58), whole_pad(moved, 58))
    # 7 x 300 px at 58 is 58 x 2485 px, of which columns 1213 to 1270 are kept.
    whole = np.asarray(Image.fromarray(frame).resize((2485, 58), Image.Resampling.BICUBIC))
    assert np.array_equal(crop(frame, 58), whole[:, 1213:1271])
    assert not np.array_equal(crop(frame, 58), whole[:, 1214:1272])


@pytest.mark.parametrize("size", [(65_000, 1), (1, 65_000), (32_000, 2)])
@pytest.mark.parametrize("tile_px", [14, 224, 336, 384])
@pytest.mark.parametrize("fit", ["pad", "crop", "squeeze", "nearest", "letterbox"])
def test_the_thinnest_frames_take_few_bytes(size: tuple[int, int], tile_px: int, fit):
    """All of a crop's picture would be up to 29 GB, a padded square 3.1 to 12.7 GB."""
    grid = Grid(1, 1)
    tiling = Tiling(fit, grid, tile_px, CLIP_MEAN, CLIP_STD, dtype="uint8", overview=True)
    frame = noise(*size)
    tracemalloc.start()
    try:
        made = clip_tiles_reference(frame[None], tiling)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert made.shape == (1, 2, 3, tile_px, tile_px)
    assert peak_bytes < 30_000_000


@pytest.mark.skipif(native() is None, reason="built without the native part")
@pytest.mark.parametrize(("size", "is_native"), [((257, 1), False), ((256, 1), True)])
def test_the_thinnest_are_not_padded_by_the_native_part(monkeypatch, size, is_native: bool):
    """It would read all of the square: 4.2 billion pixels of 65,000 x 1."""
    asked: list[Tiling] = []
    by_native = tiles.clip_tiles_native

    def noted(frames, tiling, **kwargs):
        asked.append(tiling)
        return by_native(frames, tiling, **kwargs)

    monkeypatch.setattr(tiles, "clip_tiles_native", noted)
    tiling = Tiling("pad", Grid(1, 1), 58, CLIP_MEAN, CLIP_STD)
    frames = noise(*size)[None]
    assert np.array_equal(clip_tiles(frames, tiling), clip_tiles_reference(frames, tiling))
    assert bool(asked) is is_native
    clip_tiles(frames, tiling._replace(fit="crop"))
    assert asked[-1].fit == "crop"


def test_the_middle_of_the_thinnest_crop():
    # 336 new pixels to an old one: the tile is the two old ones at the middle, and between them.
    frame = np.zeros((65_000, 1, 3), np.uint8)
    frame[32_500:] = 255
    tile = crop(frame, 336)
    assert tile.shape == (336, 336, 3)
    assert (tile == tile[:, :1, :1]).all()
    assert (tile[0, 0, 0], tile[-1, 0, 0]) == (0, 255)
    assert tile[167, 0, 0] + tile[168, 0, 0].astype(int) == 255
