"""Attention of a chunk of queries: past spans fully, its own keys causally, one softmax over all.

Formula, for query i of the chunk, over the keys P of all past spans and its own keys 0..i:
    y_i = sum_j softmax_j(scale q_i . k_j) v_j
Every part gives its own output and log-sum-exp (y_a, l_a), and two parts are one softmax again by
    l = log(e^l_a + e^l_b);  y = y_a + (y_b - y_a) sigmoid(l_b - l_a)
in float32, so keys need not stand in one piece and are never copied; grouped heads (Hq a multiple
of Hkv) share theirs. Keys stored as integers are dequantised block by block into one workspace,
and what a chunk stored itself is read as stored too: every chunking attends to the same values.
Source: Dao et al. 2022 (arXiv 2205.14135), section 3.1; Milakov and Gimelshein 2018
(arXiv 1805.02867).

Shapes: q (L, Hq, d); keys and values (n, Hkv, d); result (L, Hq, d). Knows no cache and no layer.
The gain over one call on joined keys is not measured yet on a GPU.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Literal

import torch

from llava_video import backends
from llava_video.ops.dequantise import dequantise_into
from llava_video.ops.kv_format import StoredKv

AttentionKind = Literal["sdpa", "flash"]
_Part = tuple[torch.Tensor, torch.Tensor]  # output (B, H, L, d), log-sum-exp (B, H, L) float32

BLOCK_TOKENS: Final = 32_768


def attention_reference(
    q: torch.Tensor, past: Sequence[StoredKv], own: StoredKv, scale: float
) -> torch.Tensor:
    """Return the attention of a chunk by one masked softmax over joined, repeated keys.

    Args:
        q: (L, Hq, d) queries of the chunk, rotated.
        past: keys and values that every query sees.
        own: the chunk's own, L tokens, as they were stored.
        scale: factor of the scores, usually d^-0.5.

    Returns:
        (L, Hq, d) in q's dtype; computed in float32, or in float64 for such queries.
    """
    length, num_heads, _ = q.shape
    wide = torch.promote_types(q.dtype, torch.float32)
    spans = [span.plain(wide) for span in (*past, own)]
    group = num_heads // own.num_heads
    keys = torch.cat([k for k, _ in spans]).repeat_interleave(group, dim=1)
    values = torch.cat([v for _, v in spans]).repeat_interleave(group, dim=1)
    scores = torch.einsum("lhd,nhd->hln", q.to(wide), keys) * scale
    unseen = torch.ones(scores.shape[1:], dtype=torch.bool, device=q.device)
    scores.masked_fill_(unseen.triu(keys.shape[0] - length + 1), -torch.inf)
    return torch.einsum("hln,nhd->lhd", scores.softmax(dim=-1), values).to(q.dtype)


def attention(
    q: torch.Tensor,
    past: Sequence[StoredKv],
    own: StoredKv | None,
    scale: float,
    *,
    kind: AttentionKind = "sdpa",
) -> torch.Tensor:
    """Return the attention of a chunk over past spans and itself, without copying plain keys.

    Without a past the result has a gradient; with one it has none.

    Args:
        q: (L, Hq, d) queries of the chunk, rotated.
        past: keys and values that every query sees, each of at least one token.
        own: the chunk's own, L tokens, read back from where they were stored; None when they stand
            at the end of the last span, which those of a chunk of one token may do.
        scale: factor of the scores, usually d^-0.5.
        kind: "sdpa" for torch's kernels, "flash" for the flash-attn package (CUDA, half precision).

    Returns:
        (L, Hq, d) in q's dtype.

    Raises:
        BackendMissingError: "flash" without the package.
        ValueError: when the shapes do not fit together.
    """
    _check_shapes(q, past, own)
    if own is not None and not past and kind == "sdpa":
        return _attend_self(q, own, scale)
    is_single = q.shape[0] == 1
    seen = past if own is None or not is_single else (*past, own)
    total: _Part | None = None
    for k, v in _blocks(seen, q.dtype):
        total = _merge(total, _attend_seen(q, k, v, scale, kind))
    if own is not None and not is_single:
        grouped = _grouped(q, *_plain(own, q.dtype))
        total = _merge(total, _attend(*grouped, scale, is_causal=True, kind=kind))
    assert total is not None
    return _token_major(total[0]).to(q.dtype)


def _check_shapes(q: torch.Tensor, past: Sequence[StoredKv], own: StoredKv | None) -> None:
    stored = [*past] if own is None else [*past, own]
    if not stored:
        raise ValueError("there are no keys: neither spans nor the chunk's own.")
    length, num_heads, head_dim = q.shape
    for span in stored:
        shape = (span.num_tokens, span.num_heads, span.head_dim)
        if num_heads % shape[1] or shape[2] != head_dim or not shape[0]:
            raise ValueError(f"keys {shape} for queries {tuple(q.shape)}.")
    if own is None and length > 1:
        raise ValueError(f"a chunk of {length} tokens needs its own keys apart, to be causal.")
    if own is not None and own.num_tokens != length:
        raise ValueError(f"{own.num_tokens} own keys for queries {tuple(q.shape)}.")


def _blocks(
    spans: Sequence[StoredKv], dtype: torch.dtype
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield keys and values (n, Hkv, d): views where they are plain, else one block at a time.

    A block stands in a workspace that the next one overwrites.
    """
    most = max((span.num_tokens for span in spans if not _is_plain(span, dtype)), default=0)
    workspace = _workspace(spans[0], min(most, BLOCK_TOKENS), dtype) if most else None
    for span in spans:
        if workspace is None or _is_plain(span, dtype):
            yield span.k, span.v
            continue
        for start in range(0, span.num_tokens, BLOCK_TOKENS):
            block = span.part(start, min(start + BLOCK_TOKENS, span.num_tokens))
            k, v = workspace[:, : block.num_tokens]
            dequantise_into(block, k, v)
            yield k, v


