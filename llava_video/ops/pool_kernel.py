"""The kernel of `pool_rows`: a launch that joins, crops, activates, pools and spaces.

A program makes half a row of 3584 channels, 512 at a time: 26,880 programs for 64 frames of 14 x 15
rows, few enough to be launched in passing and short enough to leave no tail. A thread loads 128
bits of each of the four taps; at 32 registers an H200's multiprocessor holds all 64 warps it can,
each with one or two loads of 512 bytes under way: 32 to 64 kB, against the 30 or so that cover the
latency of its memory. 784 loads serve 729 patches, for two rows and two columns share a tap (7.5 %
more), and the second load finds it in the L2 cache. Beside memory the bound is arithmetic: an
element takes 34 instructions with the exact GELU, and an H200 has time for about 20 while it loads
one of 16 bits; so those get a short GELU, 16 in all. Counted in the compiled code, not timed.

Sizes are arguments and no constants: a window follows the video's shape, and compiling for each
would cost more than a program's two divisions. Strides and the side of a tile are the model's.
"""

# ruff: noqa: ANN001, ANN202  # a kernel's arguments have no Python types
# mypy: disable-error-code="no-untyped-def, untyped-decorator, attr-defined"

from typing import Final

import torch

from llava_video.ops.dispatch import tl, triton
from llava_video.ops.pool import Pooling

KERNEL_DTYPES: Final = (torch.bfloat16, torch.float16, torch.float32)
# Channels that a program of two warps, or of one, takes at a time: 8 a thread.
_BLOCKS: Final = (512, 256)
_BLOCKS_PER_PROGRAM: Final = 4


@triton.jit
def _twice_gelu(x, KIND: tl.constexpr):
    """Return 2 gelu(x) of float32 x: "exact" by erf, "short" to 2.5e-5.

    The short one is for 16-bit tensors, whose own rounding is larger but for values below 0.01.
    With a = min(|x|, 4.4) it is x + |x| - a P(a), where P is a minimax polynomial of 2 (1 - Phi(a))
    around the middle of its range.
    """
    if KIND == "exact":
        return x * (1.0 + tl.erf(x * 0.7071067811865476))
    a = tl.minimum(tl.abs(x), 4.4)
    z = a * (1 / 2.2) - 1.0
    p = 0.056456294 - 0.03394499 * z
    p = p * z + 0.080518484
    p = p * z - 0.24003704
    p = p * z + 0.095289588
    p = p * z + 0.27759382
    p = p * z - 0.48575565
    p = p * z + 0.37808517
    p = p * z - 0.15600093
    p = p * z + 0.027800666
    return (x + tl.abs(x)) - a * p


@triton.jit
def _axis_taps(o, num_in, num_out, TAPS: tl.constexpr, MODE: tl.constexpr):
    """Return the first input that output o reads, and the weight of the one after it."""
    first, weight = o * TAPS, 0.0
    if MODE == "bilinear":
        # (o + 1/2) num_in / num_out - 1/2, as a fraction over 2 num_out.
        twice = tl.maximum((2 * o + 1) * num_in - num_out, 0)
        first = twice // (2 * num_out)
        weight = (twice - first * 2 * num_out) / (2 * num_out)
    return first, weight


