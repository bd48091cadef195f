"""The language model: hidden rows, their positions and a cache -> hidden rows, and logits.

Pre-norm decoder layers with grouped attention, rotary positions and a gated MLP (Qwen2 and its
relatives). Rows of several sequences stand one after another without padding; who they belong to,
and where their keys go, comes in as `Row`s. Knows no tokenizer, no sequence and no loop.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from llava_video import backends
from llava_video.model.dimensions import TextConfig
from llava_video.model.kv_cache import KvCache, KvSpan
from llava_video.model.layers import Linear, RmsNorm, add_residual
from llava_video.ops.activation import gated_silu
from llava_video.ops.attention import AttentionKind, Span, attention
from llava_video.ops.linear import linear
from llava_video.ops.rope import rope_tables, rotate


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence's share of a step: some consecutive tokens of it.

    Attributes:
        start: first of its hidden rows.
        stop: one past the last; stop - start tokens, at least 1.
        past: where the keys of the tokens before them stand, all of them seen.
        write: where their own keys go; stop - start places.
    """

    start: int
    stop: int
    past: tuple[KvSpan, ...]
    write: KvSpan

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop or self.write.num_tokens != self.stop - self.start:
            raise ValueError(f"rows [{self.start}, {self.stop}) write to {self.write}.")


@dataclass(frozen=True, slots=True)
class _RowKeys:
    """What a row's attention reads, the same in every layer.

    Attributes:
        start: as in `Row`.
        stop: as in `Row`.
        write: as in `Row`.
        seen: spans that every token of the row sees fully, neighbours joined to one.
        is_seen: whether `write` is among them: a single token sees all of its own keys.
    """

    start: int
    stop: int
    write: KvSpan
    seen: tuple[KvSpan, ...]
    is_seen: bool


