"""The language model: hidden rows, their positions and a cache -> hidden rows, and logits.

Pre-norm decoder layers with grouped attention, rotary positions and a gated MLP: Llama, Mistral,
Yi, Qwen1.5, Qwen2. Rows of several sequences stand one after another without padding; who they
belong to, and where their keys go, comes in as `Row`s, or ready for the layers as `StepKeys`. Knows
no tokenizer, no sequence and no loop.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from llava_video import backends
from llava_video.model.dimensions import TextConfig
from llava_video.model.kv_cache import KvCache
from llava_video.model.layers import Linear, RmsNorm, add_residual, for_products
from llava_video.model.step_keys import StepKeys
from llava_video.model.step_rows import Row, step_keys
from llava_video.ops.activation import gated_silu
from llava_video.ops.attention import AttentionKind
from llava_video.ops.linear import linear
from llava_video.ops.rotation import RotationMode


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
        self, hidden: torch.Tensor, keys: StepKeys, cache: KvCache, layer_idx: int
    ) -> torch.Tensor:
        """Return the hidden rows after this layer; without gradients, in their own memory.

        Args:
            hidden: (L, D).
            keys: what each row writes and sees.
            cache: takes the rows' keys and values, gives the past's.
            layer_idx: this layer's place in the cache.
        """
        hidden = add_residual(hidden, self._attend(self.input_norm(hidden), keys, cache, layer_idx))
        normed = for_products(self.post_norm(hidden))
        gated = gated_silu(self.gate_proj(normed), self.up_proj(normed))
        return add_residual(hidden, self.down_proj(gated))

    def _attend(
        self, normed: torch.Tensor, keys: StepKeys, cache: KvCache, layer_idx: int
    ) -> torch.Tensor:
        normed = for_products(normed)
        heads = (normed.shape[0], -1, self.head_dim)
        q = self.q_proj(normed).view(heads)  # (L, Hq, d)
        k = self.k_proj(normed).view(heads)  # (L, Hkv, d)
        v = self.v_proj(normed).view(heads)
        out = keys.attend(q, k, v, cache, layer_idx, self.attn)
        attended: torch.Tensor = self.o_proj(out.flatten(1))
        return attended


class LanguageModel(nn.Module):
    """The decoder with its embeddings and its head; layers may stand on different devices.

    Args:
        config: sizes.
        attn: "sdpa", or "flash" for the flash-attn package.
        rope: "exact", or "compat" for the reference's float32 angles. May be set later, before the
            first token.

    Raises:
        BackendMissingError: "flash" without the package.
    """

    def __init__(
        self, config: TextConfig, *, attn: AttentionKind = "sdpa", rope: RotationMode = "exact"
    ) -> None:
        super().__init__()
        if attn == "flash":
            backends.require("flash_attn")
        self.config = config
        self.rope = rope
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
        idxs: torch.Tensor,
        rows: Sequence[Row],
        cache: KvCache,
        scales: Sequence[float] | None = None,
    ) -> torch.Tensor:
        """Run every layer over the rows, writing their keys and values into the cache.

        Args:
            hidden: (L, D) embeddings of text and visual tokens; left as they are.
            idxs: (L,) int64 indices of the tokens in their sequences, on the CPU.
            rows: whose tokens they are; together they cover [0, L) in order.
            cache: where past keys stand and own keys go.
            scales: position = index / scale, one scale per row; None for 1. The checkpoint's own
                scale (`TextConfig.rope_scale`) comes on top.

        Returns:
            (L, D) after the final norm, on the last device.

        Raises:
            ValueError: when the rows do not cover the hidden vectors, or indices or scales are too
                few.
        """
        scales = (1.0,) * len(rows) if scales is None else scales
        _check_rows(rows, hidden.shape[0], idxs.shape[0], len(scales))
        device = self.devices[0]
        keys = step_keys(idxs, rows, scales, self.config, mode=self.rope, device=device)
        moved = hidden.to(device)
        if moved is hidden and not torch.is_grad_enabled():
            moved = hidden.clone()  # layers add to it in place, and it is the caller's
        return self.run(moved, keys, cache)

    def run(self, hidden: torch.Tensor, keys: StepKeys, cache: KvCache | None) -> torch.Tensor:
        """Run every layer over a step whose keys are made already.

        With `DecodeKeys` and all layers on one GPU this launches kernels and does nothing else: it
        reads no tensor on the host and waits for nothing, the shapes of its work follow from those
        of `hidden` and `keys`, and memory is asked of the allocator alone. So a CUDA graph may
        capture `embed`, `run` and `logits` together, and be replayed as long as the keys' slab is
        there, after ids and keys (`DecodeKeys.copy_`) were overwritten in place.

        Args:
            hidden: (L, D) on any device; without gradients overwritten.
            keys: of `step_keys` or `decode_keys`, for the first layer's device.
            cache: where past keys stand and own keys go; None for keys that store nothing.

        Returns:
            (L, D) after the final norm, on the last device.
        """
        devices = self.devices
        hidden = hidden.to(devices[0])
        for layer_idx, layer in enumerate(self.layers):
            if hidden.device != devices[layer_idx]:
                hidden = hidden.to(devices[layer_idx])
                keys = keys.to(hidden.device)
            hidden = layer(hidden, keys, cache, layer_idx)
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


def _device_of(layer: nn.Module) -> torch.device:
    return next(layer.parameters()).device


def _check_rows(rows: Sequence[Row], num_hidden: int, num_idxs: int, num_scales: int) -> None:
    stop = 0
    for row in rows:
        if row.start != stop:
            raise ValueError(f"a row starts at {row.start}, the one before ends at {stop}.")
        stop = row.stop
    if stop != num_hidden or num_idxs != num_hidden or num_scales != len(rows):
        raise ValueError(
            f"{num_hidden} hidden rows, {stop} in {len(rows)} rows, {num_idxs} indices, "
            f"{num_scales} scales."
        )
