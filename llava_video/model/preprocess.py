"""A clip and its plan -> the tiles of its frames.

Every frame of a plan is cut alike. Knows no model beyond the side of a tile and its normalisation.
"""

import numpy as np
import torch

from llava_video.ops.tiles import frame_tiles
from llava_video.values import Clip, VisualPlan

Rgb = tuple[float, float, float]


def make_tiles(
    clip: Clip,
    plan: VisualPlan,
    *,
    tile_px: int,
    mean: Rgb = (0.5, 0.5, 0.5),
    std: Rgb = (0.5, 0.5, 0.5),
) -> torch.Tensor:
    """Return the tiles of every frame of a clip, frame by frame, the overview first.

    Args:
        clip: T frames.
        plan: how a frame reaches its tiles (`fit`, `grid`, `overview`).
        tile_px: side of a tile, px.
        mean: what is subtracted from a channel in 0..1.
        std: what it is divided by after that.

    Returns:
        (T x plan.tiles_per_frame, 3, tile_px, tile_px) float32 on the CPU.
    """
    tiles = [
        frame_tiles(frame, plan.fit, plan.grid, tile_px, mean, std, overview=plan.overview)
        for frame in clip.frames
    ]
    return torch.from_numpy(tiles[0] if len(tiles) == 1 else np.concatenate(tiles))
