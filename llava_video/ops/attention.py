"""Attention of a chunk of queries: past spans fully, its own keys causally, one softmax over all.

Formula, for query i of the chunk, over the keys P of all past spans and its own keys 0..i:
    y_i = sum_j softmax_j(scale q_i . k_j) v_j
Every part gives its own output and log-sum-exp (y_a, l_a), and two parts are one softmax again by
    l = log(e^l_a + e^l_b);  y = y_a + (y_b - y_a) sigmoid(l_b - l_a)
in float32, so keys need not stand in one piece and are never copied; grouped heads (Hq a multiple
of Hkv) share theirs. Source: Dao et al. 2022 (arXiv 2205.14135), section 3.1; Milakov and
Gimelshein 2018 (arXiv 1805.02867).

Shapes: q (Hq, L, d); keys and values (Hkv, n, d); result (Hq, L, d). Knows no cache and no layer.
The gain over one call on joined keys is not measured yet on a GPU.
"""

from collections.abc import Sequence
from typing import Literal

import torch

from llava_video import backends

AttentionKind = Literal["sdpa", "flash"]
Span = tuple[torch.Tensor, torch.Tensor]
_Part = tuple[torch.Tensor, torch.Tensor]  # output (B, H, L, d), log-sum-exp (B, H, L) float32


