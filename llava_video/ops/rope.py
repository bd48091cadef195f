"""Rotary embedding of queries and keys, and keys and values into the cache, in one pass.

Formula, half-split ("rotate half") convention, for channel pair j < d/2 of a head of d channels:
    y[j] = x[j] cos - x[j + d/2] sin
    y[j + d/2] = x[j + d/2] cos + x[j] sin
with the cosines and sines of a `Rotation`. Keys are stored from the float32 they are rotated in,
values as they come, in the cache's format (`kv_format`).
Source: Su et al. 2021 (arXiv 2104.09864), section 3.4.2, in the half-split order of the GPT-NeoX
and Llama code.

Shapes: q (L, Hq, d); k, v (L, Hkv, d); the store a whole slab's layer (n, Hkv, d); slots (L,).
The kernel makes cosines and sines of 64-bit fixed-point phases itself (error 1e-7 at any index),
so no table is read. Bytes of one token and layer at 28 + 4 heads of 128 in bfloat16: q read and
written 14,336, k and v read and stored 4,096. The gain is not measured yet on a GPU.
"""

from typing import Final

import torch

from llava_video.ops.dispatch import device_of, triton, uses_triton
from llava_video.ops.kv_format import StoredKv, group_channels
from llava_video.ops.rope_kernel import rotate_and_store_kernel
from llava_video.ops.rotation import Rotation

MOST_HEAD_DIM: Final = 256

# A tile is (heads, tokens, d/2), twice: the first and the second half of the channels. Tokens and
# channels go to the 128 threads, 16 bytes each, and heads stay in registers, so that a thread makes
# the cosines and sines of its 8 pairs once for all heads of its program: a pair takes about 60
# instructions, and with heads across threads they would take longer than the memory does.
_TILE_PAIRS: Final = 1024
# Two to four loads of 16 bytes a thread are under way (the assembler issues a head's two together),
# 4 to 8 kB a program; at 56 registers a thread, nine programs of an H200's processor hold 36 to
# 72 kB, and 4.8 TB/s of reads and writes over 132 processors want 18 kB of loads each microsecond.
_TILE_HEADS: Final = 2
# A program goes on to further heads of its tokens once there are this many programs, some waves of
# the largest GPU; few tokens are spread over as many programs as they have tiles.
_ENOUGH_PROGRAMS: Final = 2048


