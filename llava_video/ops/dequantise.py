"""Codes of a quantised cache -> plain keys and values in memory that is given, in one pass.

Formula: x' = s code (int8), s code + z (int4), as `kv_format` defines them; both products are exact
in float32, so kernel and reference give the same bits. Prefill reads past tokens so, a block at a
time; decoding reads the codes themselves (`decode_attention`).

Shapes: codes (n, Hkv, d) int8 or (n, Hkv, d / 2) uint8; result (n, Hkv, d) in any float dtype.

Why a kernel, in bytes of a block of 32,768 tokens of one layer at 4 heads of 128 (predicted from
the arithmetic, not measured): torch's steps move about 0.77 GB (int8) or 1.15 GB (int4) through
float32 temporaries; one pass moves 0.10 GB or 0.08 GB. Attending to the block from a chunk of 2,048
queries of 28 heads is 0.96 TFLOP. On an RTX 4090 (165 TFLOP/s, 1 TB/s) that is 5.8 ms beside 0.77
or 1.15 ms by torch and 0.10 ms by the kernel; on an H200 (790, 4.8 TB/s) 1.2 ms beside 0.16 or
0.24 ms and 0.02 ms. A chunk over 525,000 tokens of 28 layers is 449 such blocks: 0.54 s of
attention on an H200, 0.07 to 0.11 s of dequantising by torch, 0.01 s by the kernel. The gain is
not measured yet on a GPU.
"""

# ruff: noqa: ANN001, ANN202  # a kernel's arguments have no Python types
# mypy: disable-error-code="no-untyped-def, untyped-decorator, attr-defined"

from typing import Final

import torch

from llava_video.ops.dispatch import tl, triton, uses_triton
from llava_video.ops.kv_format import StoredKv, group_channels

_PIECE_TOKENS: Final = 2048  # torch's steps make float32 temporaries of this many tokens
_PROGRAM_CODES: Final = 2048  # bytes of codes that one program reads


def dequantise_into_reference(stored: StoredKv, k: torch.Tensor, v: torch.Tensor) -> None:
    """Write what the codes stand for, a piece at a time, by torch.

    Args:
        stored: n tokens in any format.
        k: (n, Hkv, d), overwritten.
        v: (n, Hkv, d), overwritten.
    """
    for start in range(0, stored.num_tokens, _PIECE_TOKENS):
        stop = min(start + _PIECE_TOKENS, stored.num_tokens)
        k[start:stop], v[start:stop] = stored.part(start, stop).plain(k.dtype)


@triton.jit
def _dequantise_kernel(
    codes_ptr,  # (rows, d) int8 or (rows, d / 2) uint8; a row is one token's head
    scales_ptr,  # (rows,) or (rows, groups, 2) float16
    out_ptr,  # (rows, d)
    num_rows,
    HEAD_DIM: tl.constexpr,
    GROUP_CHANNELS: tl.constexpr,
    IS_INT4: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,  # bytes of a row, rounded up to a power of two
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    cols = tl.arange(0, BLOCK_COLS)
    is_row = rows < num_rows
    WIDTH: tl.constexpr = HEAD_DIM // 2 if IS_INT4 else HEAD_DIM
    mask = is_row[:, None] & (cols < WIDTH)[None, :]
    codes = tl.load(codes_ptr + rows[:, None] * WIDTH + cols[None, :], mask=mask, other=0)
    outs = out_ptr + rows[:, None] * HEAD_DIM + cols[None, :]
    if IS_INT4:
        for half in tl.static_range(2):
            nibbles = ((codes >> (4 * half)) & 15).to(tl.float32)
            groups = (half * WIDTH + cols) // GROUP_CHANNELS
            x = tl.zeros([BLOCK_ROWS, BLOCK_COLS], tl.float32)
            for group in tl.static_range(
                half * WIDTH // GROUP_CHANNELS, (half * WIDTH + WIDTH - 1) // GROUP_CHANNELS + 1
            ):
                places = scales_ptr + (rows * (HEAD_DIM // GROUP_CHANNELS) + group) * 2
                step = tl.load(places, mask=is_row, other=0).to(tl.float32)
                low = tl.load(places + 1, mask=is_row, other=0).to(tl.float32)
                values = nibbles * step[:, None] + low[:, None]
                x = tl.where((groups == group)[None, :], values, x)
            tl.store(outs + half * WIDTH, x.to(out_ptr.dtype.element_ty), mask=mask)
    else:
        scales = tl.load(scales_ptr + rows, mask=is_row, other=0).to(tl.float32)
        x = codes.to(tl.float32) * scales[:, None]
        tl.store(outs, x.to(out_ptr.dtype.element_ty), mask=mask)


def _dequantise_into_triton(stored: StoredKv, k: torch.Tensor, v: torch.Tensor) -> None:
    shape = (stored.num_tokens, stored.num_heads, stored.head_dim)
    for codes, scales, out in ((stored.k, stored.k_scales, k), (stored.v, stored.v_scales, v)):
        if scales is None:
            raise ValueError("plain keys have no codes to dequantise.")
        if tuple(out.shape) != shape:
            raise ValueError(f"{shape} values do not go into {tuple(out.shape)}.")
        if not (codes.is_contiguous() and scales.is_contiguous() and out.is_contiguous()):
            raise ValueError(f"codes {tuple(codes.shape)}, their scales or the result have gaps.")
        num_rows, block_cols = shape[0] * shape[1], triton.next_power_of_2(codes.shape[2])
        block_rows = max(1, _PROGRAM_CODES // block_cols)
        _dequantise_kernel[(triton.cdiv(num_rows, block_rows),)](
            codes,
            scales,
            out,
            num_rows,
            HEAD_DIM=shape[2],
            GROUP_CHANNELS=group_channels(shape[2]),
            IS_INT4=stored.kv_format == "int4",
            BLOCK_ROWS=block_rows,
            BLOCK_COLS=block_cols,
            num_warps=4,
        )


def dequantise_into(stored: StoredKv, k: torch.Tensor, v: torch.Tensor) -> None:
    """Write the keys and values that some stored tokens stand for.

    Args:
        stored: n tokens of one layer, in any format.
        k: (n, Hkv, d), overwritten; contiguous where a kernel writes it.
        v: (n, Hkv, d), overwritten.

    Raises:
        ValueError: when a kernel would run, and the shapes differ or have gaps.
    """
    if stored.kv_format != "plain" and uses_triton(k):
        _dequantise_into_triton(stored, k, v)
    else:
        dequantise_into_reference(stored, k, v)
