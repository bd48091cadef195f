"""Attention of single tokens over a cache, read as it is stored: plain, int8 or int4.

Formula, for the query of row r and head h over the tokens of the row's items, kv head h // group:
    y = sum_j softmax_j(scale q . k_j) v_j
An item is some consecutive tokens; one program attends to it for one kv head and all the queries
that share it, so each key is loaded once, and writes its output y_i and log-sum-exp l_i in float32.
A second kernel joins the items of a row:
    y = sum_i y_i exp(l_i - m) / sum_i exp(l_i - m), m = max l_i
A GPU's kernels (`decode_kernels`) multiply by codes as they are stored and apply scales around the
products, so a dequantised copy never exists. On a CPU the native part (`csrc/attend.h`) does the
same over plain float32, on the calling thread; torch's attention, row by row, serves all others.
Source: Dao et al. 2023, Flash-Decoding; Milakov and Gimelshein 2018 (arXiv 1805.02867).

Shapes: q (R, Hq, d); store (n, Hkv, d), the whole slab's layer; items (W, 3); result (R, Hq, d).
A grid depends on R, W and the heads alone, so a CUDA graph may capture it while items change.

Bytes that a step of a 7B reads from its cache, plain (16 bits), int8 and int4: 0.70, 0.36 and
0.20 GB at 12,288 tokens, beside 14.1 GB of weights; 9.2, 4.7 and 2.6 GB at 160,000; 30, 15 and 8.5
at 525,000 (predicted from the arithmetic). The gain is not measured yet on a GPU.
"""

from typing import Final

import torch

from llava_video.ops.attention import attention
from llava_video.ops.decode_kernels import attend_items, merge_items
from llava_video.ops.decode_work import DecodeWork, plan_decode, spans_per_row
from llava_video.ops.dispatch import uses_triton
from llava_video.ops.kv_format import StoredKv
from llava_video.ops.native import native

__all__ = ["DecodeWork", "decode_attention", "decode_attention_reference", "plan_decode"]

# What the kernel takes.
_MOST_HEAD_DIM: Final = 256
# What one thread reads, of a row's keys and values in one layer, before torch is done with it,
# which has a thread for each kv head at most.
_MOST_BYTES_ALONE: Final = 2 * 2**20
_CPU = torch.device("cpu")


def reads_rows_at_once(
    num_tokens: int, num_kv_heads: int, head_dim: int, device: torch.device
) -> bool:
    """Say whether a row of so many tokens is best read by `decode_attention`, beside any others.

    What is said of a row depends on no other, so that at the same places of a cache its answer is
    the same, bit by bit, whoever else is answered.
    """
    if uses_triton(torch.empty(0, device=device)):
        return head_dim <= _MOST_HEAD_DIM
    if device != _CPU or native() is None:
        return False
    num_bytes = 2 * 4 * num_tokens * num_kv_heads * head_dim
    return num_bytes <= _MOST_BYTES_ALONE or torch.get_num_threads() == 1


def decode_attention_reference(
    q: torch.Tensor, store: StoredKv, work: DecodeWork, scale: float
) -> torch.Tensor:
    """Return each row's attention by one softmax over all its tokens, dequantised.

    Args:
        q: (R, Hq, d), rotated.
        store: the slab's layer.
        work: which slots each row sees.
        scale: factor of the scores.

    Returns:
        (R, Hq, d) in q's dtype; computed in float32, or in float64 for such queries.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    group = q.shape[1] // store.num_heads
    out = torch.zeros_like(q)
    for row, spans in enumerate(spans_per_row(work)):
        if not spans:
            continue
        parts = [store.part(start, stop).plain(wide) for start, stop in spans]
        keys = torch.cat([k for k, _ in parts]).repeat_interleave(group, dim=1)
        values = torch.cat([v for _, v in parts]).repeat_interleave(group, dim=1)
        weights = (torch.einsum("hd,nhd->hn", q[row].to(wide), keys) * scale).softmax(dim=-1)
        out[row] = torch.einsum("hn,nhd->hd", weights, values).to(q.dtype)
    return out


def _decode_attention_triton(
    q: torch.Tensor, store: StoredKv, work: DecodeWork, scale: float
) -> torch.Tensor:
    return merge_items(*attend_items(q, store, work, scale), work, q.dtype)


def _decode_attention_torch(
    q: torch.Tensor, store: StoredKv, work: DecodeWork, scale: float
) -> torch.Tensor:
    """Attend row by row, dequantising a block at a time."""
    out = torch.zeros_like(q)
    for row, spans in enumerate(spans_per_row(work)):
        if spans:
            past = [store.part(start, stop) for start, stop in spans]
            out[row] = attention(q[row : row + 1], past, None, scale)[0]
    return out


def _decode_attention_native(
    q: torch.Tensor, store: StoredKv, work: DecodeWork, scale: float
) -> torch.Tensor:
    out = torch.empty_like(q)
    tensors = (q, store.k, store.v, work.items, work.row_items)
    arrays = (tensor.numpy() for tensor in tensors)
    native().decode_attention(*arrays, scale, out.numpy(), "auto")  # type: ignore[union-attr]  # asked before
    return out


def _is_native(q: torch.Tensor, store: StoredKv) -> bool:
    if store.kv_format != "plain" or type(q) is not torch.Tensor or native() is None:
        return False
    is_whole = q.is_contiguous() and store.k.is_contiguous() and store.v.is_contiguous()
    return is_whole and all(
        x.device == _CPU and x.dtype is torch.float32 and not x.requires_grad
        for x in (q, store.k, store.v)
    )


def decode_attention(
    q: torch.Tensor, store: StoredKv, work: DecodeWork, scale: float
) -> torch.Tensor:
    """Return the attention of one token of each row over the tokens its items name.

    Args:
        q: (R, Hq, d), rotated; Hq a multiple of the kv heads.
        store: a whole slab's layer, in any format; where a kernel reads it, contiguous.
        work: of `plan_decode`, on q's device; its slots are not checked.
        scale: factor of the scores, usually d^-0.5.

    Returns:
        (R, Hq, d) in q's dtype; zeros where a row has no tokens.

    Raises:
        ValueError: when the shapes do not fit together.
    """
    num_rows, num_heads, head_dim = q.shape
    if num_heads % store.num_heads or head_dim != store.head_dim or num_rows != work.num_rows:
        raise ValueError(
            f"queries {tuple(q.shape)} for {store.num_heads} heads of {store.head_dim} and work of"
            f" {work.num_rows} rows."
        )
    if uses_triton(q):
        return _decode_attention_triton(q, store, work, scale)
    if _is_native(q, store):
        return _decode_attention_native(q, store, work, scale)
    return _decode_attention_torch(q, store, work, scale)
