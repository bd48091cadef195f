"""The two kernels of `decode_attention`: attend to items of work, then join the items of each row.

One program attends to one item for one kv head and all the queries that share it, which stand as
the rows of its matrix products. Codes are loaded 16 bytes at a time, become float16 numbers in
registers, and go into the products as the small integers they are; scales are applied around them:
    int8: q . k_j = s_j (q . c_j);                 sum p_j v_j = sum (p_j s_j) c_j
    int4: q . k_j = s_j (q . c_j) + z_j sum(q_i);  sum p_j v_j = sum (p_j s_j) c_j + sum p_j z_j
with s, z and the sum over q those of a group of channels. The joining kernel computes
    y = sum_i y_i exp(l_i - m) / sum_i exp(l_i - m), m = max l_i
Queries become float16 beside codes (magnitudes below 65,504). Everything is float32 in the
interpreter, and for float32 queries.

Instructions of a warp per 64 tokens of a 128-channel head on sm_90, beside the cycles an H200 needs
to load those tokens (20 bytes a cycle and multiprocessor; four warps together issue four
instructions a cycle): bfloat16 318 in 1,638 cycles, int8 495 in 819, int4 626 in 410. On a 24 GB
card (3 to 7 bytes a cycle) every format waits for memory. Counted in the compiled code, not timed.
"""

# ruff: noqa: ANN001, ANN202, PLR0915  # a kernel's arguments have no Python types
# mypy: disable-error-code="no-untyped-def, untyped-decorator, attr-defined"

from typing import Final

import torch

from llava_video.ops.decode_work import DecodeWork
from llava_video.ops.dispatch import tl, triton
from llava_video.ops.kv_codes import int4_codes, int8_codes, load_int4_scales
from llava_video.ops.kv_format import StoredKv, group_channels

_LOG2_E: Final = 1.4426950408889634
_MOST_HEAD_DIM: Final = 256
_BITS: Final = {"plain": 16, "int8": 8, "int4": 4}


@triton.jit
def _int4_scores(
    q,  # (G, half) of the half's channels
    codes,  # (tokens, half) 0..15 in q's dtype
    scales,  # (tokens,) pointers to a token's first pair
    is_token,
    cols,
    FIRST_CHANNEL: tl.constexpr,
    HALF: tl.constexpr,
    GROUP_CHANNELS: tl.constexpr,
):
    scores = tl.zeros([q.shape[0], codes.shape[0]], tl.float32)
    for group in tl.static_range(
        FIRST_CHANNEL // GROUP_CHANNELS, (FIRST_CHANNEL + HALF - 1) // GROUP_CHANNELS + 1
    ):
        is_group = (FIRST_CHANNEL + cols) // GROUP_CHANNELS == group
        q_group = tl.where(is_group[None, :], q, 0.0).to(q.dtype)
        step, low = load_int4_scales(scales + group, is_token)
        products = tl.dot(q_group, tl.trans(codes), input_precision="ieee")
        offsets = tl.sum(q_group.to(tl.float32), axis=1)
        scores += products * step[None, :] + offsets[:, None] * low[None, :]
    return scores


@triton.jit
def _int4_values(
    acc,  # (G, half) sums so far
    offsets,  # (G, tokens) what is to be added to all channels of a row, summed by the caller
    p,  # (G, tokens)
    codes,  # (tokens, half) 0..15 in the dtype of the product
    scales,  # (tokens,) pointers to a token's first pair
    is_token,
    cols,
    FIRST_CHANNEL: tl.constexpr,
    HALF: tl.constexpr,
    GROUP_CHANNELS: tl.constexpr,
    LIFT: tl.constexpr,
):
    FIRST: tl.constexpr = FIRST_CHANNEL // GROUP_CHANNELS
    LAST: tl.constexpr = (FIRST_CHANNEL + HALF - 1) // GROUP_CHANNELS
    for group in tl.static_range(FIRST, LAST + 1):
        step, low = load_int4_scales(scales + group, is_token)
        weights = (p * (step * LIFT)[None, :]).to(codes.dtype)
        terms = p * (low * LIFT)[None, :]
        if FIRST == LAST:
            acc = tl.dot(weights, codes, acc, input_precision="ieee")
            offsets += terms
        else:
            is_group = (FIRST_CHANNEL + cols) // GROUP_CHANNELS == group
            values = tl.dot(weights, codes, input_precision="ieee")
            values += tl.sum(terms, axis=1)[:, None]
            acc += tl.where(is_group[None, :], values, 0.0)
    return acc, offsets


