"""Matrix product with a weight stored as integers, plus bias: y = x W'^T + b.

Formula: W' = s C (int8, a scale per output), s (C - 8) + z (int4, both per output and group of
inputs), as `weight_format` defines them. Per output n, with C_ng the codes of group g and x_g its
inputs:
    int8: y_n = s_n (x . C_n);   int4: y_n = sum_g s_ng (x_g . C_ng) + (z_ng - 8 s_ng) sum(x_g)
Codes are exact in every dtype, so the products are summed before anything is rounded.
Shapes: x (..., K), weight N x K, bias (N,) -> (..., N).

The weight does not learn: of the gradients there is dx = dy W' alone, and what is kept for it are
the codes. Under autocast the rows are cast as torch's own product casts them.

Few rows read the codes themselves: on a GPU a Triton kernel for one row and another for 2 to 64, on
a CPU in bfloat16 torch's `_weight_int8pack_mm`. More rows make the weight plain first, a block of
outputs at a time, and use the normal product. Bytes that one row of the 7B's 18,944 x 3584 reads:
bfloat16 135.8 MB, int8 67.9, int4 36.1. The gain of the kernels is not measured yet on a GPU.
Counted in the code compiled for sm_90, instructions of a thread per weight: one row int8 5.4 to
6.4, int4 6.1 to 7.3; 16 rows int8 5.4, int4 9.4. By arithmetic, in the time that an int4 weight
takes to load an RTX 4090 (1 TB/s, 2.5 GHz) issues 21 and an H200 (4.8 TB/s, 1.8 GHz) 3.4: there
one int4 row cannot reach much more than half the bandwidth.

On a CPU in float32 a stored weight saves memory, not time (AMD EPYC, AVX-512, one thread, torch
2.13, 18,944 x 3584, milliseconds, plain / int8 / int4): one row 13 / 25 / 51, 256 rows 326 / 375 /
404. One bfloat16 row, two threads: 8.2 plain, 2.6 by torch's int8 product.
"""

# ruff: noqa: ANN001, ANN202  # a kernel's arguments have no Python types
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import functools
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from llava_video.ops.dequantise_weight import (
    dequantise_weight_into,
    group_bytes,
    pairs_of,
    scale_and_zero,
)
from llava_video.ops.dispatch import tl, triton, uses_triton
from llava_video.ops.linear import linear
from llava_video.ops.weight_format import StoredWeight

FEW_ROWS: Final = 64
# Plain weights that stand beside the stored ones at a time. On a CPU they should come out of the
# cache and out of memory that malloc keeps; a GPU takes a whole weight of a 7B in one product.
CPU_BLOCK_BYTES: Final = 2**23
GPU_BLOCK_BYTES: Final = 2**28
# From this many rows on, torch's int8 product on a CPU is slower than making the weight plain.
_PACKED_ROWS: Final = 8

_ONE_ROW_OUTPUTS: Final = ((1024, 8), (8192, 16))  # up to so many outputs, so many
_FEW_ROWS_OUTPUTS: Final = 32
_PROGRAM_BYTES: Final = 256  # of each output's codes that one step of the one-row kernel reads


