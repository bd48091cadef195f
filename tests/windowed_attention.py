"""A stream's definition: every row of all frames in one masked run, each with its own positions.

Written from the formulas in plain torch and float64, without a cache or a step: whatever was
computed of a frame stays (its keys and values in every layer are those of the window that it saw),
and what a query sees is given by a mask and by positions of its own. At the end, what a test needs
to hold an engine's window against it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llava_video.engine.request import VisualPart
from llava_video.engine.scheduler import Scheduler
from llava_video.engine.sliding import SlidingWindow
from llava_video.engine.step import Work, run_step
from llava_video.model.decoder import LanguageModel
from llava_video.ops.kv_format import dequantise, quantise
from llava_video.values import KvFormat

# (block of the query, tokens of each block) -> (first token that it sees after the sinks, and
# positions of the sinks' first token and of that token).
View = Callable[[int, Sequence[int]], tuple[int, int, int]]


@dataclass(frozen=True)
class Run:
    """What a masked run gave.

    Attributes:
        keys: (L, Hkv, d) of each layer, before rotation.
        values: the same.
        logits: (L, vocab).
    """

    keys: list[Tensor]
    values: list[Tensor]
    logits: Tensor


def contiguous(num_frames: int) -> View:
    """Return the definition: sinks, then the last frames, whole, at 0, 1, 2, …."""

    def view(block: int, counts: Sequence[int]) -> tuple[int, int, int]:
        first = max(1, block - num_frames + 1)
        return sum(counts[:first]), 0, counts[0]

    return view


def masked_run(
    model: LanguageModel,
    blocks: Sequence[Tensor],
    view: View,
    *,
    question: bool = False,
    kv_format: KvFormat = "plain",
) -> Run:
    """Run every block after the ones before it, in one pass of all layers.

    Args:
        model: the decoder's weights.
        blocks: rows (n, D) of the sinks, then of each frame, perhaps of a question at the end.
        view: what a block's rows see, and where.
        question: whether the last block is one: it sees the window of the frame before it.
        kv_format: what keys and values are rounded to. Codes depend on the index that a key is
            rotated to, so each window's positions then begin at the tokens that have left.
    """
    model = _double(model)
    counts = [len(block) for block in blocks]
    hidden = torch.cat([block.double() for block in blocks])
    keys, values = [], []
    with torch.no_grad():
        for layer in model.layers:
            normed = _norm(hidden, layer.input_norm)
            q, k, v = (
                project(normed).view(len(normed), -1, layer.head_dim)
                for project in (layer.q_proj, layer.k_proj, layer.v_proj)
            )
            keys.append(k)
            values.append(v)
            attended = _attend(q, k, v, counts, view, model.config.rope_theta, question, kv_format)
            hidden = hidden + layer.o_proj(attended)
            normed = _norm(hidden, layer.post_norm)
            gated = torch.nn.functional.silu(layer.gate_proj(normed)) * layer.up_proj(normed)
            hidden = hidden + layer.down_proj(gated)
        head = model.embed_tokens.weight if model.lm_head is None else model.lm_head.weight
        return Run(keys, values, _norm(hidden, model.norm) @ head.T)


def rotated(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Return heads (L, H, d) at some positions (L,), by complex numbers."""
    half = x.shape[2] // 2
    powers = torch.arange(half, dtype=torch.float64) / half
    angles = positions.double()[:, None] * theta**-powers
    pairs = torch.complex(x[..., :half], x[..., half:])
    turned = pairs * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat((turned.real, turned.imag), dim=-1)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    counts: Sequence[int],
    view: View,
    theta: float,
    question: bool,
    kv_format: KvFormat,
) -> Tensor:
    """Attend block by block: all keys with a mask, at the positions that the block gives them."""
    group = q.shape[1] // k.shape[1]
    v = _rounded(v, kv_format)
    idxs = torch.arange(len(k))
    outs, start = [], 0
    for block, count in enumerate(counts):
        of = block - 1 if question and block == len(counts) - 1 else block
        first, sink_position, first_position = view(of, counts) if block else (0, 0, 0)
        positions = torch.where(
            idxs < counts[0], idxs + sink_position, idxs - first + first_position
        )
        if kv_format != "plain" and block:
            positions = positions + first - first_position
        own = idxs[start : start + count]
        is_seen = ((idxs < counts[0]) | (idxs >= first)) & (idxs <= own[:, None])
        queries = rotated(q[own], positions[own], theta)
        keys = _rounded(rotated(k, positions, theta), kv_format).repeat_interleave(group, dim=1)
        scores = torch.einsum("lhd,nhd->hln", queries, keys) * q.shape[2] ** -0.5
        weights = scores.masked_fill(~is_seen, -torch.inf).softmax(dim=-1)
        outs.append(torch.einsum("hln,nhd->lhd", weights, v.repeat_interleave(group, dim=1)))
        start += count
    return torch.cat(outs).flatten(1)


def _rounded(x: Tensor, kv_format: KvFormat) -> Tensor:
    """Return what is read back of keys or values that were stored."""
    return dequantise(*quantise(x, kv_format), kv_format, torch.float64)


def _norm(x: Tensor, norm: torch.nn.Module) -> Tensor:
    eps = norm.eps if hasattr(norm, "eps") else 1e-6
    return x / (x.square().mean(dim=-1, keepdim=True) + eps).sqrt() * norm.weight


def _double(model: LanguageModel) -> LanguageModel:
    copy = LanguageModel(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.double()


def rows_of(tiny: Any, part: VisualPart) -> Tensor:
    """Return the rows (n, D) of a visual."""
    return torch.cat(list(tiny.model.visual_rows(part.plan, part.clips(), 2)))


def blocks_of(tiny: Any, sinks: Sequence[int], parts: Sequence[VisualPart]) -> list[Tensor]:
    """Return what `masked_run` takes: rows of the sinks and of each frame."""
    embedded = tiny.model.language_model.embed(torch.tensor(sinks)).detach()
    return [embedded, *(rows_of(tiny, part) for part in parts)]


@torch.inference_mode()
def asked(tiny: Any, engine: Scheduler, window: SlidingWindow, rows: Tensor) -> Tensor:
    """Return the logits (n, vocab) of a question's rows over a fork of the window."""
    with window.sequence.fork() as fork:
        fork.reserve(len(rows))
        return run_step(tiny.model.language_model, engine.arena, [Work(fork, rows, len(rows))])


def error(result: Tensor, expected: Tensor) -> float:
    """Return the largest error over the largest value."""
    return float((result.double() - expected).abs().max() / expected.abs().max())