def _is_plain(span: StoredKv, dtype: torch.dtype) -> bool:
    return span.kv_format == "plain" and span.k.dtype is dtype


def _workspace(like: StoredKv, num_tokens: int, dtype: torch.dtype) -> torch.Tensor:
    """Return memory for keys and values (2, n, Hkv, d) of some tokens."""
    shape = (2, num_tokens, like.num_heads, like.head_dim)
    return torch.empty(shape, dtype=dtype, device=like.k.device)


def _plain(own: StoredKv, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a chunk's own keys and values in a dtype; a plain one's keep their gradient."""
    if own.kv_format == "plain":
        return own.plain(dtype)
    k, v = _workspace(own, own.num_tokens, dtype)
    dequantise_into(own, k, v)
    return k, v


def _by_head(x: torch.Tensor, num_kv_heads: int) -> torch.Tensor:
    """View queries (L, Hq, d) as (Hkv, group, L, d)."""
    return x.view(x.shape[0], num_kv_heads, -1, x.shape[2]).permute(1, 2, 0, 3)


def _token_major(x: torch.Tensor) -> torch.Tensor:
    """Return (Hkv, group, L, d) as (L, Hq, d)."""
    return x.permute(2, 0, 1, 3).flatten(1, 2)


def _grouped(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """View heads as (Hkv, group): the key head is a batch item, its keys repeated by stride 0."""
    queries = _by_head(q, k.shape[1])
    group = queries.shape[1]
    return queries, _repeated(k, group), _repeated(v, group)


def _repeated(k: torch.Tensor, group: int) -> torch.Tensor:
    return k.transpose(0, 1)[:, None].expand(-1, group, -1, -1)


def _attend_self(q: torch.Tensor, own: StoredKv, scale: float) -> torch.Tensor:
    """Attend causally without a past: torch's own call, which has a gradient too."""
    is_causal = q.shape[0] > 1
    sdpa = torch.nn.functional.scaled_dot_product_attention
    grouped = _grouped(q, *_plain(own, q.dtype))
    return _token_major(sdpa(*grouped, is_causal=is_causal, scale=scale))


def _attend_seen(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, kind: AttentionKind
) -> _Part:
    """Attend to every key; output (Hkv, group, L, d)."""
    if q.shape[0] > 1:
        return _attend(*_grouped(q, k, v), scale, is_causal=False, kind=kind)
    # A group's queries stand as rows of one head, and read its keys once.
    rows = q.view(1, k.shape[1], -1, q.shape[2])
    keys, values = k.transpose(0, 1)[None], v.transpose(0, 1)[None]
    out, lse = _attend(rows, keys, values, scale, is_causal=False, kind=kind)
    return out[0][:, :, None], lse[0][:, :, None]


def _merge(total: _Part | None, part: _Part) -> _Part:
    """Join the softmax of one more part to that of the parts before, in float32 and in place."""
    if total is None:
        return part
    out, lse = total
    weight = torch.sigmoid(part[1] - lse)[..., None]
    out = out.float().lerp_(part[0].float(), weight.float())
    return out, torch.logaddexp(lse, part[1])


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