@triton.jit
def _with_tap_row(
    total,  # (BLOCK,) float32, what other tap rows gave
    line_ptr,  # (BLOCK,) the channels of patch 0 of the tap's row
    first_x,
    high_x,
    y_weight,
    left,
    width,
    tile_col_stride,
    patch_col_stride,
    is_channel,
    SIDE: tl.constexpr,
    TAPS_X: tl.constexpr,
    MODE: tl.constexpr,
    GELU: tl.constexpr,
):
    for b in tl.static_range(TAPS_X):
        x = left + tl.minimum(first_x + b, width - 1)
        place = (x // SIDE) * tile_col_stride + (x % SIDE) * patch_col_stride
        value = tl.load(line_ptr + place, mask=is_channel, other=0.0).to(tl.float32)
        if GELU != "none":
            value = _twice_gelu(value, GELU)
        if MODE == "max":
            total = tl.maximum(total, value, propagate_nan=tl.PropagateNan.ALL)
        else:
            x_weight = 1.0
            if MODE == "bilinear" and TAPS_X == 2:
                x_weight = high_x if b == 1 else 1.0 - high_x
            total += value * (x_weight * y_weight)
    return total


@triton.jit
def _pool_rows_kernel(
    maps_ptr,  # (N, R, S, p, p, C), channels side by side
    rows_ptr,  # (N, h, w + (ENDS != "none"), C), channels side by side
    ends_ptr,  # (C,), read when ENDS is "given"
    map_stride,
    tile_row_stride,
    tile_col_stride,
    patch_row_stride,
    patch_col_stride,
    rows_map_stride,
    rows_row_stride,
    rows_col_stride,
    top,
    left,
    height,  # of the window, patches
    width,
    out_height,
    out_width,
    NUM_CHANNELS: tl.constexpr,
    SIDE: tl.constexpr,  # patches of a tile's side
    TAPS_Y: tl.constexpr,
    TAPS_X: tl.constexpr,
    MODE: tl.constexpr,  # "bilinear", "average", "max"
    GELU: tl.constexpr,  # "none", or as in _twice_gelu
    ENDS: tl.constexpr,  # "none", "zeros", "given"
    BLOCK: tl.constexpr,  # channels
    PARTS: tl.constexpr,  # programs that share a row
):
    NUM_BLOCKS: tl.constexpr = (NUM_CHANNELS + BLOCK - 1) // BLOCK
    PART_BLOCKS: tl.constexpr = (NUM_BLOCKS + PARTS - 1) // PARTS
    out_col, part = tl.program_id(0) // PARTS, tl.program_id(0) % PARTS
    out_row, idx = tl.program_id(1), tl.program_id(2).to(tl.int64)
    rows_ptr += idx * rows_map_stride + out_row * rows_row_stride + out_col * rows_col_stride
    maps_ptr += idx * map_stride
    first_y, high_y = _axis_taps(out_row, height, out_height, TAPS_Y, MODE)
    first_x, high_x = _axis_taps(out_col, width, out_width, TAPS_X, MODE)
    # Twice the GELU comes in; an average divides by all its taps, here and once.
    SCALE: tl.constexpr = (1.0 if GELU == "none" else 0.5) / (
        TAPS_Y * TAPS_X if MODE == "average" else 1
    )
    for block in range(part * PART_BLOCKS, tl.minimum((part + 1) * PART_BLOCKS, NUM_BLOCKS)):
        channels = block * BLOCK + tl.arange(0, BLOCK)
        is_channel = channels < NUM_CHANNELS
        if ENDS != "none" and out_col == out_width:
            total = tl.zeros([BLOCK], tl.float32)
            if ENDS == "given":
                total = tl.load(ends_ptr + channels, mask=is_channel, other=0.0).to(tl.float32)
        else:
            total = tl.full([BLOCK], float("-inf") if MODE == "max" else 0.0, tl.float32)
            # Unrolled, 16 taps with their GELUs spill registers on sm_80.
            if TAPS_Y * TAPS_X <= 9:
                for a in tl.static_range(TAPS_Y):
                    y = top + tl.minimum(first_y + a, height - 1)
                    line = (y // SIDE) * tile_row_stride + (y % SIDE) * patch_row_stride
                    weight = 1.0
                    if MODE == "bilinear" and TAPS_Y == 2:
                        weight = high_y if a == 1 else 1.0 - high_y
                    total = _with_tap_row(
                        total,
                        maps_ptr + line + channels,
                        first_x,
                        high_x,
                        weight,
                        left,
                        width,
                        tile_col_stride,
                        patch_col_stride,
                        is_channel,
                        SIDE,
                        TAPS_X,
                        MODE,
                        GELU,
                    )
            else:
                for a in range(TAPS_Y):
                    y = top + first_y + a
                    line = (y // SIDE) * tile_row_stride + (y % SIDE) * patch_row_stride
                    total = _with_tap_row(
                        total,
                        maps_ptr + line + channels,
                        first_x,
                        high_x,
                        1.0,
                        left,
                        width,
                        tile_col_stride,
                        patch_col_stride,
                        is_channel,
                        SIDE,
                        TAPS_X,
                        MODE,
                        GELU,
                    )
            total *= SCALE
        tl.store(rows_ptr + channels, total.to(rows_ptr.dtype.element_ty), mask=is_channel)


def pool_rows_triton(
    maps: torch.Tensor,
    rows: torch.Tensor,
    pooling: Pooling,
    *,
    gelu: bool,
    ends: torch.Tensor | None,
) -> None:
    """Write the rows by one launch.

    Args:
        maps: (N, R, S, p, p, C), with any strides but the channels'.
        rows: (N, h, w or w + 1, C), likewise.
        pooling: window and size of the joined map.
        gelu: apply the GELU to what is read.
        ends: (C,) what is written after each row of the map; None for zeros.

    Raises:
        ValueError: a dtype the kernel does not have, or channels that do not lie side by side.
    """
    num_maps, height, num_cols, num_channels = rows.shape
    if maps.stride(5) != 1 or rows.stride(3) != 1 or maps.dtype not in KERNEL_DTYPES:
        raise ValueError(
            f"maps {tuple(maps.shape)} of {maps.dtype}, strides {maps.stride()}, rows of strides "
            f"{rows.stride()}: channels must lie side by side, of {KERNEL_DTYPES}."
        )
    block, num_parts = _program_shape(num_channels)
    ending = "none" if num_cols == pooling.size[1] else "zeros" if ends is None else "given"
    kind = "exact" if maps.dtype is torch.float32 else "short"
    grid = (num_cols * num_parts, height, num_maps)
    _pool_rows_kernel[grid](
        maps,
        rows,
        rows if ends is None else ends,
        *maps.stride()[:5],
        *rows.stride()[:3],
        pooling.crop[0],
        pooling.crop[2],
        *pooling.window,
        *pooling.size,
        NUM_CHANNELS=num_channels,
        SIDE=maps.shape[3],
        TAPS_Y=_num_taps(pooling, 0),
        TAPS_X=_num_taps(pooling, 1),
        MODE=pooling.kind,
        GELU=kind if gelu else "none",
        ENDS=ending,
        BLOCK=block,
        PARTS=num_parts,
        num_warps=max(1, block // 256),
    )


def _num_taps(pooling: Pooling, axis: int) -> int:
    """Return how many patches of an axis an output reads."""
    if pooling.kind != "bilinear":
        return pooling.stride
    num_in, num_out = pooling.window[axis], pooling.size[axis]
    # An odd ratio puts every output on a patch: 27 to 9 reads 1, 4, 7, ...
    return 1 if num_in % num_out == 0 and num_in // num_out % 2 == 1 else 2


def _program_shape(num_channels: int) -> tuple[int, int]:
    """Return the channels of a block, and how many programs share a row."""
    block = min(triton.next_power_of_2(num_channels), *_BLOCKS)
    if num_channels > block:  # the block that leaves the fewest lanes without a channel
        block = min(_BLOCKS, key=lambda size: triton.cdiv(num_channels, size) * size)
    return block, triton.cdiv(triton.cdiv(num_channels, block), _BLOCKS_PER_PROGRAM)
