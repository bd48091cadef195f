"""The three kinds of keys a step has: what its tokens write and see, used alike by every layer.

`RowKeys` serves any rows, prefill chunks and single tokens, by one call of attention for each.
`DecodeKeys` serves single tokens that see one slab alone, all in one call, and is made of tensors
only: what a CUDA graph captures. `SplitKeys` joins several, for a step that mixes them or writes to
several slabs. Knows no layer and no sequence; `step_rows.py` makes them.
"""

import dataclasses
from dataclasses import dataclass
from typing import Protocol, Self

import torch

from llava_video.model.kv_cache import KvCache, KvSpan
from llava_video.ops.attention import AttentionKind, attention
from llava_video.ops.decode_attention import decode_attention
from llava_video.ops.decode_work import DecodeWork
from llava_video.ops.rope import rotate_and_store
from llava_video.ops.rotation import Rotation


class StepKeys(Protocol):
    """Who attends to what in one step."""

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cache: KvCache,
        layer_idx: int,
        kind: AttentionKind,
    ) -> torch.Tensor:
        """Rotate queries and keys, store keys and values, and attend to what is stored.

        Args:
            q: (L, Hq, d), not to be used afterwards.
            k: (L, Hkv, d), not to be used afterwards.
            v: (L, Hkv, d).
            cache: takes the tokens' keys and values, gives the past's.
            layer_idx: whose.
            kind: the attention of chunks.

        Returns:
            (L, Hq, d).
        """
        ...

    def to(self, device: torch.device) -> "StepKeys":
        """Return the same for layers on another device."""
        ...


@dataclass(frozen=True, slots=True)
class Reader:
    """What one row reads: the places of `Row`, counted from the first token of its `RowKeys`.

    Attributes:
        start: first of its tokens.
        stop: one past the last.
        seen: spans that every token of it sees fully, neighbours joined to one.
        own: where its own keys are; None when they are among `seen`: a single token sees all of
            its own.
    """

    start: int
    stop: int
    seen: tuple[KvSpan, ...]
    own: KvSpan | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowKeys:
    """Rows that write to one slab, and see any.

    Attributes:
        slab_idx: where the L tokens write.
        slots: (L,) int64, the places in it.
        rotation: of the L tokens.
        readers: the rows, end to end over the L tokens.
    """

    slab_idx: int
    slots: torch.Tensor
    rotation: Rotation
    readers: tuple[Reader, ...]

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
        store = cache.store(layer_idx, self.slab_idx)
        q = rotate_and_store(q, k, v, self.rotation, store, self.slots)
        outs: list[torch.Tensor] = []
        for reader in self.readers:
            # What was written is read back: a cache that rounds gives every chunking one answer.
            past = [cache.stored(layer_idx, span) for span in reader.seen]
            own = None if reader.own is None else cache.stored(layer_idx, reader.own)
            own_q = q[reader.start : reader.stop]
            outs.append(attention(own_q, past, own, q.shape[2] ** -0.5, kind=kind))
        return outs[0] if len(outs) == 1 else torch.cat(outs)

    def to(self, device: torch.device) -> Self:
        """Return the same on another device."""
        slots, rotation = self.slots.to(device), self.rotation.to(device)
        return dataclasses.replace(self, slots=slots, rotation=rotation)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeKeys:
    """Single tokens of several sequences that write to one slab and see nothing else.

    A step of them reads nothing but tensors and never waits for the device, so a CUDA graph may
    capture it and be replayed after `copy_` has overwritten these tensors by those of another step
    with as many rows and items.

    Attributes:
        slab_idx: the slab.
        slots: (R,) int64, where each token is written.
        rotation: of the R tokens, each with a row of frequencies of its own.
        work: what each token sees, its own place included.
    """

    slab_idx: int
    slots: torch.Tensor
    rotation: Rotation
    work: DecodeWork

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cache: KvCache,
        layer_idx: int,
        kind: AttentionKind,
    ) -> torch.Tensor:
        """See `StepKeys.attend`; whatever the kind, one kernel reads the whole slab."""
        store = cache.store(layer_idx, self.slab_idx)
        q = rotate_and_store(q, k, v, self.rotation, store, self.slots)
        return decode_attention(q, store, self.work, q.shape[2] ** -0.5)

    def to(self, device: torch.device) -> Self:
        """Return the same on another device."""
        slots, rotation = self.slots.to(device), self.rotation.to(device)
        return dataclasses.replace(self, slots=slots, rotation=rotation, work=self.work.to(device))

    def copy_(self, keys: "DecodeKeys") -> None:
        """Overwrite these tensors by those of another step, in the memory a graph reads.

        Args:
            keys: of the same slab, rows and items.

        Raises:
            ValueError: when they are not.
        """
        own = (self.slab_idx, len(self.slots), self.work.num_items)
        other = (keys.slab_idx, len(keys.slots), keys.work.num_items)
        if own != other:
            raise ValueError(f"slab, rows and items {other} over {own}.")
        self.slots.copy_(keys.slots, non_blocking=True)
        self.rotation.copy_(keys.rotation)
        self.work.copy_(keys.work)


@dataclass(frozen=True, slots=True)
class SplitKeys:
    """Several kinds or slabs, each with its consecutive share of the tokens.

    Attributes:
        parts: first token, one past the last, and their keys; end to end.
    """

    parts: tuple[tuple[int, int, StepKeys], ...]

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
        return torch.cat(
            [
                keys.attend(q[start:stop], k[start:stop], v[start:stop], cache, layer_idx, kind)
                for start, stop, keys in self.parts
            ]
        )

    def to(self, device: torch.device) -> Self:
        """Return the same on another device."""
        parts = tuple((start, stop, keys.to(device)) for start, stop, keys in self.parts)
        return dataclasses.replace(self, parts=parts)
