"""Tiles of a clip: frame after frame, each as the op makes it, here or on the device."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from kernels import interpreted
from memory_trace import MemoryTrace
from seeded_models import clips_of, noise_frames, video_plan
from tile_cases import CLIP_MEAN, CLIP_STD

from llava_video.model import preprocess
from llava_video.model.preprocess import is_cut_there, make_levels, make_tiles
from llava_video.ops import tile_frames as op
from llava_video.ops.tile_frames import normalised, working_bytes
from llava_video.ops.tiles import frame_tiles, split_tiles
from llava_video.values import Clip, Grid

HALF = (0.5, 0.5, 0.5)
LAYOUTS = [
    {},
    {"fit": "pad"},
    {"fit": "letterbox", "grid": Grid(2, 1), "overview": True},
    {"fit": "crop"},
    {"fit": "nearest"},
]
LIKE = torch.zeros(1, dtype=torch.bfloat16)


@pytest.fixture
def kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a CPU's tensor count as one on which kernels run; the op itself stays torch's."""
    monkeypatch.setattr(preprocess, "uses_triton", lambda _: True)


def clip_of(height_px: int, width_px: int, num_frames: int = 1) -> Clip:
    """Return a clip of black, which takes no memory."""
    (clip,) = clips_of(np.broadcast_to(np.uint8(0), (num_frames, height_px, width_px, 3)), 8)
    return clip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_frames", [1, 3])