def quant_linear_reference(
    x: torch.Tensor, weight: StoredWeight, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return x W'^T + b by making the whole weight plain, on any device and in any float dtype.

    Args:
        x: (..., K).
        weight: N x K.
        bias: (N,), or None for none.

    Returns:
        (..., N).
    """
    return F.linear(x, weight.plain(x.dtype), bias)


@triton.jit
def _int4_codes(codes):
    """Return 1 + code / 16 of both halves of each byte, in float32.

    The codes are put under the exponent of 1: GPUs turn integers into floating point at a quarter
    of the pace of everything else here.
    """
    wide = codes.to(tl.int32)
    low = (((wide << 19) & 0x780000) | 0x3F800000).to(tl.float32, bitcast=True)
    high = (((wide << 15) & 0x780000) | 0x3F800000).to(tl.float32, bitcast=True)
    return low, high


@triton.jit
def _one_row_kernel(
    x_ptr,  # (K,)
    codes_ptr,  # (N, row_bytes) int8 or uint8
    scales_ptr,  # (N,) bfloat16, or (groups, N) int32 pairs of bfloat16, a scale and a zero
    bias_ptr,  # (N,); not read without
    out_ptr,  # (N,)
    num_outputs,
    row_bytes,
    num_groups,
    IS_INT4: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    GROUP_BYTES: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_GROUPS: tl.constexpr,
):
    PARTS: tl.constexpr = GROUP_BYTES // 16  # a thread's bytes, summed before they are scaled
    outputs = tl.program_id(0) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    is_output = outputs < num_outputs
    places = tl.arange(0, GROUP_BYTES)
    rows = codes_ptr + outputs.to(tl.int64)[:, None, None] * row_bytes + places[None, None, :]
    total = tl.zeros([BLOCK_OUTPUTS, BLOCK_GROUPS, PARTS], tl.float32)
    for start in tl.range(0, num_groups, BLOCK_GROUPS, num_stages=4):
        groups = start + tl.arange(0, BLOCK_GROUPS)
        is_group = groups < num_groups
        mask = is_output[:, None] & is_group[None, :]
        steps = groups[None, :, None] * GROUP_BYTES
        codes = tl.load(rows + steps, mask=mask[:, :, None], other=0)
        inputs = x_ptr + groups[:, None] * (GROUP_BYTES * (2 if IS_INT4 else 1)) + places[None, :]
        x = tl.load(inputs, mask=is_group[:, None], other=0).to(tl.float32)[None, :, :]
        if IS_INT4:
            x_high = tl.load(inputs + GROUP_BYTES, mask=is_group[:, None], other=0)
            x_high = x_high.to(tl.float32)[None, :, :]
            where = groups[None, :] * num_outputs + outputs[:, None]
            scales, zeros = scale_and_zero(tl.load(scales_ptr + where, mask=mask, other=0))
            low, high = _int4_codes(codes)
            terms = low * x + high * x_high
            terms = tl.reshape(terms, [BLOCK_OUTPUTS, BLOCK_GROUPS, PARTS, 16])
            plain = tl.reshape(x + x_high, [1, BLOCK_GROUPS, PARTS, 16])
            # s (code - 8) + z = 16 s (1 + code / 16) + z - 24 s
            total += (16.0 * scales)[:, :, None] * tl.sum(terms, axis=3)
            total += (zeros - 24.0 * scales)[:, :, None] * tl.sum(plain, axis=3)
        else:
            # A code c as the number 2^23 + 128 + c, whose last byte is 128 + c.
            bits = (codes.to(tl.int32) & 255) ^ 0x4B000080
            terms = (bits.to(tl.float32, bitcast=True) - 8388736.0) * x
            terms = tl.reshape(terms, [BLOCK_OUTPUTS, BLOCK_GROUPS, PARTS, 16])
            total += tl.sum(terms, axis=3)
    y = tl.sum(tl.sum(total, axis=2), axis=1)
    if not IS_INT4:
        y *= tl.load(scales_ptr + outputs, mask=is_output, other=0).to(tl.float32)
    if HAS_BIAS:
        y += tl.load(bias_ptr + outputs, mask=is_output, other=0).to(tl.float32)
    tl.store(out_ptr + outputs, y.to(out_ptr.dtype.element_ty), mask=is_output)


@triton.jit
def _few_rows_kernel(
    x_ptr,  # (M, K)
    codes_ptr,  # (N, row_bytes) int8 or uint8
    scales_ptr,  # (N,) bfloat16, or (groups, N) int32 pairs of bfloat16, a scale and a zero
    bias_ptr,  # (N,); not read without
    out_ptr,  # (M, N)
    num_rows,
    num_outputs,
    row_bytes,
    num_groups,
    num_inputs,
    IS_INT4: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    GROUP_BYTES: tl.constexpr,
    BLOCK_OUTPUTS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    outputs = tl.program_id(0) * BLOCK_OUTPUTS + tl.arange(0, BLOCK_OUTPUTS)
    rows = tl.arange(0, BLOCK_ROWS)
    places = tl.arange(0, GROUP_BYTES)
    is_output, is_row = outputs < num_outputs, rows < num_rows
    codes_at = codes_ptr + outputs.to(tl.int64)[None, :] * row_bytes + places[:, None]
    x_at = x_ptr + rows[:, None] * num_inputs + places[None, :]
    total = tl.zeros([BLOCK_ROWS, BLOCK_OUTPUTS], tl.float32)
    kind = x_ptr.dtype.element_ty
    for group in tl.range(0, num_groups):
        codes = tl.load(codes_at + group * GROUP_BYTES, mask=is_output[None, :], other=0)
        if IS_INT4:
            first = x_at + group * (2 * GROUP_BYTES)
            x = tl.load(first, mask=is_row[:, None], other=0)
            x_high = tl.load(first + GROUP_BYTES, mask=is_row[:, None], other=0)
            where = group * num_outputs + outputs
            scales, zeros = scale_and_zero(tl.load(scales_ptr + where, mask=is_output, other=0))
            low, high = _int4_codes(codes)  # exact in bfloat16 too
            part = tl.dot(x, low.to(kind), input_precision="ieee")
            part = tl.dot(x_high, high.to(kind), part, input_precision="ieee")
            plain = tl.sum(x.to(tl.float32) + x_high.to(tl.float32), axis=1)
            total += (16.0 * scales)[None, :] * part
            total += (zeros - 24.0 * scales)[None, :] * plain[:, None]
        else:
            x = tl.load(x_at + group * GROUP_BYTES, mask=is_row[:, None], other=0)
            total = tl.dot(x, codes.to(kind), total, input_precision="ieee")
    if not IS_INT4:
        scales = tl.load(scales_ptr + outputs, mask=is_output, other=0).to(tl.float32)
        total *= scales[None, :]
    if HAS_BIAS:
        total += tl.load(bias_ptr + outputs, mask=is_output, other=0).to(tl.float32)[None, :]
    mask = is_row[:, None] & is_output[None, :]
    outs = out_ptr + rows[:, None] * num_outputs + outputs[None, :]
    tl.store(outs, total.to(out_ptr.dtype.element_ty), mask=mask)


def _quant_linear_triton(
    x: torch.Tensor, weight: StoredWeight, bias: torch.Tensor | None, size: int
) -> torch.Tensor:
    """Return the product of 1 to 64 rows (M, K), by groups of `size` bytes of codes."""
    num_rows, num_inputs = x.shape
    if num_inputs != weight.num_inputs or not 0 < num_rows <= FEW_ROWS:
        raise ValueError(
            f"rows {tuple(x.shape)} and {weight.num_outputs} x {weight.num_inputs} weights."
        )
    if not (x.is_contiguous() and weight.codes.is_contiguous() and weight.scales.is_contiguous()):
        raise ValueError(f"rows {tuple(x.shape)}, codes or scales have gaps.")
    num_outputs, row_bytes = weight.codes.shape
    is_int4 = weight.weight_format == "int4"
    out = torch.empty((num_rows, num_outputs), dtype=x.dtype, device=x.device)
    scales = pairs_of(weight.scales) if is_int4 else weight.scales
    tensors = (x, weight.codes, scales, x if bias is None else bias, out)
    sizes = (num_outputs, row_bytes, row_bytes // size)
    flags = {"IS_INT4": is_int4, "HAS_BIAS": bias is not None, "GROUP_BYTES": size}
    if num_rows == 1:
        block = one_row_outputs(num_outputs)
        _one_row_kernel[(triton.cdiv(num_outputs, block),)](
            *tensors,
            *sizes,
            **flags,
            BLOCK_OUTPUTS=block,
            BLOCK_GROUPS=_PROGRAM_BYTES // size,
            num_warps=4,
        )
    else:
        _few_rows_kernel[(triton.cdiv(num_outputs, _FEW_ROWS_OUTPUTS),)](
            *tensors,
            num_rows,
            *sizes,
            num_inputs,
            **flags,
            BLOCK_OUTPUTS=_FEW_ROWS_OUTPUTS,
            BLOCK_ROWS=max(16, triton.next_power_of_2(num_rows)),
            num_warps=4,
            num_stages=4,
        )
    return out


def one_row_outputs(num_outputs: int) -> int:
    """Return how many outputs a program of the one-row kernel makes.

    More share each input's conversion, fewer give a small weight to more of a GPU's processors.
    """
    return next((block for most, block in _ONE_ROW_OUTPUTS if num_outputs <= most), 32)


def quant_linear(
    x: torch.Tensor, weight: StoredWeight, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return x W'^T + b by the fastest product for the device and the number of rows.

    Args:
        x: (..., K) on the weight's device.
        weight: N x K.
        bias: (N,) of x's dtype, or None for none.

    Returns:
        (..., N), contiguous.
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind):  # as it does to the arguments of torch's own product
        x = x.to(torch.get_autocast_dtype(kind))
        bias = None if bias is None else bias.to(x.dtype)
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    if torch.is_grad_enabled() and x.requires_grad:
        y: torch.Tensor = _FrozenProduct.apply(rows, weight.codes, weight.scales)  # type: ignore[no-untyped-call]  # torch's
        y = y if bias is None else y + bias
    else:
        y = _product(rows, weight, bias)
    return y.view(*x.shape[:-1], weight.num_outputs)


def input_gradient_reference(dy: torch.Tensor, weight: StoredWeight) -> torch.Tensor:
    """Return dx = dy W' (..., K) of y = x W'^T by making the whole weight plain.

    Args:
        dy: (..., N), the gradient of y.
        weight: N x K.
    """
    return dy @ weight.plain(dy.dtype)


def input_gradient(dy: torch.Tensor, weight: StoredWeight) -> torch.Tensor:
    """Return dx = dy W' (M, K) of dy (M, N), the weight made plain a block of outputs at a time."""
    wide = torch.promote_types(dy.dtype, torch.float32)
    step = _outputs_at_once(weight, dy.device, dy.itemsize)
    if step == weight.num_outputs:
        plain = torch.empty((step, weight.num_inputs), dtype=dy.dtype, device=dy.device)
        dequantise_weight_into(weight, plain)
        return dy @ plain
    step = _outputs_at_once(weight, dy.device, wide.itemsize)
    plain = torch.empty((step, weight.num_inputs), dtype=wide, device=dy.device)
    total = torch.zeros((dy.shape[0], weight.num_inputs), dtype=wide, device=dy.device)
    for start in range(0, weight.num_outputs, step):
        stop = min(start + step, weight.num_outputs)
        block = plain[: stop - start]
        dequantise_weight_into(weight.part(start, stop), block)
        total.addmm_(dy[:, start:stop].to(wide), block)
    return total.to(dy.dtype)


class _FrozenProduct(torch.autograd.Function):
    """x W'^T of a weight that does not learn; backward it gives dx alone.

    It keeps the codes: torch's own product would hold a plain weight of every layer until then.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(codes, scales)
        return _product(x, StoredWeight(codes, scales), None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return input_gradient(dy, StoredWeight(*ctx.saved_tensors)), None, None


def _product(x: torch.Tensor, weight: StoredWeight, bias: torch.Tensor | None) -> torch.Tensor:
    size = group_bytes(weight)
    if uses_triton(x) and size is not None and 0 < x.shape[0] <= FEW_ROWS:
        return _quant_linear_triton(x, weight, bias, size)
    if _suits_int8pack(x, weight):
        y: torch.Tensor = torch.ops.aten._weight_int8pack_mm(x, weight.codes, weight.scales)
        return y if bias is None else y.add_(bias)
    return _in_blocks(x, weight, bias)


def _in_blocks(x: torch.Tensor, weight: StoredWeight, bias: torch.Tensor | None) -> torch.Tensor:
    """Return the product of (M, K) rows, the weight made plain a block of outputs at a time."""
    num_outputs, num_inputs = weight.num_outputs, weight.num_inputs
    step = _outputs_at_once(weight, x.device, x.itemsize)
    plain = torch.empty((step, num_inputs), dtype=x.dtype, device=x.device)
    if step == num_outputs:
        dequantise_weight_into(weight, plain)
        return linear(x, plain, bias)
    out = torch.empty((x.shape[0], num_outputs), dtype=x.dtype, device=x.device)
    for start in range(0, num_outputs, step):
        stop = min(start + step, num_outputs)
        block = plain[: stop - start]
        dequantise_weight_into(weight.part(start, stop), block)
        out[:, start:stop] = linear(x, block)
    return out if bias is None else out.add_(bias)


def _outputs_at_once(weight: StoredWeight, device: torch.device, itemsize: int) -> int:
    """Return how many outputs are made plain at a time."""
    block_bytes = CPU_BLOCK_BYTES if device.type == "cpu" else GPU_BLOCK_BYTES
    most = max(1, block_bytes // max(1, weight.num_inputs * itemsize))
    return min(weight.num_outputs, most)


def _suits_int8pack(x: torch.Tensor, weight: StoredWeight) -> bool:
    # Its float32 code is not vectorised: 27.9 ms for 1 x 3584 -> 18,944, where blocks take 15.6.
    return (
        x.device.type == "cpu"
        and x.dtype is torch.bfloat16
        and weight.weight_format == "int8"
        and 0 < x.shape[0] < _PACKED_ROWS
        and _has_int8pack()
    )


@functools.cache
def _has_int8pack() -> bool:
    return hasattr(torch.ops.aten, "_weight_int8pack_mm")