def rotate_reference(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return the rotated heads.

    Args:
        x: (L, H, d).
        cos: (L, 1, d / 2) float32.
        sin: the same.

    Returns:
        (L, H, d) in x's dtype.
    """
    first, second = x.float().chunk(2, dim=-1)
    rotated = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return rotated.to(x.dtype)


def rotate_and_store_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rotation: Rotation,
    store: StoredKv,
    slots: torch.Tensor,
) -> torch.Tensor:
    """Store rotated keys and values, and return rotated queries, all by torch.

    Args:
        q: (L, Hq, d).
        k: (L, Hkv, d).
        v: (L, Hkv, d).
        rotation: of the L tokens.
        store: takes keys and values.
        slots: (L,) int64, where in it.

    Returns:
        (L, Hq, d) in q's dtype.
    """
    cos, sin = rotation.tables()
    store.write(slots, rotate_reference(k.float(), cos, sin), v)
    return rotate_reference(q, cos, sin)


def _rotate_and_store_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rotation: Rotation,
    store: StoredKv,
    slots: torch.Tensor,
) -> torch.Tensor:
    num_tokens, num_q_heads, head_dim = q.shape
    _check_layout(q, k, v, rotation, store, slots)
    strides = [x.stride(dim) if x.shape[dim] > 1 else 0 for x in (q, k, v) for dim in (0, 1)]
    strides.append(store.k.stride(0))
    # Told to the compiler as a factor, so that 16 bytes are one access for odd numbers of heads.
    align = 8 if all(stride % 8 == 0 for stride in strides) else 1
    tile_cols = triton.next_power_of_2(head_dim // 2)
    tile_tokens = max(1, _TILE_PAIRS // tile_cols)
    num_tiles = triton.cdiv(num_tokens, tile_tokens)
    num_batches = triton.cdiv(num_q_heads, _TILE_HEADS)
    most_batches = num_tiles * num_batches // _ENOUGH_PROGRAMS
    heads_per_program = _TILE_HEADS * min(max(1, most_batches), num_batches)
    num_q_programs = triton.cdiv(num_q_heads, heads_per_program)
    num_kv_programs = triton.cdiv(store.num_heads, heads_per_program)
    is_plain = store.k_scales is None
    with device_of(q):
        rotate_and_store_kernel[(num_tiles, num_q_programs + num_kv_programs)](
            q,
            k,
            v,
            rotation.idxs,
            rotation.scale_idxs,
            rotation.frequencies,
            rotation.cos,
            rotation.sin,
            slots,
            store.k,
            store.v,
            store.k if is_plain else store.k_scales,
            store.v if is_plain else store.v_scales,
            num_tokens,
            num_q_heads,
            store.num_heads,
            heads_per_program,
            num_q_programs,
            *(stride // align for stride in strides),
            0 if store.k_scales is None else store.k_scales.stride(0),
            HEAD_DIM=head_dim,
            GROUP_CHANNELS=group_channels(head_dim),
            KV_FORMAT=store.kv_format,
            ALIGN=align,
            TILE_TOKENS=tile_tokens,
            TILE_Q_HEADS=1 if num_q_heads == 1 else _TILE_HEADS,
            # The quantisers of two int4 heads at once take more registers than a thread has.
            TILE_KV_HEADS=1 if store.kv_format == "int4" or store.num_heads == 1 else _TILE_HEADS,
            TILE_COLS=tile_cols,
            num_warps=4,
        )
    return q


def _check_layout(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rotation: Rotation,
    store: StoredKv,
    slots: torch.Tensor,
) -> None:
    """Refuse what the kernel would read or write wrongly."""
    if q.shape[2] > MOST_HEAD_DIM:
        raise ValueError(f"a head of {q.shape[2]} channels; the kernel takes {MOST_HEAD_DIM}.")
    for x in (q, k, v):
        if x.stride(2) != 1:
            raise ValueError(f"channels must stand side by side, not {x.stride(2)} apart.")
    parts = [(store.k, store.v)]
    if store.k_scales is not None and store.v_scales is not None:
        parts.append((store.k_scales, store.v_scales))
    for one, other in parts:
        if one.stride() != other.stride() or not one[:1].is_contiguous():
            strides = f"{one.stride()} and {other.stride()}"
            raise ValueError(f"a store of strides {strides} has gaps inside a token.")
    tables = [x for x in (rotation.cos, rotation.sin) if x is not None]
    for x in (rotation.idxs, rotation.scale_idxs, rotation.frequencies, slots, *tables):
        if not x.is_contiguous():
            raise ValueError(f"slots and rotations must be contiguous, not {x.stride()}.")


def _rotate_and_store_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rotation: Rotation,
    store: StoredKv,
    slots: torch.Tensor,
) -> torch.Tensor:
    if q.dtype is not torch.float32 or torch.is_grad_enabled():
        return rotate_and_store_reference(q, k, v, rotation, store, slots)
    cos, sin = rotation.tables()
    _rotate_in_place(q, cos, sin)
    _rotate_in_place(k, cos, sin)
    store.write(slots, k, v)
    return q


def _rotate_in_place(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    """Rotate float32 heads in their own memory.

    1600 tokens of 14 heads of 64 take 0.7 ms so and 2 to 6.5 ms into a fresh tensor, which is
    returned to the system and faulted in again at every call (AMD EPYC, 1 thread).
    """
    first, second = x.chunk(2, dim=-1)
    carried = first * sin
    first.mul_(cos).addcmul_(second, sin, value=-1)
    second.mul_(cos).add_(carried)


def rotate_and_store(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rotation: Rotation,
    store: StoredKv,
    slots: torch.Tensor,
) -> torch.Tensor:
    """Store rotated keys and values at their slots, and return rotated queries.

    On a GPU it is one launch, and a CUDA graph may capture it: what it does depends on shapes, and
    on what the tensors hold when it runs.

    Args:
        q: (L, Hq, d), d even; without gradients the result may overwrite it.
        k: (L, Hkv, d); without gradients not to be used afterwards.
        v: (L, Hkv, d).
        rotation: of the L tokens.
        store: a whole slab's layer in any format, on q's device; takes keys and values.
        slots: (L,) int64, where in it, each once; not checked on a GPU.

    Returns:
        (L, Hq, d) in q's dtype.

    Raises:
        ValueError: when shapes, dtypes or devices do not fit together, or a head is odd or, for
            a kernel, above 256 channels.
    """
    _check(q, k, v, rotation, store, slots)
    has_gradient = any(x.requires_grad for x in (q, k, v))  # a kernel's result would have none
    if uses_triton(q) and not has_gradient:
        return _rotate_and_store_triton(q, k, v, rotation, store, slots)
    return _rotate_and_store_torch(q, k, v, rotation, store, slots)


def _check(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    rotation: Rotation,
    store: StoredKv,
    slots: torch.Tensor,
) -> None:
    num_tokens, _, head_dim = q.shape
    stored = (num_tokens, store.num_heads, store.head_dim)
    if tuple(k.shape) != stored or v.shape != k.shape or head_dim != store.head_dim:
        shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
        raise ValueError(f"{shapes} for a store of {stored[1]} heads of {stored[2]}.")
    if slots.shape != (num_tokens,) or slots.dtype is not torch.int64:
        raise ValueError(f"{num_tokens} tokens, slots {tuple(slots.shape)} {slots.dtype}.")
    if (rotation.num_tokens, rotation.head_dim) != (num_tokens, head_dim):
        own = f"{rotation.num_tokens} tokens and heads of {rotation.head_dim}"
        raise ValueError(f"a rotation of {own} for q {tuple(q.shape)}.")
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q is {q.dtype}, k {k.dtype}, v {v.dtype}.")
    devices = {x.device for x in (q, k, v, rotation.idxs, store.k, slots)}
    if len(devices) != 1:
        raise ValueError(f"tensors on {' and '.join(sorted(map(str, devices)))}.")
