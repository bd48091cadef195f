"""Frames become what files would show, by another computation, and then inference's own tiles."""

import math

import numpy as np
import pytest
import torch
from seeded_models import noise_frames, video_plan

from llava_video.model.dimensions import VisionConfig
from llava_video.model.preprocess import make_tiles
from llava_video.train.raw_frames import (
    FilmedFrames,
    as_if_encoded,
    grouped_by_size,
    step_of,
    tiles_of_frames,
)
from llava_video.values import Clip

Planes = np.ndarray


def smooth_frames(height_px: int, width_px: int) -> np.ndarray:
    """Draw two frames with soft ways and hard edges of colour, so that little is alike."""
    down, across = np.mgrid[:height_px, :width_px]
    frames = np.empty((2, height_px, width_px, 3), dtype=np.uint8)
    for idx in range(2):
        waves = [60 * np.sin((down * (c + 1) + across * (idx + 2)) / 9) + 120 for c in range(3)]
        frames[idx] = np.stack(waves, axis=2)
    frames[:, height_px // 3 :, width_px // 2 :] = (200, 30, 60)
    frames[:, :3, :5] = (250, 250, 10)
    return frames


def basis(size: int) -> np.ndarray:
    """Return the cosine transform as it is defined: frequency k at x, orthonormal."""
    made = np.empty((size, size))
    for k in range(size):
        for x in range(size):
            made[k, x] = math.cos(math.pi * (2 * x + 1) * k / (2 * size))
        made[k] *= math.sqrt((1 if k == 0 else 2) / size)
    return made


def coarse(plane: Planes, step: float, share: float) -> Planes:
    """Round every block's coefficients: down below 1 - `share` of a step."""
    waves, out = basis(8), np.empty_like(plane)
    for top in range(0, plane.shape[0], 8):
        for left in range(0, plane.shape[1], 8):
            block = plane[top : top + 8, left : left + 8]
            found = np.einsum("ky,lx,yx->kl", waves, waves, block)
            kept = np.sign(found) * np.floor(np.abs(found) / step + share) * step
            out[top : top + 8, left : left + 8] = np.einsum("ky,lx,kl->yx", waves, waves, kept)
    return out


def doubled(plane: Planes) -> Planes:
    """Interpolate to twice the sides: sample i lies at (i + 1/2) / 2 - 1/2 of the small plane."""
    for axis in (0, 1):
        num = plane.shape[axis]
        places = np.clip((np.arange(2 * num) + 0.5) / 2 - 0.5, 0, num - 1)
        low = np.floor(places).astype(int)
        share = (places - low).reshape((-1, 1) if axis == 0 else (1, -1))
        high = np.minimum(low + 1, num - 1)
        plane = plane.take(low, axis) * (1 - share) + plane.take(high, axis) * share
    return plane


def encoded(
    frame: np.ndarray,
    step: float,
    *,
    share: float = 1 / 3,
    halves: bool = True,
    soft: bool = True,
) -> np.ndarray:
    """Do with BT.601's own formulas what the file would: the three switches make it wrong."""
    height_px, width_px = frame.shape[:2]
    pads = ((0, -height_px % 16), (0, -width_px % 16), (0, 0))
    red, green, blue = np.moveaxis(np.pad(frame.astype(float), pads, mode="edge"), 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    colours = [(blue - luma) / 1.772, (red - luma) / 1.402]
    luma = coarse(luma, step, share)
    for idx, plane in enumerate(colours):
        if not halves:
            colours[idx] = coarse(plane, step, share)
            continue
        parts = (plane[0::2, 0::2], plane[0::2, 1::2], plane[1::2, 0::2], plane[1::2, 1::2])
        small = coarse(sum(parts) / 4, step, share)
        colours[idx] = doubled(small) if soft else small.repeat(2, 0).repeat(2, 1)
    red, blue = luma + 1.402 * colours[1], luma + 1.772 * colours[0]
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    whole = np.stack([red, green, blue], axis=2)[:height_px, :width_px]
    return np.clip(np.rint(whole), 0, 255).astype(int)


@pytest.mark.parametrize(("height_px", "width_px"), [(32, 48), (21, 35)])
@pytest.mark.parametrize("step", [2.5, 10.0])
def test_frames_are_as_coarse_as_a_file(height_px: int, width_px: int, step: float):
    frames = smooth_frames(height_px, width_px)
    made = as_if_encoded(torch.from_numpy(frames), torch.full((2,), step))
    assert made.dtype is torch.uint8
    assert made.shape == frames.shape
    found = made.numpy().astype(int)
    expected = np.stack([encoded(frame, step) for frame in frames])
    # Both round the same numbers; a half may fall to either side, and a coefficient too.
    assert (found != expected).mean() < 1e-2
    assert np.abs(found - expected).max() <= 1
    for wrong in ({"share": 0.5}, {"halves": False}, {"soft": False}):
        others = np.stack([encoded(frame, step, **wrong) for frame in frames])
        assert (found != others).mean() > 0.03, wrong


def test_a_step_of_nothing_leaves_frames_as_they_are():
    frames = torch.from_numpy(noise_frames(3, 20, 28))
    made = as_if_encoded(frames, torch.tensor([0.0, 8.0, 0.0]))
    assert torch.equal(made[::2], frames[::2])
    assert not torch.equal(made[1], frames[1])
    # Nobody's frame depends on its neighbours.
    assert torch.equal(made[1:2], as_if_encoded(frames[1:2], torch.tensor([8.0])))


def test_the_step_doubles_every_six():
    assert [step_of(crf) for crf in (0, 6, 18, 24)] == [0.625, 1.25, 5.0, 10.0]


VISION = VisionConfig(hidden_size=8, intermediate_size=8, num_layers=1, num_heads=1,
                      image_px=56, patch_px=14)  # fmt: skip


def tiles_alone(frames: np.ndarray) -> torch.Tensor:
    plan = video_plan(len(frames), 1)
    clip = Clip(frames, np.arange(len(frames), dtype=np.float64), np.arange(len(frames)))
    mean, std = VISION.pixel_mean, VISION.pixel_std
    return make_tiles(clip, plan, tile_px=VISION.image_px, mean=mean, std=std)


def test_tiles_are_inferences_own_in_the_order_of_the_visuals():
    clips = [noise_frames(*size) for size in ((3, 40, 60), (2, 64, 48), (4, 40, 60), (1, 56, 56))]
    filmed = [FilmedFrames(frames=torch.from_numpy(clip), step=0.0) for clip in clips]
    raw = grouped_by_size(filmed)
    assert [len(group) for group in raw["groups"]] == [7, 2, 1]
    tiles = tiles_of_frames(raw, video_plan(3, 1), VISION)
    assert torch.equal(tiles, torch.cat([tiles_alone(clip) for clip in clips]))
    assert not torch.equal(tiles[:3], tiles[5:8])


def test_each_clip_has_its_own_step():
    clips = [smooth_frames(40, 60), smooth_frames(64, 48), smooth_frames(40, 60)[::-1].copy()]
    steps = (0.0, 6.0, 12.0)
    filmed = [
        FilmedFrames(frames=torch.from_numpy(clip), step=step)
        for clip, step in zip(clips, steps, strict=True)
    ]
    tiles = tiles_of_frames(grouped_by_size(filmed), video_plan(3, 1), VISION)
    wanted = [
        tiles_alone(as_if_encoded(one.frames, torch.full((2,), one.step)).numpy()) for one in filmed
    ]
    assert torch.equal(tiles, torch.cat(wanted))
    assert not torch.equal(tiles, torch.cat([tiles_alone(clip) for clip in clips]))
