"""The first tokens of a stream -> their keys before rotation, to be stored again at any index.

The rotary embedding (`ops/rotation`) makes a score depend on the difference of two indices alone:
    (R_i q) . (R_j k) = q . R_(j - i) k,    R_i: rotation of a head by F i mod 2^64 turns
F i - F j = F (i - j) holds exactly in integers that wrap. So when the tokens between the first ones
and the rest leave, either all the rest is rotated back, or the first ones are rotated on: the
differences are the same. The first ones it is (dozens, where the rest are thousands), each time
anew from the keys as the layer made them: bit for bit, in any format, what a token that is written
at that index for the first time would store. Nothing is rotated twice, so nothing adds up.

Shapes: keys and values (S, Hkv, d) per layer, in the model's dtype: S x 57,344 bytes of a 7B in
bfloat16, kept beside the cache. Knows no sequence, no window and no frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from llava_video.errors import ConfigError
from llava_video.model.decoder import LanguageModel
from llava_video.model.dimensions import TextConfig
from llava_video.model.kv_cache import KvCache, KvSpan
from llava_video.model.step_keys import RowKeys
from llava_video.model.step_rows import Row, row_keys
from llava_video.ops.attention import AttentionKind
from llava_video.ops.rope import rotate_and_store
from llava_video.values import KvFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Sinks:
    """The first tokens of a stream, of every layer.

    Attributes:
        ids: the S tokens.
        keys: (S, Hkv, d) per layer, before rotation.
        values: the same.
        config: the decoder's sizes and frequencies.
        position_scale: positions are index / position_scale.
        kv_format: how they were stored where they saw each other, and will be.
    """

    ids: tuple[int, ...]
    keys: tuple[torch.Tensor, ...] = field(repr=False)
    values: tuple[torch.Tensor, ...] = field(repr=False)
    config: TextConfig
    position_scale: float
    kv_format: KvFormat

    @torch.inference_mode()
    def write(self, cache: KvCache, span: KvSpan, first_idx: int) -> None:
        """Store them as the tokens [first_idx, first_idx + S), as a step would that computes them.

        Args:
            cache: of the model's sizes, in which the span's slab has the format.
            span: S places.
            first_idx: index of the first of them.
        """
        keys = _keys(len(self.ids), span, first_idx, self.position_scale, self.config, self.keys[0])
        for layer_idx, (k, v) in enumerate(zip(self.keys, self.values, strict=True)):
            keys = keys.to(k.device)
            store = cache.store(layer_idx, span.slab_idx)
            # The op rotates queries too, of which there are none here: one head stands for them.
            rotate_and_store(k[:, :1].clone(), k.clone(), v, keys.rotation, store, keys.slots)


@torch.inference_mode()
def read_sinks(
    language_model: LanguageModel,
    ids: Sequence[int],
    *,
    position_scale: float = 1.0,
    kv_format: KvFormat = "plain",
) -> Sinks:
    """Compute the first tokens of a stream, in a cache of their own that is not kept.

    Args:
        language_model: the decoder; its angles have to be exact.
        ids: S token ids, at least one.
        position_scale: positions are index / position_scale.
        kv_format: how they will be stored; they attend to each other as stored.

    Raises:
        CapacityError: there is no memory for them.
        ConfigError: no ids, or the model's angles are the reference's.
    """
    if not ids:
        raise ConfigError("a stream without a first token.", "a prompt with words before frames.")
    if language_model.rope != "exact":
        raise ConfigError(
            f"rope = {language_model.rope!r}: its float32 angles are off by more the longer a "
            "stream lasts.",
            'load the model with rope="exact".',
        )
    config, num_tokens = language_model.config, len(ids)
    cache = KvCache(
        config.num_layers,
        config.num_kv_heads,
        config.head_dim,
        dtype=language_model.dtype,
        devices=language_model.devices,
        slab_tokens=num_tokens,
    )
    span = cache.reserve(num_tokens, kv_format).span
    hidden = language_model.embed(torch.tensor(ids)).to(language_model.devices[0])
    recorder = _Recorder(_keys(num_tokens, span, 0, position_scale, config, hidden), [], [])
    language_model.run(hidden, recorder, cache)
    return Sinks(
        ids=tuple(ids),
        keys=tuple(recorder.keys),
        values=tuple(recorder.values),
        config=config,
        position_scale=position_scale,
        kv_format=kv_format,
    )


@dataclass(frozen=True, slots=True)
class _Recorder:
    """The keys of a step that also copies what each layer brings to them."""

    inner: RowKeys
    keys: list[torch.Tensor]
    values: list[torch.Tensor]

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cache: KvCache,
        layer_idx: int,
        kind: AttentionKind,
    ) -> torch.Tensor:
        """See `StepKeys.attend`."""
        self.keys.append(k.clone())
        self.values.append(v.clone())
        return self.inner.attend(q, k, v, cache, layer_idx, kind)

    def to(self, device: torch.device) -> "_Recorder":
        """Return the same on another device, with the same copies."""
        return _Recorder(self.inner.to(device), self.keys, self.values)


def _keys(
    num_tokens: int,
    span: KvSpan,
    first_idx: int,
    position_scale: float,
    config: TextConfig,
    like: torch.Tensor,
) -> RowKeys:
    """Return the keys of tokens that see themselves alone, for a tensor's device."""
    idxs = torch.arange(first_idx, first_idx + num_tokens)
    rows = [Row(0, num_tokens, (), span)]
    return row_keys(idxs, rows, [position_scale], config, mode="exact", device=like.device)
