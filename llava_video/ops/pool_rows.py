"""Maps of tiles -> pooled rows of a sequence in one pass: joined, cropped, GELU, pooled, spaced.

Formula, for row i and column j of frame n, f a GELU or nothing, map n its tiles side by side:
    rows[n, i, j] = sum_a sum_b v_a w_b f(map[n, top + y_a, left + x_b]), j < w; "max": the largest
    rows[n, i, w] = the row's end, or zeros, where rows are one longer than the map
with the taps of ops/pool.py: bilinear has two an axis, "average" and "max" have `stride`.
Source: LLaVA-NeXT, `get_2dPool` and its "grid" newlines. The GELU comes before the pooling because
a linear layer commutes with weights that add up to one and an activation does not.

Shapes: maps (N, R, S, p, p, C), R x S tiles of p x p patches; rows (N, h, w or w + 1, C), a view of
the input of the next matrix product, or of the language model. 27 x 27 x 3584 to 14 x 14 in
bfloat16 reads 5.2 MB a frame and writes 1.4. The gain is not measured yet on a GPU.
"""

import torch

from llava_video.ops.activation import activate, activate_reference
from llava_video.ops.dispatch import uses_triton
from llava_video.ops.pool import Pooling, pool_map, pool_map_reference
from llava_video.ops.pool_kernel import KERNEL_DTYPES, pool_rows_triton


def pool_rows_reference(
    maps: torch.Tensor, pooling: Pooling, *, gelu: bool = False, ends: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the rows, step by step.

    Args:
        maps: (N, R, S, p, p, C).
        pooling: window and size of the joined map.
        gelu: whether the exact GELU comes first.
        ends: (C,) what follows each row of the map, or None for nothing.

    Returns:
        (N, h, w, C), or (N, h, w + 1, C) with ends.
    """
    window = _window(maps, pooling)
    activated = activate_reference(window, "gelu") if gelu else window
    pooled = pool_map_reference(activated, pooling.stride, pooling.kind, pooling.size)
    if ends is None:
        return pooled
    column = ends.to(pooled).expand(pooled.shape[0], pooled.shape[1], 1, pooled.shape[3])
    return torch.cat((pooled, column), dim=2)


def _pool_rows_torch(
    maps: torch.Tensor,
    rows: torch.Tensor,
    pooling: Pooling,
    *,
    gelu: bool,
    ends: torch.Tensor | None,
) -> None:
    """Write the rows by torch's operations, frame by frame: what is between stays in the cache.

    With gradients all frames at once: each write into the rows costs a copy of their gradient. As
    in the kernel, 16-bit numbers are not rounded between GELU and pooling: rounded there, the
    result would be further from float64 than the reference's order is.
    """
    width = pooling.size[1]
    wide = torch.promote_types(maps.dtype, torch.float32)
    step = max(1, len(maps)) if torch.is_grad_enabled() else 1
    for idx in range(0, len(maps), step):
        window = _window(maps[idx : idx + step], pooling).to(wide)
        if gelu:
            window = activate(window, "gelu")
        rows[idx : idx + step, :, :width] = pool_map(
            window, pooling.stride, pooling.kind, pooling.size
        )
        del window  # before the next is made
    if rows.shape[2] > width:
        rows[:, :, width] = 0 if ends is None else ends.to(rows)


def pool_rows(
    maps: torch.Tensor,
    rows: torch.Tensor,
    pooling: Pooling,
    *,
    gelu: bool = False,
    ends: torch.Tensor | None = None,
) -> None:
    """Write the pooled maps of some frames where they are wanted.

    Args:
        maps: (N, R, S, p, p, C), the tiles of each frame in their grid; with `gelu` not to be used
            afterwards.
        rows: (N, h, w, C), or (N, h, w + 1, C) to leave room after each row of the map.
        pooling: window and size of the joined map.
        gelu: apply the exact GELU to what is read.
        ends: (C,) what is written into that room; None for zeros.

    Raises:
        ValueError: when maps, rows and pooling do not fit together.
    """
    num_maps, grid_rows, grid_cols, side, _, num_channels = maps.shape
    pooling.check(grid_rows * side, grid_cols * side)
    height, width = pooling.size
    wanted = (num_maps, height, rows.shape[2], num_channels)
    if rows.shape != wanted or rows.shape[2] - width not in (0, 1):
        raise ValueError(f"rows {tuple(rows.shape)} for maps {tuple(maps.shape)} and {pooling}.")
    # The kernel has no derivative, computes in float32, and has a program for every patch.
    has_kernel = maps.dtype in KERNEL_DTYPES and not torch.is_grad_enabled()
    has_kernel = has_kernel and 0 not in pooling.size
    write = pool_rows_triton if has_kernel and uses_triton(maps) else _pool_rows_torch
    write(maps, rows, pooling, gelu=gelu, ends=ends)


def _window(maps: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Join the maps of each frame's tiles and cut the window out: (N, height, width, C)."""
    num_maps, grid_rows, grid_cols, side, _, num_channels = maps.shape
    if grid_rows == grid_cols == 1:
        joined = maps[:, 0, 0]
    else:
        joined = maps.transpose(2, 3).reshape(
            num_maps, grid_rows * side, grid_cols * side, num_channels
        )
    top, bottom, left, right = pooling.crop
    return joined[:, top:bottom, left:right]
