"""Tiles are Pillow's pixels in the reference's arithmetic, and in the reference's places."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llava_video.ops import tiles as subject
from llava_video.ops.levels import normalise_reference
from llava_video.ops.tiles import (
    Tiling,
    clip_tiles,
    clip_tiles_reference,
    crop_size,
    frame_tiles,
    letterbox_offset,
    letterbox_size,
    split_tiles,
)
from llava_video.values import Grid

HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(autouse=True, params=["as built", "plain"])
def with_and_without_the_native_part(request, monkeypatch: pytest.MonkeyPatch):
    """Both give the same answers: every test runs twice."""
    if request.param == "plain":
        monkeypatch.setattr(subject, "native", lambda: None)


def noise(height_px: int, width_px: int) -> np.ndarray:
    generator = np.random.default_rng(height_px * 10_000 + width_px)
    return generator.integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)


def levels(tiles: np.ndarray) -> np.ndarray:
    """Return (n, px, px, 3) uint8 of tiles normalised by a half and a half."""
    return np.rint((tiles * 0.5 + 0.5) * 255).astype(np.uint8).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("size", [(40, 60), (384, 384), (17, 500), (1, 1)])
@pytest.mark.parametrize("tile_px", [384, 58])
def test_squeeze_is_pillows_bicubic_then_the_formula(size: tuple[int, int], tile_px: int):
    frame = noise(*size)
    resized = np.asarray(Image.fromarray(frame).resize((tile_px, tile_px), Image.BICUBIC))
    for mean, std in ((HALF, HALF), (CLIP_MEAN, CLIP_STD)):
        tiles = frame_tiles(frame, "squeeze", Grid(1, 1), tile_px, mean, std)
        assert tiles.shape == (1, 3, tile_px, tile_px)
        assert tiles.dtype == np.float32
        for channel in range(3):
            expected = normalise_reference(resized[..., channel], mean[channel], std[channel])
            assert np.array_equal(tiles[0, channel], expected)


def test_a_frame_of_the_tiles_size_is_left_as_it_is():
    frame = noise(58, 58)
    assert np.array_equal(
        levels(frame_tiles(frame, "squeeze", Grid(1, 1), 58, HALF, HALF))[0], frame
    )


def test_another_filter_is_noticed():
    frame = noise(40, 60)
    tiles = levels(frame_tiles(frame, "squeeze", Grid(1, 1), 58, HALF, HALF))[0]
    bilinear = np.asarray(Image.fromarray(frame).resize((58, 58), Image.BILINEAR))
    assert not np.array_equal(tiles, bilinear)


def test_letterbox_puts_the_picture_in_the_middle_of_black():
    # 30 x 100 on 2 x 3 tiles of 58: scale 1.74, 53 rows (52.2 up) of 116, so 31 black above.
    frame = noise(30, 100)
    tiles = levels(frame_tiles(frame, "letterbox", Grid(2, 3), 58, HALF, HALF))
    canvas = np.concatenate(
        [np.concatenate(list(row), axis=1) for row in tiles.reshape(2, 3, 58, 58, 3)]
    )
    resized = np.asarray(Image.fromarray(frame).resize((174, 53), Image.BICUBIC))
    assert canvas.shape == (116, 174, 3)
    assert np.array_equal(canvas[31 : 31 + 53], resized)
    assert not canvas[:31].any()
    assert not canvas[84:].any()


def test_overview_is_the_squeezed_whole_before_the_grid():
    frame = noise(30, 100)
    with_overview = frame_tiles(frame, "letterbox", Grid(1, 2), 58, HALF, HALF, overview=True)
    squeezed = frame_tiles(frame, "squeeze", Grid(1, 1), 58, HALF, HALF)
    without = frame_tiles(frame, "letterbox", Grid(1, 2), 58, HALF, HALF)
    assert np.array_equal(with_overview, np.concatenate([squeezed, without]))


@pytest.mark.parametrize("size", [(31, 60), (60, 31)])
def test_pad_is_a_square_of_grey_then_a_squeeze(size: tuple[int, int]):
    frame = noise(*size)
    square = np.full((60, 60, 3), 127, np.uint8)
    if size[0] < size[1]:
        square[14 : 14 + 31] = frame  # (60 - 31) // 2
    else:
        square[:, 14 : 14 + 31] = frame
    padded = frame_tiles(frame, "pad", Grid(1, 1), 58, HALF, HALF)
    assert np.array_equal(padded, frame_tiles(square, "squeeze", Grid(1, 1), 58, HALF, HALF))


def test_pad_takes_the_colour_of_the_mean():
    tiles = frame_tiles(np.zeros((4, 58, 3), np.uint8), "pad", Grid(1, 1), 58, CLIP_MEAN, HALF)
    corner = tiles[0, :, 0, 0] * 0.5 + np.array(CLIP_MEAN)
    assert np.rint(corner * 255).tolist() == [122, 116, 104]


def test_a_frame_that_is_not_contiguous():
    wide = noise(40, 60)
    turned = np.rot90(wide)
    tiles = frame_tiles(turned, "squeeze", Grid(1, 1), 58, HALF, HALF)
    copied = frame_tiles(np.ascontiguousarray(turned), "squeeze", Grid(1, 1), 58, HALF, HALF)
    assert np.array_equal(tiles, copied)


@pytest.mark.parametrize("fit", ["squeeze", "pad", "crop", "nearest"])
def test_a_grid_without_a_canvas_is_refused(fit):
    with pytest.raises(ValueError, match="1 x 2"):
        frame_tiles(noise(4, 4), fit, Grid(1, 2), 58, HALF, HALF)


@pytest.mark.parametrize(
    ("size_px", "canvas", "size", "offset"),
    [
        ((201, 300), (384, 384), (258, 384), (63, 0)),  # 257.28, up
        ((360, 640), (384, 768), (384, 683), (0, 42)),  # 640 * 384 / 360 = 682.67, up
        ((200, 300), (384, 384), (256, 384), (64, 0)),
        ((1900, 100), (1920, 384), (1920, 102), (0, 141)),  # 101.05, up
        ((384, 384), (384, 384), (384, 384), (0, 0)),
    ],
)
def test_letterbox(size_px: tuple, canvas: tuple, size: tuple, offset: tuple):
    assert letterbox_size(*size_px, *canvas) == size
    assert letterbox_offset(size, *canvas) == offset


@pytest.mark.parametrize(
    ("size_px", "size"),
    [
        ((360, 640), (336, 597)),  # 597.33, down
        ((640, 360), (597, 336)),
        ((100, 100), (336, 336)),
        ((480, 641), (336, 448)),  # 448.7, down
    ],
)
def test_crop_size(size_px: tuple, size: tuple):
    assert crop_size(*size_px, 336) == size


@pytest.mark.parametrize("size", [(90, 160), (160, 90), (31, 57), (40, 40), (20, 333)])
def test_crop_is_what_clip_was_trained_with(size: tuple[int, int]):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    theirs = CLIPImageProcessorPil(
        size={"shortest_edge": 58}, crop_size={"height": 58, "width": 58}
    )
    frame = noise(*size)
    expected = theirs(Image.fromarray(frame), return_tensors="np")["pixel_values"]
    assert np.array_equal(frame_tiles(frame, "crop", Grid(1, 1), 58, CLIP_MEAN, CLIP_STD), expected)


def test_a_crop_of_another_place_is_noticed():
    # 40 x 61 at 20 px is 20 x 30 px, of which columns 5 to 24 are kept.
    frame = noise(40, 61)
    resized = np.asarray(Image.fromarray(frame).resize((30, 20), Image.BICUBIC))
    tile = levels(frame_tiles(frame, "crop", Grid(1, 1), 20, HALF, HALF))[0]
    assert np.array_equal(tile, resized[:, 5:25])
    assert not np.array_equal(tile, resized[:, 4:24])


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([1, 58, 224, 336]))
@settings(max_examples=60)
def test_nearest_is_what_torch_takes(height: int, width: int, tile_px: int):
    frame = noise(height, width)
    planes = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(planes, size=(tile_px, tile_px)).byte().numpy()
    tiling = Tiling("nearest", Grid(1, 1), tile_px, HALF, HALF, dtype="uint8", kind="lanczos")
    assert np.array_equal(clip_tiles(frame[None], tiling)[0], expected)


def test_another_nearest_is_noticed():
    frame = noise(360, 720)
    tiling = Tiling("nearest", Grid(1, 1), 336, HALF, HALF, dtype="uint8")
    found = clip_tiles(frame[None], tiling)[0, 0].transpose(1, 2, 0)
    rows, cols = np.arange(336) * 360 // 336, np.arange(336) * 720 // 336
    assert not np.array_equal(found, frame[rows][:, cols])  # in whole numbers
    by_pillow = Image.fromarray(frame).resize((336, 336), Image.NEAREST)  # of pixels' centres
    assert not np.array_equal(found, np.asarray(by_pillow))


def test_blocks_come_row_by_row_and_the_whole_last():
    # 41 x 61 px in 2 x 2 blocks of 20 x 30: the last row and column are in the whole alone.
    frame = noise(41, 61)
    for fit in ("squeeze", "pad", "crop"):
        tiles = split_tiles(frame, fit, 2, 58, CLIP_MEAN, CLIP_STD)
        parts = [frame[:20, :30], frame[:20, 30:60], frame[20:40, :30], frame[20:40, 30:60], frame]
        for tile, part in zip(tiles, parts, strict=True):
            (expected,) = frame_tiles(part, fit, Grid(1, 1), 58, CLIP_MEAN, CLIP_STD)
            assert np.array_equal(tile, expected)
        assert np.array_equal(split_tiles(frame, fit, 1, 58, CLIP_MEAN, CLIP_STD), tiles[-1:])
    assert split_tiles(frame, "squeeze", 3, 58, HALF, HALF).shape == (10, 3, 58, 58)


def test_blocks_of_a_videos_frame_are_those_of_its_tile():
    frame = noise(40, 90)
    tiling = Tiling("nearest", Grid(1, 1), 58, HALF, HALF, dtype="uint8")
    tile = clip_tiles(frame[None], tiling)[0, 0].transpose(1, 2, 0)
    tiles = split_tiles(frame, "nearest", 2, 58, HALF, HALF)
    assert np.array_equal(tiles, split_tiles(tile, "squeeze", 2, 58, HALF, HALF))
    assert np.array_equal(tiles[-1:], frame_tiles(frame, "nearest", Grid(1, 1), 58, HALF, HALF))
    of_the_frame = frame_tiles(frame[:20, :45], "nearest", Grid(1, 1), 58, HALF, HALF)
    assert not np.array_equal(tiles[:1], of_the_frame)


def test_fewer_pixels_than_blocks_are_refused():
    with pytest.raises(ValueError, match=r"allowed: \(T, H, W, 3\)"):
        split_tiles(noise(1, 9), "squeeze", 2, 58, HALF, HALF)


def test_a_clip_is_its_frames_one_after_the_other():
    frames = np.stack([noise(30, 100), noise(30, 100)[::-1]])
    tiling = Tiling("letterbox", Grid(1, 2), 58, CLIP_MEAN, CLIP_STD, overview=True)
    found = clip_tiles(frames, tiling)
    assert found.shape == (2, 3, 3, 58, 58) == (2, tiling.num_tiles, 3, 58, 58)
    for tiles, frame in zip(found, frames, strict=True):
        expected = frame_tiles(
            frame, "letterbox", Grid(1, 2), 58, CLIP_MEAN, CLIP_STD, overview=True
        )
        assert np.array_equal(tiles, expected)


@pytest.mark.parametrize("kind", ["bilinear", "lanczos"])
def test_other_filters_are_pillows(kind):
    frame = noise(40, 60)
    tiling = Tiling("squeeze", Grid(1, 1), 58, HALF, HALF, dtype="uint8", kind=kind)
    expected = Image.fromarray(frame).resize((58, 58), Image.Resampling[kind.upper()])
    found = clip_tiles(frame[None], tiling)[0, 0].transpose(1, 2, 0)
    assert np.array_equal(found, np.asarray(expected))
    assert np.array_equal(found, clip_tiles_reference(frame[None], tiling)[0, 0].transpose(1, 2, 0))


def test_letterbox_rounds_up():
    truncated = int(640 * (384 / 360))
    assert truncated == 682 != letterbox_size(360, 640, 384, 768)[1]


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 6), st.integers(1, 6))
def test_letterbox_fills_one_side_and_stays_within(height: int, width: int, rows: int, cols: int):
    canvas = (rows * 384, cols * 384)
    size = letterbox_size(height, width, *canvas)
    assert 1 <= size[0] <= canvas[0]
    assert 1 <= size[1] <= canvas[1]
    assert size[0] == canvas[0] or size[1] == canvas[1]
    # At most one pixel wider or higher than its shape says.
    if size[0] == canvas[0]:
        assert abs(size[1] - width * canvas[0] / height) <= 1
    else:
        assert abs(size[0] - height * canvas[1] / width) <= 1


def test_golden_letterbox(shared: Path):
    path = shared / "golden/onevision_video/cases/anyres_geometry.json"
    for entry in json.loads(path.read_text()):
        canvas_width, canvas_height = entry["best_resolution_wh"]
        size = letterbox_size(entry["height"], entry["width"], canvas_height, canvas_width)
        left, top, right, bottom = entry["content_box_ltrb"]
        assert size == (bottom - top, right - left)
        assert letterbox_offset(size, canvas_height, canvas_width) == (top, left)


def test_golden_pixels(shared: Path):
    golden = np.load(shared / "golden/onevision_video/cases/video_grid_bilinear.npz")
    tiles = np.concatenate(
        [frame_tiles(f, "squeeze", Grid(1, 1), 384, HALF, HALF) for f in golden["frames"]]
    )
    assert np.array_equal(levels(tiles[:1])[0].transpose(2, 0, 1), golden["resized_u8_frame0"])
    assert np.array_equal(tiles[:, :, 3::8, 5::8], golden["pixel_sub"])
    assert np.allclose(tiles.sum((2, 3), dtype=np.float64), golden["pixel_sum"], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "fit", "overview"),
    [("image_anyres_small", "letterbox", True), ("multi_image_pad", "pad", False)],
)
def test_golden_pictures(shared: Path, name: str, fit, overview: bool):
    golden = np.load(shared / f"golden/onevision_video/cases/{name}.npz")
    pictures = [
        golden[key] for key in sorted(golden) if key.startswith("image_") and golden[key].ndim == 3
    ]
    tiles = np.concatenate(
        [frame_tiles(p, fit, Grid(1, 1), 384, HALF, HALF, overview=overview) for p in pictures]
    )
    assert np.array_equal(tiles[:, :, 3::8, 5::8], golden["pixel_sub"])


@pytest.mark.parametrize(
    ("case", "fit", "grid"),
    [
        ("llava1_image", "crop", Grid(1, 1)),
        ("llava15_image", "pad", Grid(1, 1)),
        ("llava15_projector_only", "crop", Grid(1, 1)),  # of the picture of llava15_image
        ("llava16_tall", "letterbox", Grid(2, 1)),
        ("llava16_wide", "letterbox", Grid(1, 3)),
        ("llava16_square", "letterbox", Grid(2, 2)),
        ("mini_image", "pad", Grid(1, 1)),
        ("mini_hd_image", "pad", Grid(1, 1)),
        ("next_video_release", "crop", Grid(1, 1)),
        ("mini_video", "nearest", Grid(1, 1)),
        ("mini_hd_video", "nearest", Grid(1, 1)),
    ],
)
def test_golden_pixels_of_the_family(shared: Path, case: str, fit, grid: Grid):
    """All that a case records, each exactly."""
    folder = shared / "golden/family/cases"
    golden = np.load(folder / f"{case}.npz")
    pictures = golden if case != "llava15_projector_only" else np.load(folder / "llava15_image.npz")
    frames = golden["frames"] if "frames" in golden else pictures["image_0"][None]
    tile_px = 224 if case == "llava1_image" else 336
    is_split = case == "mini_hd_image"
    tiling = Tiling(fit, grid, tile_px, CLIP_MEAN, CLIP_STD, overview=fit == "letterbox")
    tiles = clip_tiles(frames, tiling).reshape(-1, 3, tile_px, tile_px)
    if is_split:
        tiles = split_tiles(frames[0], fit, 2, tile_px, CLIP_MEAN, CLIP_STD)
    mean, std = (np.array(of_rgb).reshape(3, 1, 1) for of_rgb in (CLIP_MEAN, CLIP_STD))
    found = np.rint((tiles * std + mean) * 255).astype(np.uint8)
    recorded = {
        "pixel_values": tiles[0],
        "pixel_values_u8": found if golden.get("pixel_values_u8", found).ndim == 4 else found[0],
        "pixel_values_u8_frame0": found[0],
        "pixel_values_u8_every12": found[:, :, ::12, ::12],
        "pixel_values_u8_every24": found[:, :, ::24, ::24],
        "frames336_every8": found[:, :, ::8, ::8].transpose(0, 2, 3, 1),
        "tile_means": found.mean((1, 2, 3)),
    }
    keys = [key for key in recorded if key in golden]
    assert keys
    for key in keys:
        assert np.array_equal(recorded[key], golden[key]), key
