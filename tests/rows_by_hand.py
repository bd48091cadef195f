"""The rows of one frame by the order of the reference: project, join, crop, pool, write out.

What the library makes of many frames at once, pooling before the last linear layer, is compared
with this: one frame, patch by patch in Python, from its projected features.
"""

import torch

from llava_video.ops.pool import pool_map_reference
from llava_video.values import Newline, VisualPlan


def rows_by_hand(
    features: torch.Tensor,
    plan: VisualPlan,
    frame_idx: int,
    newline: torch.Tensor | None,
    separator: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the rows (n, D): overview, merged map in raster order, newlines, separator.

    Args:
        features: (tiles_per_frame, P, D) projected features, the overview's tile first.
        plan: the layout.
        frame_idx: which of its frames.
        newline: (D,), or None where there is none.
        separator: (D,), or None.
    """
    num_tiles, num_patches, width = features.shape
    side = round(num_patches**0.5)
    maps = features.view(num_tiles, side, side, width)
    rows: list[torch.Tensor] = []
    if plan.overview:
        size = (plan.overview_side, plan.overview_side)
        rows += list(pooled(maps[0], plan.pool_stride, plan, size).flatten(0, 1))
        maps = maps[1:]
    top, bottom, left, right = plan.crop
    merged = torch.stack(
        [
            maps[(y // side) * plan.grid.cols + x // side, y % side, x % side]
            for y in range(top, bottom)
            for x in range(left, right)
        ]
    ).view(bottom - top, right - left, width)
    is_fast = bool(plan.slow_every) and frame_idx % plan.slow_every > 0
    size = (plan.fast_side, plan.fast_side) if is_fast else plan.map_size
    for line in pooled(merged, plan.pool_stride * (1 + is_fast), plan, size):
        rows += list(line)
        rows += [newline] if plan.newline is Newline.ROW else []
    ends_clip = plan.newline is Newline.CLIP and frame_idx == plan.num_frames - 1
    rows += [newline] if plan.newline is Newline.FRAME or ends_clip else []
    rows += [separator] if plan.slow_every else []
    return torch.stack([row.to(features) for row in rows])


def pooled(
    patch_map: torch.Tensor, stride: int, plan: VisualPlan, size: tuple[int, int]
) -> torch.Tensor:
    """Pool one map (H, W, D); at stride 1 every mode resizes."""
    is_resized = stride == 1 or plan.pool_mode == "bilinear"
    mode = "bilinear" if is_resized else plan.pool_mode
    found = pool_map_reference(patch_map[None], stride, mode, size if is_resized else None)[0]
    assert found.shape[:2] == size
    return found