def test_tiles_stand_frame_by_frame(layout: dict[str, object], num_frames: int):
    plan = video_plan(num_frames, 0, **layout)
    frames = noise_frames(num_frames)
    (clip,) = clips_of(frames)
    tiles = make_tiles(clip, plan, tile_px=58)
    assert tiles.shape == (num_frames * plan.tiles_per_frame, 3, 58, 58)
    by_frame = tiles.view(num_frames, plan.tiles_per_frame, 3, 58, 58)
    for frame, own in zip(frames, by_frame, strict=True):
        expected = frame_tiles(frame, plan.fit, plan.grid, 58, HALF, HALF, overview=plan.overview)
        assert np.array_equal(own.numpy(), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_levels_are_the_same_tiles_before_they_are_normalised(layout: dict[str, object]):
    plan = video_plan(3, 0, **layout)
    (clip,) = clips_of(noise_frames(3))
    levels = make_levels(clip, plan, tile_px=58, mean=CLIP_MEAN, std=CLIP_STD)
    tiles = make_tiles(clip, plan, tile_px=58, mean=CLIP_MEAN, std=CLIP_STD)
    assert levels.dtype is torch.uint8
    assert torch.equal(normalised(levels, CLIP_MEAN, CLIP_STD), tiles)
    assert not torch.equal(normalised(levels, HALF, HALF), tiles)


@pytest.mark.parametrize("fit", ["pad", "nearest"])
def test_a_fused_frame_is_cut_into_parts_and_the_whole_comes_last(fit, kernels_run):
    plan = video_plan(2, 0, fit=fit, grid=Grid(2, 2), overview=True, is_fused=True)
    frames = noise_frames(2)
    (clip,) = clips_of(frames)
    tiles = make_tiles(clip, plan, tile_px=58, like=LIKE)
    assert tiles.dtype == torch.float32  # cut on the CPU, whatever reads them
    expected = [split_tiles(frame, fit, 2, 58, HALF, HALF) for frame in frames]
    assert np.array_equal(tiles.numpy(), np.concatenate(expected))
    whole = frame_tiles(frames[0], fit, Grid(1, 1), 58, HALF, HALF)
    assert np.array_equal(tiles[4].numpy(), whole[0])


def test_normalisation_is_the_models():
    plan = video_plan(1, 0)
    (clip,) = clips_of(noise_frames(1))
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)
    plain = make_tiles(clip, plan, tile_px=58, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    tiles = make_tiles(clip, plan, tile_px=58, mean=mean, std=std)
    for channel in range(3):
        expected = (plain[:, channel] - mean[channel]) / std[channel]
        assert np.allclose(tiles[:, channel], expected, atol=1e-6)


@pytest.mark.usefixtures("kernels_run")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_there_the_tiles_are_the_same_and_of_the_towers_dtype(layout, dtype: torch.dtype):
    (clip,) = clips_of(noise_frames(3))
    plan, like = video_plan(3, 0, **layout), torch.zeros(1, dtype=dtype)
    options = {"tile_px": 58, "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.25, 0.125)}
    assert is_cut_there(clip, plan, 58, like)
    tiles = make_tiles(clip, plan, **options, like=like)
    assert tiles.dtype is dtype
    assert torch.equal(tiles, make_tiles(clip, plan, **options).to(dtype))


@pytest.mark.usefixtures("kernels_run")
def test_frames_of_any_strides_are_copied():
    turned = np.rot90(noise_frames(2), axes=(1, 2))
    turned.flags.writeable = False
    (clip,) = clips_of(turned)
    plan = video_plan(2, 0)
    there = make_tiles(clip, plan, tile_px=58, like=LIKE)
    assert torch.equal(there, make_tiles(clip, plan, tile_px=58).to(LIKE.dtype))


def test_on_a_cpu_tiles_stay_as_they_were():
    (clip,) = clips_of(noise_frames(2))
    plan = video_plan(2, 0)
    tiles = make_tiles(clip, plan, tile_px=58, like=LIKE)
    assert tiles.dtype is torch.float32
    assert torch.equal(tiles, make_tiles(clip, plan, tile_px=58))


GRID = {"fit": "letterbox", "grid": Grid(3, 3), "overview": True}


@pytest.mark.usefixtures("kernels_run")
@pytest.mark.parametrize(
    ("size", "layout", "expected"),
    [
        # A tile is 1,769,472 bytes in float32; ten of them 17,694,720.
        ((360, 640), {}, True),  # 691,200, and 360 x 384 px between the passes, 414,720
        ((480, 848), {}, False),  # 1,221,120 and 552,960: 1,774,080
        ((1080, 1920), {}, False),  # 6,220,800
        ((1080, 1920), GRID, True),  # and 1080 x 1152 px, 3,732,480
        ((2160, 3840), GRID, False),  # 24,883,200
        ((1, 200_000), {}, True),  # 600,000 and 1 x 384 px
        ((200_000, 1), {}, True),  # 600,000 and 384 x 16 px: the columns come first
        ((500, 500), {"fit": "pad"}, False),  # 750,000, a square of as much, 576,000: 2,076,000
        ((400, 400), {"fit": "pad"}, True),  # 480,000 twice and 460,800
        ((360, 640), {"fit": "crop"}, True),  # as a squeeze: 384 of 682 columns are kept
        ((360, 640), {"fit": "nearest"}, True),
    ],
)
def test_what_is_cut_there_by_hand(size: tuple[int, int], layout: dict, expected: bool):
    plan = video_plan(1, 0, **layout)
    assert is_cut_there(clip_of(*size), plan, 384, LIKE) is expected
    assert not is_cut_there(clip_of(*size), plan, 384, LIKE.double())


def test_without_kernels_nothing_is_cut_there():
    assert not is_cut_there(clip_of(40, 60), video_plan(1, 0), 384, LIKE)


@interpreted
@given(
    layout=st.sampled_from(LAYOUTS),
    height_px=st.integers(1, 40),
    width_px=st.integers(1, 40),
)
def test_what_is_held_beside_tiles_is_no_more_than_tiles_in_float32(
    layout: dict, height_px: int, width_px: int
):
    """The kernels' launches with every storage counted, but not run: the frame, what is between
    the passes, and a padded square."""
    plan, tile_px = video_plan(1, 0, **layout), 29
    (clip,) = clips_of(noise_frames(1, height_px, width_px))
    with pytest.MonkeyPatch.context() as patch, MemoryTrace() as trace:
        patch.setattr(preprocess, "uses_triton", lambda _: True)
        patch.setattr(op, "uses_triton", lambda _: True)
        for kernel in ("_first_kernel", "_second_kernel"):
            patch.setattr(f"llava_video.ops.tiles_kernel.{kernel}", _NotRun())
        assume(is_cut_there(clip, plan, tile_px, LIKE))
        make_tiles(clip, plan, tile_px=tile_px, like=LIKE)  # fills what is kept for every frame
        trace.reset_peak()
        before = trace.live_bytes
        tiles = make_tiles(clip, plan, tile_px=tile_px, like=LIKE)
        held = trace.peak_bytes - before - tiles.nbytes
    sizes = (height_px, width_px, plan.fit, plan.grid, tile_px)
    assert held == working_bytes(*sizes, overview=plan.overview)
    assert held <= plan.tiles_per_frame * 3 * tile_px**2 * 4


class _NotRun:
    """A kernel whose launch does nothing."""

    def __getitem__(self, _grid: object) -> object:
        return lambda *_, **__: None


@pytest.mark.gpu
@pytest.mark.parametrize("layout", [{}, {"fit": "pad"}, GRID])
def test_a_gpu_holds_what_was_counted(layout: dict):
    """Up to the allocator's rounding of each of at most five pieces, to 512 bytes."""
    like = torch.zeros(1, dtype=torch.bfloat16, device="cuda")
    plan = video_plan(1, 0, **layout)
    (clip,) = clips_of(noise_frames(1, 300, 400))
    assert is_cut_there(clip, plan, 384, like)
    expected = make_tiles(clip, plan, tile_px=384).to(like.dtype)
    assert torch.equal(make_tiles(clip, plan, tile_px=384, like=like).cpu(), expected)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    tiles = make_tiles(clip, plan, tile_px=384, like=like)
    held = torch.cuda.max_memory_allocated() - before - tiles.nbytes
    counted = working_bytes(300, 400, plan.fit, plan.grid, 384, overview=plan.overview)
    assert counted <= held <= counted + 5 * 512
