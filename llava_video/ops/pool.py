"""Maps of patch features made smaller: the definition, and torch's own code.

Formulas, per axis of n patches and stride s (27 patches, stride 2):
    bilinear: m = ceil(n/s) (14) outputs; output o reads between patches at (o + 1/2) n/m - 1/2
    average, max: m = floor(n/s) (13) windows of s patches; what is left over is dropped
Source: LLaVA-NeXT, `get_2dPool`. 27 x 27 bilinear by 2 gives 14 x 14 = 196 rows; with a newline
after each map row 14 x 15 = 210.

Shapes: maps (N, H, W, C), channels last, so that rows are read and written in one run. The kernel
stands in ops/pool_rows.py. Knows no model and no plan.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from llava_video.values import PoolMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """How the maps of some frames become smaller, all alike.

    Attributes:
        crop: (top, bottom, left, right), the half-open window of a map that is kept; may be empty.
        stride: side reduction of the window, >= 1; 1 leaves it as it is unless `size` differs.
        mode: "bilinear" rounds sides up, "average" and "max" round them down.
        size: (h, w) of the result; "bilinear", and every mode at stride 1, resize to any.
    """

    crop: tuple[int, int, int, int]
    stride: int
    mode: PoolMode
    size: tuple[int, int]

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of the window."""
        top, bottom, left, right = self.crop
        return bottom - top, right - left

    @property
    def kind(self) -> PoolMode:
        """What is computed: without a stride, or when nothing changes, any mode is a resize."""
        return "bilinear" if self.stride == 1 or self.size == self.window else self.mode

    @property
    def is_linear(self) -> bool:
        """Whether rows are means of patches, so that a linear layer may come before or after."""
        return self.kind != "max"

    def check(self, height: int, width: int) -> None:
        """See to it that maps of this size can be pooled so.

        Raises:
            ValueError: the window does not lie in the map, or the size is not what the mode gives.
        """
        top, bottom, left, right = self.crop
        if not (0 <= top <= bottom <= height and 0 <= left <= right <= width):
            raise ValueError(f"crop {self.crop} of a map of {height} x {width}.")
        check_size(*self.window, self.stride, self.mode, self.size)


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
    target = size or pooled_size(height, width, max(stride, 1), mode)
    check_size(height, width, stride, mode, target)
    if target == (height, width):
        return maps
    if 0 in target:
        return maps.new_empty(maps.shape[0], *target, maps.shape[3])
    channels_first = maps.permute(0, 3, 1, 2)  # (N, C, H, W), channels last in memory
    if mode == "bilinear" or stride == 1:
        pooled = F.interpolate(channels_first, size=target, mode="bilinear", align_corners=False)
    elif mode == "average":
        pooled = F.avg_pool2d(channels_first, stride)
    else:
        pooled = F.max_pool2d(channels_first, stride)
    return pooled.permute(0, 2, 3, 1)


def check_size(height: int, width: int, stride: int, mode: PoolMode, size: tuple[int, int]) -> None:
    """See to it that a map of this height and width can be pooled to a size.

    A side without a patch, as the reference leaves of a very thin picture, stays without.

    Raises:
        ValueError: for a stride below 1, or a `size` that "average" or "max" cannot reach, or of
            which a side is empty that was not, or was and is not.
    """
    if stride < 1:
        raise ValueError(f"stride = {stride}: at least 1.")
    if size == (height, width):
        return
    if any((old == 0) != (new == 0) for old, new in zip((height, width), size, strict=True)):
        raise ValueError(
            f"a map of {height} x {width} at stride {stride} has no patch left for {size}."
        )
    strided = pooled_size(height, width, stride, mode)
    if mode != "bilinear" and stride > 1 and size != strided:
        raise ValueError(f"{mode} pooling by {stride} gives {strided}, not {size}.")


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
