"""Codes of a stored weight -> plain weights in memory that is given, in one pass.

Formula: w' = s code (int8), s (code - 8) + z (int4), as `weight_format` defines them, in float32
and rounded once. A product of many rows reads weights so: the cost is spread over the rows, and
torch's own matrix product does the rest.

Shapes: codes (N, K) int8 or (N, K / 2) uint8; result (N, K) in any float dtype.

Bytes moved for one 18,944 x 3584 weight in bfloat16 (arithmetic, not measured): torch's steps
0.48 GB (int8) and 1.74 GB (int4, through float32 temporaries), one pass 0.20 and 0.17 GB. The gain
is not measured yet on a GPU.
"""

# ruff: noqa: ANN001, ANN201, ANN202  # a kernel's arguments have no Python types
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from typing import Final

import torch

from llava_video.ops.dispatch import tl, triton, uses_triton
from llava_video.ops.weight_format import StoredWeight

_PIECE_NUMBERS: Final = 2**20  # torch's steps make float32 temporaries of this many weights
_PROGRAM_OUTPUTS: Final = 16
_PROGRAM_BYTES: Final = 256  # of each output's codes that one program reads
_LEAST_GROUP_BYTES: Final = 16
_MOST_GROUP_BYTES: Final = 128


def dequantise_weight_into_reference(stored: StoredWeight, out: torch.Tensor) -> None:
    """Write the weights that the codes stand for, by torch; on a CPU fast while they fit its cache.

    Args:
        stored: N x K weights.
        out: (N, K) contiguous, overwritten.
    """
    if stored.weight_format == "int8":
        out.copy_(stored.codes)  # exact in every float dtype
        out.mul_(stored.scales.float()[:, None])
        return
    if out.itemsize >= torch.float32.itemsize:
        _write_int4(stored, out)
        return
    rows = max(1, _PIECE_NUMBERS // stored.num_inputs)
    wide = torch.empty((rows, stored.num_inputs), dtype=torch.float32, device=out.device)
    for start in range(0, stored.num_outputs, rows):
        stop = min(start + rows, stored.num_outputs)
        _write_int4(stored.part(start, stop), wide[: stop - start])
        out[start:stop] = wide[: stop - start]


def _write_int4(stored: StoredWeight, out: torch.Tensor) -> None:
    half = stored.group_inputs // 2
    packed = stored.codes.view(stored.num_outputs, -1, half)
    groups = out.view(stored.num_outputs, -1, 2, half)
    groups[:, :, 0] = (packed & 15).view(torch.int8) - 8
    groups[:, :, 1] = (packed >> 4).view(torch.int8) - 8
    scales, zeros = stored.scales.float().transpose(0, 1)[:, :, None, None].unbind(dim=-1)
    groups.mul_(scales).add_(zeros)


@triton.jit
def scale_and_zero(pairs):
    """Return the two bfloat16 numbers of 32-bit pairs, as float32."""
    scales = (pairs << 16).to(tl.float32, bitcast=True)
    return scales, (pairs & -65536).to(tl.float32, bitcast=True)


@triton.jit
def _dequantise_weight_kernel(
    codes_ptr,  # (N, row_bytes) int8 or uint8
    scales_ptr,  # (N,) bfloat16, or (groups, N) int32 pairs of bfloat16, a scale and a zero
    out_ptr,  # (N, K)
    num_outputs,
    row_bytes,
    num_groups,
    scales_stride,  # from one group to the next
    IS_INT4: tl.constexpr,
    GROUP_BYTES: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_GROUPS: tl.constexpr,
):
    outputs = tl.program_id(0) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    groups = tl.program_id(1) * BLOCK_GROUPS + tl.arange(0, BLOCK_GROUPS)
    places = tl.arange(0, GROUP_BYTES)
    is_group = (outputs < num_outputs)[:, None] & (groups < num_groups)[None, :]
    mask = is_group[:, :, None]
    rows = outputs.to(tl.int64)[:, None, None] * row_bytes
    offsets = groups[None, :, None] * GROUP_BYTES + places[None, None, :]
    codes = tl.load(codes_ptr + rows + offsets, mask=mask, other=0)
    out_type = out_ptr.dtype.element_ty
    if IS_INT4:
        where = groups[None, :] * scales_stride + outputs[:, None]
        scales, zeros = scale_and_zero(tl.load(scales_ptr + where, mask=is_group, other=0))
        first = ((codes & 15).to(tl.float32) - 8.0) * scales[:, :, None] + zeros[:, :, None]
        second = ((codes >> 4).to(tl.float32) - 8.0) * scales[:, :, None] + zeros[:, :, None]
        pairs = groups[None, :, None] * (2 * GROUP_BYTES) + places[None, None, :]
        outs = out_ptr + rows * 2 + pairs
        tl.store(outs, first.to(out_type), mask=mask)
        tl.store(outs + GROUP_BYTES, second.to(out_type), mask=mask)
    else:
        scales = tl.load(scales_ptr + outputs, mask=outputs < num_outputs, other=0).to(tl.float32)
        weights = codes.to(tl.float32) * scales[:, None, None]
        tl.store(out_ptr + rows + offsets, weights.to(out_type), mask=mask)


def group_bytes(stored: StoredWeight) -> int | None:
    """Return how many neighbouring bytes of codes share their scale and are a power of two.

    For int8, whose rows have one scale, the largest such part of a row up to 128. None when there
    is none of at least 16 bytes: kernels leave such a weight to torch.
    """
    row_bytes = stored.codes.shape[1]
    largest = min(row_bytes & -row_bytes, _MOST_GROUP_BYTES)
    same = largest if stored.weight_format == "int8" else stored.group_inputs // 2
    is_power = same & (same - 1) == 0
    return same if is_power and _LEAST_GROUP_BYTES <= same <= _MOST_GROUP_BYTES else None


def pairs_of(scales: torch.Tensor) -> torch.Tensor:
    """Return int4 scales (G, N, 2) as (G, N) int32, a view: a scale and its zero in one load."""
    return scales.view(torch.int32)[..., 0]


def _dequantise_weight_into_triton(stored: StoredWeight, out: torch.Tensor, size: int) -> None:
    shape = (stored.num_outputs, stored.num_inputs)
    if tuple(out.shape) != shape or not out.is_contiguous():
        raise ValueError(f"{shape} weights do not go into {tuple(out.shape)} {out.stride()}.")
    if not stored.codes.is_contiguous():
        raise ValueError(f"codes {tuple(stored.codes.shape)} have gaps.")
    is_int4 = stored.weight_format == "int4"
    scales = pairs_of(stored.scales) if is_int4 else stored.scales
    num_groups = stored.codes.shape[1] // size
    block_groups = max(1, _PROGRAM_BYTES // size)
    grid = (triton.cdiv(shape[0], _PROGRAM_OUTPUTS), triton.cdiv(num_groups, block_groups))
    _dequantise_weight_kernel[grid](
        stored.codes,
        scales,
        out,
        shape[0],
        stored.codes.shape[1],
        num_groups,
        scales.stride(0),
        IS_INT4=is_int4,
        GROUP_BYTES=size,
        BLOCK_OUTPUTS=_PROGRAM_OUTPUTS,
        BLOCK_GROUPS=block_groups,
        num_warps=4,
    )


def dequantise_weight_into(stored: StoredWeight, out: torch.Tensor) -> None:
    """Write the weights that some stored ones stand for.

    Args:
        stored: N x K weights.
        out: (N, K) contiguous, overwritten.

    Raises:
        ValueError: when a kernel would run, and the shapes differ or have gaps.
    """
    size = group_bytes(stored)
    if size is not None and uses_triton(out):
        _dequantise_weight_into_triton(stored, out, size)
    else:
        dequantise_weight_into_reference(stored, out)
