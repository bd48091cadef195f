"""Inside the GPU: heads rotated by phases in 64-bit fixed point, keys and values written quantised.

The kernel of `rope`, which holds the formula, the shapes and the launch; formats as `kv_format`
defines them. One program takes some tokens and, one tile after another, some of their heads: query
heads in place, or key and value heads into the cache. Knows no torch.
"""

# ruff: noqa: ANN001, ANN201, ANN202  # a kernel's arguments have no Python types
# mypy: disable-error-code="no-untyped-def, untyped-decorator, attr-defined"

from llava_video.ops.dispatch import tl, triton


@triton.jit
def _cos_sin(phases):
    """Return the cosines and sines of 64-bit phases, a whole turn being 2^64.

    The nearest quarter turn is taken off in integers; the rest, at most pi/4, goes into Taylor
    polynomials whose first terms left out are 1.8e-9 (sine) and 2.5e-8 (cosine) there.
    """
    turns = (phases >> 32).to(tl.int32)
    shifted = turns + (1 << 29)
    quarters = shifted >> 30
    rest = (shifted & ((1 << 30) - 1)) - (1 << 29)
    x = rest.to(tl.float32) * 1.4629180792671596e-09  # 2 pi / 2^32
    z = x * x
    sin = x + x * z * (-1 / 6 + z * (1 / 120 + z * (-1 / 5040 + z * (1 / 362880))))
    cos = 1 + z * (-1 / 2 + z * (1 / 24 + z * (-1 / 720 + z * (1 / 40320))))
    is_odd = (quarters & 1) != 0
    turned_cos = tl.where(is_odd, sin, cos)
    turned_sin = tl.where(is_odd, cos, sin)
    turned_cos = tl.where(((quarters + 1) & 2) != 0, -turned_cos, turned_cos)
    return turned_cos, tl.where((quarters & 2) != 0, -turned_sin, turned_sin)