@triton.jit
def _attend_kernel(
    q_ptr,  # (R, Hq, d), rows q_stride apart
    k_ptr,  # (n, Hkv, d) plain or int8, (n, Hkv, d / 2) uint8
    v_ptr,  # the same
    k_scales_ptr,  # (n, Hkv) float16, or (n, Hkv, groups) int32 pairs of float16; unread if plain
    v_scales_ptr,  # the same
    items_ptr,  # (W, 3) int32
    partial_ptr,  # (W, Hq, d) float32
    lse_ptr,  # (W, Hq) float32, natural logarithm
    q_stride,
    score_scale,  # scale log2(e)
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,  # queries per kv head
    HEAD_DIM: tl.constexpr,
    GROUP_CHANNELS: tl.constexpr,
    BITS: tl.constexpr,  # 16 for plain, 8, 4
    IS_WIDE: tl.constexpr,  # whether products are of float32
    BLOCK_GROUP: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,  # stored elements of a head, rounded up to a power of two
):
    head, item = tl.program_id(0), tl.program_id(1)
    row = tl.load(items_ptr + 3 * item)
    start = tl.load(items_ptr + 3 * item + 1)
    stop = tl.load(items_ptr + 3 * item + 2)
    WIDTH: tl.constexpr = HEAD_DIM // 2 if BITS == 4 else HEAD_DIM
    # Codes become float16 in half the instructions that bfloat16 takes. Weights times small scales
    # would vanish in it: they are lifted, by no more than the scales of values of 65,000 bear.
    NARROW: tl.constexpr = q_ptr.dtype.element_ty if BITS == 16 else tl.float16
    COMPUTE: tl.constexpr = tl.float32 if IS_WIDE else NARROW
    LIFT: tl.constexpr = 128.0 if BITS == 8 else 8.0 if BITS == 4 else 1.0
    cols = tl.arange(0, BLOCK_COLS)
    members = tl.arange(0, BLOCK_GROUP)
    tokens = tl.arange(0, BLOCK_TOKENS)
    is_col = cols < WIDTH
    is_query = (members < GROUP)[:, None] & is_col[None, :]

    q_places = q_ptr + row.to(tl.int64) * q_stride + head * GROUP * HEAD_DIM
    q_places = q_places + members[:, None] * HEAD_DIM + cols[None, :]
    q = tl.load(q_places, mask=is_query, other=0.0).to(COMPUTE)
    acc = tl.zeros([BLOCK_GROUP, BLOCK_COLS], tl.float32)
    if BITS == 4:
        q_high = tl.load(q_places + WIDTH, mask=is_query, other=0.0).to(COMPUTE)
        acc_high = tl.zeros([BLOCK_GROUP, BLOCK_COLS], tl.float32)
    most = tl.full([BLOCK_GROUP], float("-inf"), tl.float32)
    # Summed over tokens after the loop: a sum in it would make the warps wait for one another.
    totals = tl.zeros([BLOCK_GROUP, BLOCK_TOKENS], tl.float32)

    first_row = start.to(tl.int64) * NUM_KV_HEADS + head
    places = tokens[:, None] * (NUM_KV_HEADS * WIDTH) + cols[None, :]
    k_places = k_ptr + first_row * WIDTH + places
    v_places = v_ptr + first_row * WIDTH + places
    SCALES: tl.constexpr = HEAD_DIM // GROUP_CHANNELS if BITS == 4 else 1
    k_scales = k_scales_ptr + first_row * SCALES + tokens * (NUM_KV_HEADS * SCALES)
    v_scales = v_scales_ptr + first_row * SCALES + tokens * (NUM_KV_HEADS * SCALES)

    if BITS == 4:
        offsets, offsets_high = totals, totals
    for first in range(start, stop, BLOCK_TOKENS):
        is_token = first + tokens < stop
        mask = is_token[:, None] & is_col[None, :]
        k = tl.load(k_places, mask=mask, other=0)
        v = tl.load(v_places, mask=mask, other=0)
        if BITS == 4:
            k, k_high = int4_codes(k, IS_WIDE)
            scores = _int4_scores(q, k, k_scales, is_token, cols, 0, WIDTH, GROUP_CHANNELS)
            scores += _int4_scores(
                q_high, k_high, k_scales, is_token, cols, WIDTH, WIDTH, GROUP_CHANNELS
            )
        elif BITS == 8:
            scores = tl.dot(q, tl.trans(int8_codes(k, IS_WIDE)), input_precision="ieee")
            scores *= tl.load(k_scales, mask=is_token, other=0).to(tl.float32)[None, :]
        else:
            scores = tl.dot(q, tl.trans(k.to(COMPUTE)), input_precision="ieee")
        scores = tl.where(is_token[None, :], scores * score_scale, float("-inf"))
        new_most = tl.maximum(most, tl.max(scores, axis=1))
        kept = tl.exp2(most - new_most)
        p = tl.exp2(scores - new_most[:, None])
        totals = totals * kept[:, None] + p
        most = new_most
        acc *= kept[:, None]
        if BITS == 4:
            v, v_high = int4_codes(v, IS_WIDE)
            acc, offsets = _int4_values(
                acc,
                offsets * kept[:, None],
                p,
                v,
                v_scales,
                is_token,
                cols,
                0,
                WIDTH,
                GROUP_CHANNELS,
                LIFT,
            )
            acc_high, offsets_high = _int4_values(
                acc_high * kept[:, None],
                offsets_high * kept[:, None],
                p,
                v_high,
                v_scales,
                is_token,
                cols,
                WIDTH,
                WIDTH,
                GROUP_CHANNELS,
                LIFT,
            )
        elif BITS == 8:
            steps = tl.load(v_scales, mask=is_token, other=0).to(tl.float32) * LIFT
            weights = (p * steps[None, :]).to(COMPUTE)
            acc = tl.dot(weights, int8_codes(v, IS_WIDE), acc, input_precision="ieee")
        else:
            acc = tl.dot(p.to(COMPUTE), v.to(COMPUTE), acc, input_precision="ieee")
        k_places += BLOCK_TOKENS * NUM_KV_HEADS * WIDTH
        v_places += BLOCK_TOKENS * NUM_KV_HEADS * WIDTH
        k_scales += BLOCK_TOKENS * NUM_KV_HEADS * SCALES
        v_scales += BLOCK_TOKENS * NUM_KV_HEADS * SCALES

    total = tl.sum(totals, axis=1)
    divisor = tl.where(total > 0, total, 1.0)  # no tokens: zeros, and a weight of nothing
    heads = item * (NUM_KV_HEADS * GROUP) + head * GROUP + members
    out_places = partial_ptr + heads.to(tl.int64)[:, None] * HEAD_DIM + cols[None, :]
    if BITS == 4:
        acc += tl.sum(offsets, axis=1)[:, None]
        acc_high += tl.sum(offsets_high, axis=1)[:, None]
        tl.store(out_places + WIDTH, acc_high / (divisor * LIFT)[:, None], mask=is_query)
    tl.store(out_places, acc / (divisor * LIFT)[:, None], mask=is_query)
    lse = (most + tl.log2(divisor)) * 0.6931471805599453  # most is -inf there
    tl.store(lse_ptr + heads, lse, mask=members < GROUP)


