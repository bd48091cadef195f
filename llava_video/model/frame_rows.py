"""One frame's features -> its rows of the sequence: tiles joined, cropped, pooled, written out.

Order of the rows: the overview's map (pooled, without newlines), the merged map with its newlines,
the separator. Follows a `VisualPlan` and decides nothing; knows no tower and no language model.
"""

import torch

from llava_video.ops.pool import map_rows, pool_map
from llava_video.values import VisualPlan


def frame_rows(
    features: torch.Tensor,
    plan: VisualPlan,
    frame_idx: int,
    *,
    newline: torch.Tensor | None,
    separator: torch.Tensor | None,
) -> torch.Tensor:
    """Return the rows of one frame.

    Args:
        features: (tiles_per_frame, P, D) projected features, the overview's tile first.
        plan: the layout.
        frame_idx: which of the plan's frames, from 0: the last may end the clip, and in the
            slow-fast layout every k-th is slow.
        newline: (D,) the learned newline; None only where the plan writes none.
        separator: (D,) the learned separator; None unless `plan.slow_every`.

    Returns:
        (rows, D).

    Raises:
        ValueError: when the plan's sizes do not describe these features, or a vector is missing.
    """
    num_tiles, num_patches, _ = features.shape
    side = round(num_patches**0.5)
    if num_tiles != plan.tiles_per_frame or side * side != num_patches:
        raise ValueError(f"features {tuple(features.shape)} for {plan.tiles_per_frame} tiles.")
    maps = features.unflatten(1, (side, side))  # type: ignore[no-untyped-call]  # (n, p, p, D)
    pieces: list[torch.Tensor] = []
    if plan.overview:
        size = (plan.overview_side, plan.overview_side)
        overview = pool_map(maps[:1], plan.pool_stride, plan.pool_mode, size)
        pieces.append(overview.flatten(0, 2))
        maps = maps[1:]
    merged = _cropped(_merged(maps, plan.grid.rows, plan.grid.cols), plan.crop)
    is_fast = bool(plan.slow_every) and frame_idx % plan.slow_every != 0
    stride = plan.pool_stride * 2 if is_fast else plan.pool_stride
    size = (plan.fast_side, plan.fast_side) if is_fast else plan.map_size
    pooled = pool_map(merged[None], stride, plan.pool_mode, size)[0]
    is_last = frame_idx == plan.num_frames - 1
    pieces.append(map_rows(pooled, newline, plan.newline, is_last=is_last))
    if plan.slow_every:
        if separator is None:
            raise ValueError("a separator after each frame was asked for, and there is none.")
        pieces.append(separator[None].to(pooled))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _merged(maps: torch.Tensor, num_rows: int, num_cols: int) -> torch.Tensor:
    """Join the maps of a grid's tiles (rows x cols, p, p, D) to one (rows p, cols p, D)."""
    if num_rows == num_cols == 1:
        return maps[0]
    _, side, _, num_channels = maps.shape
    grid = maps.reshape(num_rows, num_cols, side, side, num_channels).transpose(1, 2)
    return grid.reshape(num_rows * side, num_cols * side, num_channels)


def _cropped(merged: torch.Tensor, crop: tuple[int, int, int, int]) -> torch.Tensor:
    """Cut the window (top, bottom, left, right) out of a map."""
    top, bottom, left, right = crop
    height, width, _ = merged.shape
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ValueError(f"crop {crop} of a map of {height} x {width}.")
    return merged[top:bottom, left:right]
