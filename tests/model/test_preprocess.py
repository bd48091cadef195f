"""Tiles of a clip: frame after frame, each as the op makes it."""

import numpy as np
import pytest
from seeded_models import clips_of, noise_frames, video_plan

from llava_video.model.preprocess import make_tiles
from llava_video.ops.tiles import frame_tiles
from llava_video.values import Grid

HALF = (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"fit": "pad"},
        {"fit": "letterbox", "grid": Grid(2, 1), "overview": True},
    ],
)
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


def test_normalisation_is_the_models():
    plan = video_plan(1, 0)
    (clip,) = clips_of(noise_frames(1))
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)
    plain = make_tiles(clip, plan, tile_px=58, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    tiles = make_tiles(clip, plan, tile_px=58, mean=mean, std=std)
    for channel in range(3):
        expected = (plain[:, channel] - mean[channel]) / std[channel]
        assert np.allclose(tiles[:, channel], expected, atol=1e-6)