@triton.jit
def _store_heads(
    first,  # (heads, tokens, d/2) float32, the first half of the channels; 0 where there is none
    second,
    places,  # (heads, tokens, 1) pointers into the store
    scale_places,  # the same into its scales; unused in the plain format
    is_head,  # (heads, tokens, 1)
    cols,  # (1, 1, d/2)
    HEAD_DIM: tl.constexpr,
    GROUP_CHANNELS: tl.constexpr,
    KV_FORMAT: tl.constexpr,
):
    """Write some heads into the cache, quantised as `kv_format` defines it."""
    HALF: tl.constexpr = HEAD_DIM // 2
    mask = is_head & (cols < HALF)
    if KV_FORMAT == "plain":
        tl.store(places + cols, first.to(places.dtype.element_ty), mask=mask)
        tl.store(places + HALF + cols, second.to(places.dtype.element_ty), mask=mask)
    elif KV_FORMAT == "int8":
        most = tl.max(tl.maximum(tl.abs(first), tl.abs(second)), axis=2, keep_dims=True)
        scale16 = (most / 127).to(tl.float16)
        tl.store(scale_places, scale16, mask=is_head)
        scale = scale16.to(tl.float32)
        divisor = tl.where(scale == 0, 1, scale)
        first = tl.floor(first / divisor + 0.5)
        second = tl.floor(second / divisor + 0.5)
        first = tl.minimum(tl.maximum(first, -127), 127)
        second = tl.minimum(tl.maximum(second, -127), 127)
        tl.store(places + cols, first.to(tl.int8), mask=mask)
        tl.store(places + HALF + cols, second.to(tl.int8), mask=mask)
    else:
        low_codes = tl.zeros_like(first)
        high_codes = tl.zeros_like(second)
        for group in tl.static_range(HEAD_DIM // GROUP_CHANNELS):
            is_first = (cols < HALF) & (cols // GROUP_CHANNELS == group)
            is_second = (cols < HALF) & ((cols + HALF) // GROUP_CHANNELS == group)
            least = tl.minimum(
                tl.where(is_first, first, float("inf")), tl.where(is_second, second, float("inf"))
            )
            most = tl.maximum(
                tl.where(is_first, first, -float("inf")), tl.where(is_second, second, -float("inf"))
            )
            low16 = tl.min(least, axis=2, keep_dims=True).to(tl.float16)
            low = low16.to(tl.float32)
            step16 = ((tl.max(most, axis=2, keep_dims=True) - low) / 15).to(tl.float16)
            tl.store(scale_places + 2 * group, step16, mask=is_head)
            tl.store(scale_places + 2 * group + 1, low16, mask=is_head)
            step = step16.to(tl.float32)
            divisor = tl.where(step == 0, 1, step)
            low_codes = tl.where(is_first, tl.floor((first - low) / divisor + 0.5), low_codes)
            high_codes = tl.where(is_second, tl.floor((second - low) / divisor + 0.5), high_codes)
        low_codes = tl.minimum(tl.maximum(low_codes, 0), 15).to(tl.int32)
        high_codes = tl.minimum(tl.maximum(high_codes, 0), 15).to(tl.int32)
        tl.store(places + cols, (low_codes | (high_codes << 4)).to(tl.uint8), mask=mask)


@triton.jit(do_not_specialize=["num_tokens", "heads_per_program", "num_q_programs"])
def rotate_and_store_kernel(
    q_ptr,  # (L, Hq, d), rotated in place
    k_ptr,  # (L, Hkv, d)
    v_ptr,  # (L, Hkv, d)
    idxs_ptr,  # (L,) int64
    scale_idxs_ptr,  # (L,) int32
    frequencies_ptr,  # (S, d / 2) int64
    cos_ptr,  # (L, d / 2) float32, or None: the kernel makes its own
    sin_ptr,
    slots_ptr,  # (L,) int64
    k_store_ptr,  # (n, Hkv, d), int4: (n, Hkv, d / 2)
    v_store_ptr,
    k_scales_ptr,  # (n, Hkv) or (n, Hkv, groups, 2) float16; unused in the plain format
    v_scales_ptr,
    num_tokens,
    num_q_heads,
    num_kv_heads,
    heads_per_program,
    num_q_programs,
    q_token_stride,  # of q, k, v and the stores in units of ALIGN elements
    q_head_stride,
    k_token_stride,
    k_head_stride,
    v_token_stride,
    v_head_stride,
    store_token_stride,
    scales_token_stride,
    HEAD_DIM: tl.constexpr,
    GROUP_CHANNELS: tl.constexpr,
    KV_FORMAT: tl.constexpr,
    ALIGN: tl.constexpr,
    TILE_TOKENS: tl.constexpr,
    TILE_Q_HEADS: tl.constexpr,
    TILE_KV_HEADS: tl.constexpr,
    TILE_COLS: tl.constexpr,
):
    """Rotate query heads in place, or store rotated key heads and value heads."""
    HALF: tl.constexpr = HEAD_DIM // 2
    tokens = tl.program_id(0).to(tl.int64) * TILE_TOKENS + tl.arange(0, TILE_TOKENS)[None, :, None]
    cols = tl.arange(0, TILE_COLS)[None, None, :]
    is_token = tokens < num_tokens
    mask = is_token & (cols < HALF)
    if cos_ptr is None:
        idxs = tl.load(idxs_ptr + tokens, mask=is_token, other=0)
        rows = tl.load(scale_idxs_ptr + tokens, mask=is_token, other=0)
        turns = tl.load(frequencies_ptr + rows * HALF + cols, mask=mask, other=0)
        cos, sin = _cos_sin(turns * idxs)
    else:
        cos = tl.load(cos_ptr + tokens * HALF + cols, mask=mask, other=0)
        sin = tl.load(sin_ptr + tokens * HALF + cols, mask=mask, other=0)
    program = tl.program_id(1)
    if program < num_q_programs:
        start = program * heads_per_program
        stop = tl.minimum(start + heads_per_program, num_q_heads)
        for head in range(start, stop, TILE_Q_HEADS):
            heads = head + tl.arange(0, TILE_Q_HEADS)[:, None, None]
            is_in = mask & (heads < stop)
            places = q_ptr + tokens * (q_token_stride * ALIGN) + heads * (q_head_stride * ALIGN)
            first = tl.load(places + cols, mask=is_in, other=0).to(tl.float32)
            second = tl.load(places + HALF + cols, mask=is_in, other=0).to(tl.float32)
            y_first = first * cos - second * sin
            y_second = second * cos + first * sin
            tl.store(places + cols, y_first.to(q_ptr.dtype.element_ty), mask=is_in)
            tl.store(places + HALF + cols, y_second.to(q_ptr.dtype.element_ty), mask=is_in)
    else:
        slots = tl.load(slots_ptr + tokens, mask=is_token, other=0)
        WIDTH: tl.constexpr = HALF if KV_FORMAT == "int4" else HEAD_DIM
        SCALES: tl.constexpr = 2 * (HEAD_DIM // GROUP_CHANNELS) if KV_FORMAT == "int4" else 1
        start = (program - num_q_programs) * heads_per_program
        stop = tl.minimum(start + heads_per_program, num_kv_heads)
        for head in range(start, stop, TILE_KV_HEADS):
            heads = head + tl.arange(0, TILE_KV_HEADS)[:, None, None]
            is_head = is_token & (heads < stop)
            is_in = mask & (heads < stop)
            at = slots * (store_token_stride * ALIGN) + heads * WIDTH
            scales_at = slots * scales_token_stride + heads * SCALES
            places = k_ptr + tokens * (k_token_stride * ALIGN) + heads * (k_head_stride * ALIGN)
            first = tl.load(places + cols, mask=is_in, other=0).to(tl.float32)
            second = tl.load(places + HALF + cols, mask=is_in, other=0).to(tl.float32)
            _store_heads(
                first * cos - second * sin,
                second * cos + first * sin,
                k_store_ptr + at,
                k_scales_ptr + scales_at,
                is_head,
                cols,
                HEAD_DIM,
                GROUP_CHANNELS,
                KV_FORMAT,
            )
            places = v_ptr + tokens * (v_token_stride * ALIGN) + heads * (v_head_stride * ALIGN)
            first = tl.load(places + cols, mask=is_in, other=0).to(tl.float32)
            second = tl.load(places + HALF + cols, mask=is_in, other=0).to(tl.float32)
            _store_heads(
                first,
                second,
                v_store_ptr + at,
                v_scales_ptr + scales_at,
                is_head,
                cols,
                HEAD_DIM,
                GROUP_CHANNELS,
                KV_FORMAT,
            )
