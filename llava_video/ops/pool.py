"""Maps of patch features made smaller, and written out as rows with their newline tokens.

Formulas, per axis of n patches and stride s (27 patches, stride 2):
    bilinear: m = ceil(n/s) (14) outputs; output o reads between patches at (o + 1/2) n/m - 1/2
    average, max: m = floor(n/s) (13) windows of s patches; what is left over is dropped
Source: LLaVA-NeXT, `get_2dPool` and its newline layouts. 27 x 27 bilinear by 2 gives
14 x 14 = 196 rows; with a newline after each map row 14 x 15 = 210.

Shapes: maps (N, H, W, C), channels last, so that rows are read and written in one run. Knows no
model and no plan. The gain of a fused kernel is not measured yet.
"""

import math

import torch
import torch.nn.functional as F

from llava_video.values import Newline, PoolMode


def pooled_size(height: int, width: int, stride: int, mode: PoolMode) -> tuple[int, int]:
    """Return the rows and columns of a map after pooling.

    >>> pooled_size(27, 27, 2, "bilinear"), pooled_size(27, 27, 2, "average")
    ((14, 14), (13, 13))
    """
    if mode == "bilinear":
        return math.ceil(height / stride), math.ceil(width / stride)
    return height // stride, width // stride


def pool_map_reference(
    maps: torch.Tensor, stride: int, mode: PoolMode, size: tuple[int, int] | None = None
) -> torch.Tensor:
    """Return the pooled maps, written as one matrix per axis (bilinear, average) or as windows.

    Args:
        maps: (N, H, W, C).
        stride: side reduction, >= 1.
        mode: how.
        size: (h, w) of the result of "bilinear"; None for ceil(side / stride).

    Returns:
        (N, h, w, C) in the maps' dtype.
    """
    _, height, width, _ = maps.shape
    out_height, out_width = size or pooled_size(height, width, stride, mode)
    if mode == "max":
        maps = maps[:, : out_height * stride, : out_width * stride]
        windows = maps.reshape(-1, out_height, stride, out_width, stride, maps.shape[3])
        return torch.amax(windows, dim=(2, 4))
    if mode == "average":
        rows = _window_matrix(height, out_height, stride)
        cols = _window_matrix(width, out_width, stride)
    else:
        rows = _bilinear_matrix(height, out_height)
        cols = _bilinear_matrix(width, out_width)
    pooled = torch.einsum("ih,jw,nhwc->nijc", rows, cols, maps.double().cpu())
    return pooled.to(maps)


def pool_map(
    maps: torch.Tensor, stride: int, mode: PoolMode, size: tuple[int, int] | None = None
) -> torch.Tensor:
    """Return the pooled maps.

    Args:
        maps: (N, H, W, C).
        stride: side reduction, >= 1; 1 leaves the map as it is unless `size` differs.
        mode: "bilinear" rounds sides up, "average" and "max" round them down.
        size: (h, w) to resize to bilinearly, whatever the stride; None for what the stride gives.

    Returns:
        (N, h, w, C).

    Raises:
        ValueError: for a stride below 1, or a `size` that "average" or "max" cannot reach.
    """
    _, height, width, _ = maps.shape
    if stride < 1:
        raise ValueError(f"stride = {stride}: at least 1.")
    strided = pooled_size(height, width, stride, mode)
    target = size or strided
    if target == (height, width):
        return maps
    if 0 in target:
        raise ValueError(f"a map of {height} x {width} at stride {stride} has no patch left.")
    channels_first = maps.permute(0, 3, 1, 2)  # (N, C, H, W), channels last in memory
    if mode == "bilinear" or stride == 1:
        pooled = F.interpolate(channels_first, size=target, mode="bilinear", align_corners=False)
    elif target != strided:
        raise ValueError(f"{mode} pooling by {stride} gives {strided}, not {target}.")
    elif mode == "average":
        pooled = F.avg_pool2d(channels_first, stride)
    else:
        pooled = F.max_pool2d(channels_first, stride)
    return pooled.permute(0, 2, 3, 1)


def map_rows(
    patch_map: torch.Tensor, newline: torch.Tensor | None, where: Newline, *, is_last: bool
) -> torch.Tensor:
    """Write one frame's map out as rows of the sequence, with its newline tokens.

    Args:
        patch_map: (h, w, D).
        newline: (D,) the learned newline; None only where none is written.
        where: after each map row, each frame, the clip, or nowhere.
        is_last: whether this is the clip's last frame.

    Returns:
        (rows, D): h (w + 1) for ROW, h w + 1 for FRAME and for the last of CLIP, else h w.

    Raises:
        ValueError: when a newline is to be written and there is none.
    """
    height, width, num_channels = patch_map.shape
    flat = patch_map.reshape(height * width, num_channels)
    if where is Newline.NONE or (where is Newline.CLIP and not is_last):
        return flat
    if newline is None:
        raise ValueError(f"newlines after each {where} were asked for, and there is no newline.")
    if where is not Newline.ROW:
        return torch.cat((flat, newline[None].to(flat)))
    rows = patch_map.new_empty(height, width + 1, num_channels)
    rows[:, :width] = patch_map
    rows[:, width] = newline
    return rows.view(height * (width + 1), num_channels)


def _bilinear_matrix(num_in: int, num_out: int) -> torch.Tensor:
    """Return (num_out, num_in) weights: half-pixel centres, edges clamped, no antialiasing."""
    matrix = torch.zeros(num_out, num_in, dtype=torch.float64)
    for o in range(num_out):
        position = max((o + 0.5) * num_in / num_out - 0.5, 0.0)
        low = min(int(position), num_in - 1)
        high = min(low + 1, num_in - 1)
        matrix[o, low] += 1 - (position - low)
        matrix[o, high] += position - low
    return matrix


def _window_matrix(num_in: int, num_out: int, stride: int) -> torch.Tensor:
    """Return (num_out, num_in) weights of averages over whole windows."""
    matrix = torch.zeros(num_out, num_in, dtype=torch.float64)
    for o in range(num_out):
        matrix[o, o * stride : (o + 1) * stride] = 1 / stride
    return matrix