class Embedding(nn.Module):
    """One vector per token id.

    Args:
        num_ids: ids.
        num_channels: length of a vector.
    """

    def __init__(self, num_ids: int, num_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_ids, num_channels))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return (..., num_channels) of ids (...)."""
        return F.embedding(ids.to(self.weight.device), self.weight)


class DecoderLayer(nn.Module):
    """One layer: x + attention(norm(x)), then x + MLP(norm(x)).

    Args:
        config: sizes.
        attn: which attention.
    """

    def __init__(self, config: TextConfig, attn: AttentionKind) -> None:
        super().__init__()
        hidden, head_dim = config.hidden_size, config.head_dim
        num_q, num_kv = config.num_heads * head_dim, config.num_kv_heads * head_dim
        self.input_norm = RmsNorm(hidden, config.rms_norm_eps)
        self.q_proj = Linear(hidden, num_q, bias=config.qkv_bias)
        self.k_proj = Linear(hidden, num_kv, bias=config.qkv_bias)
        self.v_proj = Linear(hidden, num_kv, bias=config.qkv_bias)
        self.o_proj = Linear(num_q, hidden, bias=False)
        self.post_norm = RmsNorm(hidden, config.rms_norm_eps)
        self.gate_proj = Linear(hidden, config.intermediate_size, bias=False)
        self.up_proj = Linear(hidden, config.intermediate_size, bias=False)
        self.down_proj = Linear(config.intermediate_size, hidden, bias=False)
        self.head_dim = head_dim
        self.attn = attn

    def forward(
        self,
        hidden: torch.Tensor,
        tables: tuple[torch.Tensor, torch.Tensor],
        rows: Sequence[_RowKeys],
        cache: KvCache,
        layer_idx: int,
    ) -> torch.Tensor:
        """Return the hidden rows after this layer; without gradients, in their own memory.

        Args:
            hidden: (L, D).
            tables: cosines and sines of the rows' positions.
            rows: what each sequence sees.
            cache: takes the rows' keys and values, gives the past's.
            layer_idx: this layer's place in the cache.
        """
        hidden = add_residual(
            hidden, self._attend(self.input_norm(hidden), tables, rows, cache, layer_idx)
        )
        normed = self.post_norm(hidden)
        gated = gated_silu(self.gate_proj(normed), self.up_proj(normed))
        return add_residual(hidden, self.down_proj(gated))

    def _attend(
        self,
        normed: torch.Tensor,
        tables: tuple[torch.Tensor, torch.Tensor],
        rows: Sequence[_RowKeys],
        cache: KvCache,
        layer_idx: int,
    ) -> torch.Tensor:
        length, head_dim = normed.shape[0], self.head_dim
        # Heads stand second: (L, H, d) in memory, seen as (H, L, d) by attention and cache.
        q = rotate(self.q_proj(normed).view(length, -1, head_dim), *tables).transpose(0, 1)
        k = rotate(self.k_proj(normed).view(length, -1, head_dim), *tables).transpose(0, 1)
        v = self.v_proj(normed).view(length, -1, head_dim).transpose(0, 1)
        outs: list[torch.Tensor] = []
        for row in rows:
            own = slice(row.start, row.stop)
            cache.write(layer_idx, row.write, k[:, own], v[:, own])
            # Read back what was written: a cache that rounds gives every chunking the same answer.
            spans = [_stored(cache, layer_idx, span) for span in row.seen]
            own_k, own_v = (None, None) if row.is_seen else _stored(cache, layer_idx, row.write)
            out = attention(q[:, own], spans, own_k, own_v, head_dim**-0.5, kind=self.attn)
            outs.append(out.transpose(0, 1).reshape(row.stop - row.start, -1))
        attended: torch.Tensor = self.o_proj(outs[0] if len(outs) == 1 else torch.cat(outs))
        return attended


class LanguageModel(nn.Module):
    """The decoder with its embeddings and its head; layers may stand on different devices.

    Args:
        config: sizes.
        attn: "sdpa", or "flash" for the flash-attn package.

    Raises:
        BackendMissingError: "flash" without the package.
    """

    def __init__(self, config: TextConfig, *, attn: AttentionKind = "sdpa") -> None:
        super().__init__()
        if attn == "flash":
            backends.require("flash_attn")
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, attn) for _ in range(config.num_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = (
            None
            if config.tie_embeddings
            else Linear(config.hidden_size, config.vocab_size, bias=False)
        )

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Where each layer stands, in order; what `KvCache` wants."""
        return tuple(_device_of(layer) for layer in self.layers)

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are stored and computed in."""
        return self.embed_tokens.weight.dtype

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (L, D) of token ids (L,)."""
        rows: torch.Tensor = self.embed_tokens(ids)
        return rows

    def forward(
        self,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        rows: Sequence[Row],
        cache: KvCache,
    ) -> torch.Tensor:
        """Run every layer over the rows, writing their keys and values into the cache.

        Args:
            hidden: (L, D) embeddings of text and visual tokens; left as they are.
            positions: (L,) real-valued; index / the request's position scale. The checkpoint's own
                scale (`TextConfig.rope_scale`) is applied here.
            rows: whose tokens they are; together they cover [0, L) in order.
            cache: where past keys stand and own keys go.

        Returns:
            (L, D) after the final norm, on the last device.

        Raises:
            ValueError: when the rows do not cover the hidden vectors, or positions are too few.
        """
        _check_rows(rows, hidden.shape[0], positions.shape[0])
        row_keys = [_row_keys(row) for row in rows]
        devices = self.devices
        tables = self._tables(positions, devices[0])
        hidden = hidden.to(devices[0])
        if not torch.is_grad_enabled():
            hidden = hidden.clone()  # layers add to it in place, and it is the caller's
        for layer_idx, layer in enumerate(self.layers):
            if hidden.device != devices[layer_idx]:
                hidden = hidden.to(devices[layer_idx])
                tables = (tables[0].to(hidden.device), tables[1].to(hidden.device))
            hidden = layer(hidden, tables, row_keys, cache, layer_idx)
        return self.norm(hidden.to(self.norm.weight.device))  # type: ignore[no-any-return]  # nn.Module

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the scores of every token after some hidden rows.

        Args:
            hidden: (n, D) of `forward`; only the rows that are asked for cost anything.

        Returns:
            (n, vocab_size) float32.
        """
        head = self.embed_tokens if self.lm_head is None else self.lm_head
        return linear(hidden.to(head.weight.device), head.weight).float()

    def _tables(
        self, positions: torch.Tensor, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        scaled = positions.to(device, torch.float64) / self.config.rope_scale
        return rope_tables(scaled, self.config.head_dim, self.config.rope_theta)


def _device_of(layer: nn.Module) -> torch.device:
    return next(layer.parameters()).device


def _stored(cache: KvCache, layer_idx: int, span: KvSpan) -> Span:
    return cache.keys(layer_idx, span), cache.values(layer_idx, span)


def _row_keys(row: Row) -> _RowKeys:
    is_single = row.stop - row.start == 1
    seen = _joined((*row.past, row.write) if is_single else row.past)
    return _RowKeys(row.start, row.stop, row.write, seen, is_seen=is_single)


def _joined(spans: Sequence[KvSpan]) -> tuple[KvSpan, ...]:
    """Join spans that touch, and leave out empty ones: fewer calls of attention per layer."""
    joined: list[KvSpan] = []
    for span in spans:
        last = joined[-1] if joined else None
        if last is not None and (last.slab_idx, last.stop) == (span.slab_idx, span.start):
            joined[-1] = KvSpan(last.slab_idx, last.start, span.stop)
        elif span.num_tokens:
            joined.append(span)
    return tuple(joined)


def _check_rows(rows: Sequence[Row], num_hidden: int, num_positions: int) -> None:
    stop = 0
    for row in rows:
        if row.start != stop:
            raise ValueError(f"a row starts at {row.start}, the one before ends at {stop}.")
        stop = row.stop
    if stop != num_hidden or num_positions != num_hidden:
        raise ValueError(f"{num_hidden} hidden rows, {stop} in rows, {num_positions} positions.")