@triton.jit
def _merge_kernel(
    partial_ptr,  # (W, Hq, d) float32
    lse_ptr,  # (W, Hq) float32
    row_items_ptr,  # (R + 1,) int32
    out_ptr,  # (R, Hq, d)
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_ITEMS: tl.constexpr,
    BLOCK_COLS: tl.constexpr,
):
    head, row = tl.program_id(0), tl.program_id(1)
    start, stop = tl.load(row_items_ptr + row), tl.load(row_items_ptr + row + 1)
    cols = tl.arange(0, BLOCK_COLS)
    most = tl.full([1], float("-inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    acc = tl.zeros([BLOCK_COLS], tl.float32)
    for first in range(start, stop, BLOCK_ITEMS):
        items = first + tl.arange(0, BLOCK_ITEMS)
        is_item = items < stop
        heads = items.to(tl.int64) * NUM_HEADS + head
        lse = tl.load(lse_ptr + heads, mask=is_item, other=float("-inf"))
        places = partial_ptr + heads[:, None] * HEAD_DIM + cols[None, :]
        mask = is_item[:, None] & (cols < HEAD_DIM)[None, :]
        partial = tl.load(places, mask=mask, other=0.0)
        new_most = tl.maximum(most, tl.max(lse, axis=0))
        finite = tl.where(new_most > float("-inf"), new_most, 0.0)
        kept = tl.exp(most - finite)
        weights = tl.exp(lse - finite)
        acc = acc * kept + tl.sum(partial * weights[:, None], axis=0)
        total = total * kept + tl.sum(weights, axis=0)
        most = new_most
    out = acc / tl.where(total > 0, total, 1.0)
    out_places = out_ptr + (row.to(tl.int64) * NUM_HEADS + head) * HEAD_DIM + cols
    tl.store(out_places, out.to(out_ptr.dtype.element_ty), mask=cols < HEAD_DIM)


def attend_items(
    q: torch.Tensor, store: StoredKv, work: DecodeWork, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the kernel that attends to every item.

    Args:
        q: (R, Hq, d); rows may stand apart, a row may not have gaps.
        store: a whole slab's layer, contiguous.
        work: on q's device.
        scale: factor of the scores.

    Returns:
        Outputs (W, Hq, d) and log-sum-exps (W, Hq), float32; zeros and -inf of an empty item.

    Raises:
        ValueError: heads of more than 256 channels, or tensors with gaps.
    """
    _check_launch(q, store, work)
    num_heads, head_dim = q.shape[1:]
    partial = torch.empty(
        (work.num_items, num_heads, head_dim), dtype=torch.float32, device=q.device
    )
    lse = torch.empty((work.num_items, num_heads), dtype=torch.float32, device=q.device)
    group = num_heads // store.num_heads
    is_wide = not q.is_cuda or q.dtype is torch.float32  # the interpreter has no 16-bit arithmetic
    _attend_kernel[(store.num_heads, work.num_items)](
        q,
        store.k,
        store.v,
        _scales(store.k, store.k_scales),
        _scales(store.v, store.v_scales),
        work.items,
        partial,
        lse,
        q.stride(0),
        scale * _LOG2_E,
        NUM_KV_HEADS=store.num_heads,
        GROUP=group,
        HEAD_DIM=head_dim,
        GROUP_CHANNELS=group_channels(head_dim),
        BITS=_BITS[store.kv_format],
        IS_WIDE=is_wide,
        BLOCK_GROUP=max(16, triton.next_power_of_2(group)),
        BLOCK_TOKENS=_block_tokens(head_dim, is_wide=is_wide),
        BLOCK_COLS=max(16, triton.next_power_of_2(store.k.shape[2])),
        num_warps=8 if is_wide else 4,
        num_stages=2,
    )
    return partial, lse


def merge_items(
    partial: torch.Tensor, lse: torch.Tensor, work: DecodeWork, dtype: torch.dtype
) -> torch.Tensor:
    """Launch the kernel that joins the items of each row.

    Args:
        partial: (W, Hq, d) float32, of `attend_items`.
        lse: (W, Hq) float32.
        work: the same.
        dtype: of the result.

    Returns:
        (R, Hq, d); zeros where a row has no tokens.
    """
    _, num_heads, head_dim = partial.shape
    out = torch.empty((work.num_rows, num_heads, head_dim), dtype=dtype, device=partial.device)
    _merge_kernel[(num_heads, work.num_rows)](
        partial,
        lse,
        work.row_items,
        out,
        NUM_HEADS=num_heads,
        HEAD_DIM=head_dim,
        BLOCK_ITEMS=16,
        BLOCK_COLS=triton.next_power_of_2(head_dim),
        num_warps=4,
    )
    return out


def _scales(codes: torch.Tensor, scales: torch.Tensor | None) -> torch.Tensor:
    """Return scales as the kernel reads them: those of int4 beside their offset in 32 bits."""
    if scales is None:
        return codes
    return scales.view(torch.int32) if scales.ndim == 4 else scales


def _block_tokens(head_dim: int, *, is_wide: bool) -> int:
    """Return how many tokens a program takes at once: what its registers hold without spills."""
    width = triton.next_power_of_2(head_dim)
    if is_wide:
        return 16
    if width == 64:
        return 128
    return 64 if width <= 128 else 32


def _check_launch(q: torch.Tensor, store: StoredKv, work: DecodeWork) -> None:
    if store.head_dim > _MOST_HEAD_DIM:
        raise ValueError(f"heads of {store.head_dim} channels, at most {_MOST_HEAD_DIM}.")
    if q[0].stride() != (q.shape[2], 1):
        raise ValueError(f"queries {tuple(q.shape)} have strides {q.stride()}.")
    parts = (store.k, store.v, store.k_scales, store.v_scales, work.items, work.row_items)
    for part in parts:
        if part is not None and not part.is_contiguous():
            raise ValueError(f"a tensor {tuple(part.shape)} of the cache or work has gaps.")
