"""Rows of embeddings through a language model, alone: what tests of weights need of the engine."""

import torch

from llava_video.model.kv_cache import KvCache
from llava_video.model.llava import LlavaModel
from llava_video.model.step_rows import Row


def new_cache(model: LlavaModel) -> KvCache:
    """Make an empty cache for a model."""
    text = model.dimensions.text
    return KvCache(
        text.num_layers,
        text.num_kv_heads,
        text.head_dim,
        dtype=model.dtype,
        devices=model.language_model.devices,
        slab_tokens=1024,
    )


@torch.inference_mode()
def logits_of(model: LlavaModel, rows: torch.Tensor) -> torch.Tensor:
    """Return the logits (L, vocab) of rows (L, D), one sequence from position 0."""
    cache, length = new_cache(model), rows.shape[0]
    row = Row(0, length, (), cache.reserve(length).span)
    hidden = model.language_model(rows, torch.arange(length), [row], cache)
    return model.language_model.logits(hidden)


@torch.inference_mode()
def greedy(model: LlavaModel, rows: torch.Tensor, num_tokens: int) -> list[int]:
    """Continue rows (L, D) by the most likely token, again and again."""
    cache, past, ids, first = new_cache(model), [], [], 0
    for _ in range(num_tokens):
        num_rows = rows.shape[0]
        span = cache.reserve(num_rows).span
        row = Row(0, num_rows, tuple(past), span)
        hidden = model.language_model(rows, torch.arange(first, first + num_rows), [row], cache)
        past.append(span)
        first += num_rows
        ids.append(int(model.language_model.logits(hidden[-1:]).argmax()))
        rows = model.language_model.embed(torch.tensor(ids[-1:]))
    return ids
