"""A clip and its plan -> the tiles of its frames, cut where fewer bytes have to be copied.

Every frame of a plan is cut alike. Knows no model beyond the side of a tile and its normalisation.
"""

import numpy as np
import torch

from llava_video.ops.dispatch import uses_triton
from llava_video.ops.tile_frames import tile_frames, working_bytes
from llava_video.ops.tiles import Tiling, clip_tiles, frame_tiles, split_tiles
from llava_video.values import Clip, VisualPlan

Rgb = tuple[float, float, float]


def make_tiles(
    clip: Clip,
    plan: VisualPlan,
    *,
    tile_px: int,
    mean: Rgb = (0.5, 0.5, 0.5),
    std: Rgb = (0.5, 0.5, 0.5),
    like: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the tiles of every frame of a clip, frame by frame, the overview first.

    Of a plan that is fused the whole frame comes last, behind the tiles of its parts.

    Args:
        clip: T frames.
        plan: how a frame reaches its tiles (`fit`, `grid`, `overview`).
        tile_px: side of a tile, px.
        mean: what is subtracted from a channel in 0..1.
        std: what it is divided by after that.
        like: a tensor of what reads them; None for the CPU's float32.

    Returns:
        (T x plan.tiles_per_frame, 3, tile_px, tile_px), float32 on the CPU; or, where kernels run
        on `like` and the frames are small (`is_cut_there`), of its dtype on its device: the same
        numbers, rounded to it.
    """
    if like is not None and is_cut_there(clip, plan, tile_px, like):
        frames = _upload(clip, like.device)
        options = (plan.fit, plan.grid, tile_px, mean, std)
        return tile_frames(frames, *options, overview=plan.overview, dtype=like.dtype)
    if plan.is_fused:
        split = plan.grid.rows
        tiles = [split_tiles(x, plan.fit, split, tile_px, mean, std) for x in clip.frames]
    else:
        tiles = [
            frame_tiles(frame, plan.fit, plan.grid, tile_px, mean, std, overview=plan.overview)
            for frame in clip.frames
        ]
    return torch.from_numpy(tiles[0] if len(tiles) == 1 else np.concatenate(tiles))


def make_levels(
    clip: Clip,
    plan: VisualPlan,
    *,
    tile_px: int,
    mean: Rgb = (0.5, 0.5, 0.5),
    std: Rgb = (0.5, 0.5, 0.5),
) -> torch.Tensor:
    """Return tiles before they are normalised: a quarter of the bytes to hand over.

    `ops.tile_frames.normalised` makes of them the very numbers of `make_tiles`.

    Args:
        clip: T frames.
        plan: not a fused one.
        tile_px: side of a tile, px.
        mean: as in `make_tiles`; the colour around a padded picture.
        std: as in `make_tiles`.

    Returns:
        (T x plan.tiles_per_frame, 3, tile_px, tile_px) uint8 on the CPU.
    """
    fit, grid = plan.fit, plan.grid
    tiling = Tiling(fit, grid, tile_px, mean, std, overview=plan.overview, dtype="uint8")
    return torch.from_numpy(clip_tiles(clip.frames, tiling)).flatten(0, 1)


def is_cut_there(clip: Clip, plan: VisualPlan, tile_px: int, like: torch.Tensor) -> bool:
    """Say whether a clip goes to a tensor's device as it is, and becomes tiles there.

    It does where a frame, and what its resize holds between two passes, are no more bytes than its
    tiles in float32: then less is copied, and a call holds no more than those tiles would take,
    which is what `planning/activations.py` sets aside. So grids and small videos are cut on the
    device, and a large frame that becomes one tile (1080p: 6.2 MB against 1.8) on the CPU.
    """
    if like.dtype not in (torch.float32, torch.bfloat16, torch.float16) or not uses_triton(like):
        return False
    if plan.is_fused and plan.tiles_per_frame > 1:  # no kernel cuts a frame into parts
        return False
    _, height_px, width_px, _ = clip.frames.shape
    layout = (plan.fit, plan.grid, tile_px)
    held = working_bytes(height_px, width_px, *layout, overview=plan.overview)
    return held <= plan.tiles_per_frame * 3 * tile_px**2 * 4


def _upload(clip: Clip, device: torch.device) -> torch.Tensor:
    """Copy frames to a device, while the host goes on where that can be done."""
    frames = torch.empty(clip.frames.shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    frames.numpy()[...] = clip.frames  # of any strides, read-only ones too
    return frames.to(device, non_blocking=True)
