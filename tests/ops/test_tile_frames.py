"""Tiles of frames as tensors: those of ops/tiles bit for bit, and Pillow's pixels underneath."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kernels import interpreted
from tile_cases import CLIP_MEAN, CLIP_STD, HALF, RESAMPLING, by_hand, by_pillow, mutants, noise

from llava_video.ops import tile_frames as module
from llava_video.ops import tiles_kernel
from llava_video.ops.resample import Filter
from llava_video.ops.tile_frames import tile_frames, tile_frames_reference
from llava_video.ops.tiles import frame_tiles
from llava_video.values import Fit, Grid

ONE = Grid(1, 1)
LAYOUTS: list[tuple[Fit, Grid, bool]] = [
    ("squeeze", ONE, False),
    ("squeeze", ONE, True),
    ("pad", ONE, False),
    ("pad", ONE, True),
    ("letterbox", ONE, False),
    ("letterbox", Grid(1, 2), True),
    ("letterbox", Grid(2, 3), False),
    ("letterbox", Grid(3, 1), True),
    ("crop", ONE, False),
    ("crop", ONE, True),
    ("nearest", ONE, False),
]


def expected(
    frames: torch.Tensor, layout: tuple[Fit, Grid, bool], tile_px: int, mean=HALF, std=HALF
) -> torch.Tensor:
    """Return what ops/tiles makes of the frames, one after the other."""
    fit, grid, overview = layout
    tiles = [
        frame_tiles(frame.numpy(), fit, grid, tile_px, mean, std, overview=overview)
        for frame in frames
    ]
    return torch.from_numpy(np.concatenate(tiles))


def levels_of(frames: torch.Tensor, tile_px: int, kind: Filter = "bicubic") -> np.ndarray:
    """Return frames squeezed to one tile each, (T, px, px, 3) levels."""
    tiles = tile_frames(frames, "squeeze", ONE, tile_px, HALF, HALF, kind=kind, dtype=torch.uint8)
    return tiles.permute(0, 2, 3, 1).numpy()


@given(
    layout=st.sampled_from(LAYOUTS),
    height_px=st.integers(1, 150),
    width_px=st.integers(1, 150),
    tile_px=st.sampled_from([1, 13, 56, 61]),
)
@settings(max_examples=120)
def test_equals_the_tiles_of_each_frame(layout, height_px: int, width_px: int, tile_px: int):
    frames = noise(2, height_px, width_px)
    fit, grid, overview = layout
    ratio = max(height_px, width_px) / min(height_px, width_px)
    assume(fit != "crop" or tile_px**2 * ratio < 100_000)  # Pillow makes the whole
    tiles = tile_frames(frames, fit, grid, tile_px, CLIP_MEAN, CLIP_STD, overview=overview)
    wanted = expected(frames, layout, tile_px, CLIP_MEAN, CLIP_STD)
    assert tiles.dtype is torch.float32
    assert torch.equal(tiles, wanted)


@given(
    kind=st.sampled_from(sorted(RESAMPLING)),
    height_px=st.integers(1, 400),
    width_px=st.integers(1, 400),
    tile_px=st.integers(1, 120),
)
@settings(max_examples=80)
def test_levels_are_pillows_by_every_filter(kind, height_px: int, width_px: int, tile_px: int):
    frames = noise(1, height_px, width_px)
    wanted = by_pillow(frames[0], (tile_px, tile_px), kind)
    assert np.array_equal(levels_of(frames, tile_px, kind)[0], wanted)


@pytest.mark.parametrize(
    "size", [(1080, 1920), (1920, 1080), (1, 5000), (4999, 2), (384, 384), (384, 97)]
)
def test_real_and_odd_sizes(size: tuple[int, int]):
    frames = noise(1, *size)
    assert np.array_equal(levels_of(frames, 384)[0], by_pillow(frames[0], (384, 384)))


@pytest.mark.slow
def test_a_grid_and_overview_of_4k():
    frames, layout = noise(1, 2160, 3840), ("letterbox", Grid(3, 3), True)
    tiles = tile_frames(frames, "letterbox", Grid(3, 3), 384, HALF, HALF, overview=True)
    assert torch.equal(tiles, expected(frames, layout, 384))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bits_are_the_float32_rounded_once(dtype: torch.dtype):
    frames, layout = noise(2, 40, 60), ("letterbox", Grid(1, 2), True)
    options = ("letterbox", Grid(1, 2), 28, CLIP_MEAN, CLIP_STD)
    tiles = tile_frames(frames, *options, overview=True, dtype=dtype)
    assert torch.equal(tiles, expected(frames, layout, 28, CLIP_MEAN, CLIP_STD).to(dtype))


def test_the_formula_by_hand():
    """One row of levels 0 and 200 made one pixel: both weigh a half, 100; (100/255 - 1/2) / 1/4."""
    frames = torch.tensor([0, 200], dtype=torch.uint8).view(1, 1, 2, 1).expand(1, 1, 2, 3)
    tiles = tile_frames(frames, "squeeze", ONE, 1, HALF, (0.25, 0.25, 0.25))
    assert tiles.flatten().tolist() == pytest.approx([(100 / 255 - 0.5) / 0.25] * 3, abs=1e-6)


@pytest.mark.parametrize(("size", "is_rows_first"), [((97, 131), True), ((151, 97), False)])
def test_wrong_formulas_are_rejected(size: tuple[int, int], is_rows_first: bool):
    frames = noise(1, *size)
    levels = levels_of(frames, 56)[0]
    right = by_hand(frames[0], (56, 56), is_rows_first=is_rows_first)
    assert np.array_equal(levels, right)
    for name, mutant in mutants(frames[0], (56, 56), is_rows_first=is_rows_first):
        assert not np.array_equal(levels, mutant), name


def test_another_order_of_the_normalisation_is_noticed():
    every = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    tiles = tile_frames(every, "squeeze", ONE, 16, CLIP_MEAN, CLIP_STD)
    units = every.permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(of_rgb).view(3, 1, 1) for of_rgb in (CLIP_MEAN, CLIP_STD))
    fused = (units - mean * 255) / (std * 255)  # as torchvision's fast processors do
    assert (tiles - fused).abs().max() < 1e-5
    assert not torch.equal(tiles, fused)


@pytest.mark.parametrize("turn", [lambda f: f.transpose(1, 2), lambda f: f[:, ::2, 3:-1]])
def test_frames_that_are_not_contiguous(turn):
    frames = turn(noise(2, 40, 60))
    assert not frames.is_contiguous()
    assert torch.equal(
        tile_frames(frames, "pad", ONE, 28, HALF, HALF),
        expected(frames.contiguous(), ("pad", ONE, False), 28),
    )


@pytest.mark.parametrize(
    ("frames", "layout", "more", "words"),
    [
        (torch.zeros(4, 5, 3, dtype=torch.uint8), ("squeeze", ONE), {}, "uint8"),
        (torch.zeros(1, 4, 5, 4, dtype=torch.uint8), ("squeeze", ONE), {}, "uint8"),
        (torch.zeros(1, 4, 5, 3), ("squeeze", ONE), {}, "float32"),
        (noise(1, 4, 5), ("pad", Grid(1, 2)), {}, "1 x 2"),
        (noise(1, 4, 5), ("squeeze", ONE), {"dtype": torch.int32}, "int32"),
    ],
)
def test_what_cannot_be_tiled_is_refused(frames: torch.Tensor, layout, more: dict, words: str):
    with pytest.raises(ValueError, match=words):
        tile_frames(frames, *layout, 8, HALF, HALF, **more)


@interpreted
@pytest.mark.parametrize(("fit", "grid", "overview"), LAYOUTS)
def test_the_kernels_are_asked_by_the_tensor(monkeypatch, fit: Fit, grid: Grid, overview: bool):
    asked: list[torch.Tensor] = []
    monkeypatch.setattr(module, "uses_triton", lambda tensor: asked.append(tensor) or True)
    frames = noise(2, 9, 14).transpose(1, 2)  # a layout that the kernels do not read
    options = (fit, grid, 5, CLIP_MEAN, CLIP_STD)
    tiles = tile_frames(frames, *options, overview=overview)
    assert len(asked) == 1
    assert asked[0] is frames
    assert torch.equal(tiles, tile_frames_reference(frames, *options, overview=overview))


def test_what_is_kept_on_the_device_is_bounded():
    for kept in (tiles_kernel._on_device, module._values):
        assert kept.cache_info().maxsize in (16, 32)


@pytest.mark.gpu
@pytest.mark.parametrize(("fit", "grid", "overview"), LAYOUTS)
@pytest.mark.parametrize("size", [(1080, 1920), (1920, 1080), (360, 640), (2160, 3840)])
def test_a_gpu_gives_the_same_bits(size: tuple[int, int], fit: Fit, grid: Grid, overview: bool):
    frames, layout = noise(1, *size), (fit, grid, overview)
    wanted = expected(frames, layout, 384, CLIP_MEAN, CLIP_STD)
    options = (fit, grid, 384, CLIP_MEAN, CLIP_STD)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        tiles = tile_frames(frames.cuda(), *options, overview=overview, dtype=dtype)
        assert torch.equal(tiles.cpu(), wanted.to(dtype))
    reference = tile_frames_reference(frames.cuda(), *options, overview=overview)
    assert torch.equal(reference.cpu(), wanted)
