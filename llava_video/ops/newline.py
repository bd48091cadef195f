"""A learned vector into rows of the sequence: newline tokens, and separators of slow-fast frames.

Formula: rows[n, k] = vector.
Source: LLaVA-NeXT, `image_newline`, which is concatenated there; here the rows are there already,
for the matrix product before left room for them. Shapes: rows (N, K, C), any view with channels
side by side; vector (C,). 64 frames of 14 newlines of 3584 channels are 6.4 MB in bfloat16, beside
90 MB of pooled rows; torch's copy into a strided view moves single elements, the kernel 128 bits.
The gain is not measured yet on a GPU.
"""

# ruff: noqa: ANN001, ANN202  # a kernel's arguments have no Python types
# mypy: disable-error-code="no-untyped-def, untyped-decorator, attr-defined"

import torch

from llava_video.ops.dispatch import tl, triton, uses_triton

_BLOCK_CHANNELS = 1024


def fill_rows_reference(rows: torch.Tensor, vector: torch.Tensor) -> None:
    """Write the vector into every row, by torch.

    Args:
        rows: (N, K, C), overwritten.
        vector: (C,).
    """
    rows.copy_(vector)


@triton.jit
def _fill_rows_kernel(
    rows_ptr,  # (N, K, C), channels side by side
    vector_ptr,  # (C,)
    stride_n,
    stride_k,
    NUM_CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    channels = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_channel = channels < NUM_CHANNELS
    vector = tl.load(vector_ptr + channels, mask=is_channel, other=0.0)
    place = tl.program_id(2).to(tl.int64) * stride_n + tl.program_id(1).to(tl.int64) * stride_k
    tl.store(rows_ptr + place + channels, vector, mask=is_channel)


def _fill_rows_triton(rows: torch.Tensor, vector: torch.Tensor) -> None:
    num_sets, num_rows, num_channels = rows.shape
    if rows.stride(2) != 1 or vector.shape != (num_channels,) or vector.dtype != rows.dtype:
        raise ValueError(
            f"rows {tuple(rows.shape)} {rows.dtype} of strides {rows.stride()}, vector "
            f"{tuple(vector.shape)} {vector.dtype}: one dtype, channels side by side."
        )
    block = min(triton.next_power_of_2(num_channels), _BLOCK_CHANNELS)
    grid = (triton.cdiv(num_channels, block), num_rows, num_sets)
    _fill_rows_kernel[grid](
        rows,
        vector.contiguous(),
        rows.stride(0),
        rows.stride(1),
        NUM_CHANNELS=num_channels,
        BLOCK=block,
        num_warps=4 if block == _BLOCK_CHANNELS else 1,
    )


def fill_rows(rows: torch.Tensor, vector: torch.Tensor) -> None:
    """Write a vector into every row.

    Args:
        rows: (N, K, C), overwritten; N or K may be 0.
        vector: (C,), of the rows' dtype and device.
    """
    if rows.numel() and uses_triton(rows) and not torch.is_grad_enabled():
        _fill_rows_triton(rows, vector)
    else:
        fill_rows_reference(rows, vector)