def attention_reference(
    q: torch.Tensor,
    spans: Sequence[Span],
    k_own: torch.Tensor,
    v_own: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Return the attention of a chunk by one masked softmax over joined, repeated keys.

    Args:
        q: (Hq, L, d) queries of the chunk, rotated.
        spans: past keys and values, each (Hkv, n, d); every query sees all of them.
        k_own: (Hkv, L, d) the chunk's own keys.
        v_own: (Hkv, L, d) the chunk's own values.
        scale: factor of the scores, usually d^-0.5.

    Returns:
        (Hq, L, d) in q's dtype.
    """
    group = q.shape[0] // k_own.shape[0]
    length = q.shape[1]
    keys = torch.cat([k for k, _ in spans] + [k_own], dim=1).repeat_interleave(group, dim=0)
    values = torch.cat([v for _, v in spans] + [v_own], dim=1).repeat_interleave(group, dim=0)
    scores = (q.float() @ keys.float().transpose(1, 2)) * scale
    num_past = keys.shape[1] - length
    unseen = torch.ones(length, keys.shape[1], dtype=torch.bool, device=q.device)
    scores.masked_fill_(unseen.triu(num_past + 1), -torch.inf)
    return (scores.softmax(dim=-1) @ values.float()).to(q.dtype)


def attention(
    q: torch.Tensor,
    spans: Sequence[Span],
    k_own: torch.Tensor | None,
    v_own: torch.Tensor | None,
    scale: float,
    *,
    kind: AttentionKind = "sdpa",
) -> torch.Tensor:
    """Return the attention of a chunk over past spans and itself, without copying keys.

    Args:
        q: (Hq, L, d) queries of the chunk, rotated.
        spans: past keys and values, each (Hkv, n, d), n > 0; every query sees all of them.
        k_own: (Hkv, L, d) the chunk's own keys; None when they stand at the end of the last span,
            which a chunk of one token may do.
        v_own: (Hkv, L, d) the chunk's own values; None with `k_own`.
        scale: factor of the scores, usually d^-0.5.
        kind: "sdpa" for torch's kernels, "flash" for the flash-attn package (CUDA, half precision).

    Returns:
        (Hq, L, d) in q's dtype.

    Raises:
        BackendMissingError: "flash" without the package.
        ValueError: when the shapes do not fit together.
    """
    _check_shapes(q, spans, k_own)
    if k_own is None or v_own is None:
        parts = [_attend_all(q, k, v, scale, kind) for k, v in spans]
    elif not spans and kind == "sdpa":
        return _attend_self(q, k_own, v_own, scale)
    elif q.shape[1] == 1:
        parts = [_attend_all(q, k, v, scale, kind) for k, v in (*spans, (k_own, v_own))]
    else:
        own = _attend(*_grouped(q, k_own, v_own), scale, is_causal=True, kind=kind)
        past = [_attend(*_grouped(q, k, v), scale, is_causal=False, kind=kind) for k, v in spans]
        parts = [*past, own]
    return _merge(parts).reshape(q.shape)


def _check_shapes(q: torch.Tensor, spans: Sequence[Span], k_own: torch.Tensor | None) -> None:
    keys = [k for k, _ in spans] + ([] if k_own is None else [k_own])
    if not keys:
        raise ValueError("there are no keys: neither spans nor the chunk's own.")
    num_heads, length, head_dim = q.shape
    for k in keys:
        if k.ndim != 3 or num_heads % k.shape[0] or k.shape[2] != head_dim or not k.shape[1]:
            raise ValueError(f"keys {tuple(k.shape)} for queries {tuple(q.shape)}.")
    if k_own is None and length > 1:
        raise ValueError(f"a chunk of {length} tokens needs its own keys apart, to be causal.")
    if k_own is not None and k_own.shape[1] != length:
        raise ValueError(f"own keys {tuple(k_own.shape)} for queries {tuple(q.shape)}.")


def _grouped(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """View heads as (Hkv, group): the key head is a batch item, its keys repeated by stride 0."""
    num_kv_heads = k.shape[0]
    group = q.shape[0] // num_kv_heads
    q = q.view(num_kv_heads, group, q.shape[1], q.shape[2])
    return q, _repeated(k, group, q.dtype), _repeated(v, group, q.dtype)


def _repeated(k: torch.Tensor, group: int, dtype: torch.dtype) -> torch.Tensor:
    return k.to(dtype)[:, None].expand(-1, group, -1, -1)


def _attend_self(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """Attend causally without a past: torch's own call, which has a gradient too."""
    q4, k4, v4 = _grouped(q, k, v)
    is_causal = q.shape[1] > 1
    sdpa = torch.nn.functional.scaled_dot_product_attention
    return sdpa(q4, k4, v4, is_causal=is_causal, scale=scale).reshape(q.shape)


def _attend_all(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, kind: AttentionKind
) -> _Part:
    """Attend to every key: a group's queries stand as rows of one head, and read its keys once."""
    num_kv_heads, _, head_dim = k.shape
    rows = q.reshape(1, num_kv_heads, -1, head_dim)  # (1, Hkv, G L, d); a view when L = 1
    keys, values = k.to(q.dtype)[None], v.to(q.dtype)[None]
    out, lse = _attend(rows, keys, values, scale, is_causal=False, kind=kind)
    shape = (num_kv_heads, q.shape[0] // num_kv_heads, q.shape[1])
    return out.reshape(*shape, head_dim), lse.reshape(shape)


def _merge(parts: Sequence[_Part]) -> torch.Tensor:
    """Join the softmaxes of the parts: (B, H, L, d) in the parts' dtype."""
    out, lse = parts[0]
    if len(parts) == 1:
        return out
    dtype, total = out.dtype, out.float()
    for next_out, next_lse in parts[1:]:
        weight = torch.sigmoid(next_lse - lse)[..., None].to(total.dtype)
        total = torch.lerp(total, next_out.float(), weight)
        lse = torch.logaddexp(lse, next_lse)
    return total.to(dtype)


def _attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    *,
    is_causal: bool,
    kind: AttentionKind,
) -> _Part:
    """Attend with the kernel of the device; (B, H, L, d) each, and the log-sum-exp beside."""
    if kind == "flash":
        return _attend_flash_package(q, k, v, scale, is_causal=is_causal)
    aten = torch.ops.aten
    if q.device.type == "cpu":
        kernel = aten._scaled_dot_product_flash_attention_for_cpu
        out, lse = kernel(q, k, v, 0.0, is_causal, scale=scale)
        return out, lse
    if q.device.type == "cuda" and q.dtype in (torch.float16, torch.bfloat16):
        out, lse, *_ = aten._scaled_dot_product_flash_attention(
            q, k, v, 0.0, is_causal, False, scale=scale
        )
        return out, lse
    if q.device.type == "cuda" and q.dtype is torch.float32:
        out, lse, *_ = aten._scaled_dot_product_efficient_attention(
            q, k, v, None, True, 0.0, is_causal, scale=scale
        )
        return out, lse[..., : q.shape[2]]  # the kernel pads its rows to a multiple of 32
    return _attend_plain(q, k, v, scale, is_causal=is_causal)


def _attend_plain(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, *, is_causal: bool
) -> _Part:
    """Attend by matrix products, where no kernel gives the log-sum-exp."""
    scores = (q.float() @ k.float().transpose(2, 3)) * scale
    if is_causal:
        unseen = torch.ones(scores.shape[2:], dtype=torch.bool, device=q.device).triu(1)
        scores.masked_fill_(unseen, -torch.inf)
    lse = scores.logsumexp(dim=-1)
    return ((scores - lse[..., None]).exp() @ v.float()).to(q.dtype), lse


def _attend_flash_package(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, *, is_causal: bool
) -> _Part:
    """Attend with the flash-attn package, which wants (B, L, H, d)."""
    flash = backends.require("flash_attn")
    out, lse, _ = flash.flash_attn_func(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        softmax_scale=scale,
        causal=is_causal,
        return_attn_probs=True,
    )
    return out.transpose(1, 2), lse
