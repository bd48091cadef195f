"""One arena of key and value memory for all sequences: slabs, and counted extents within them.

A slab is a run of token places in every layer; an extent is a contiguous reservation in one slab,
shared by counting its owners. Knows no sequence, no position and no scheduler, and is not
thread-safe: the engine calls it under its own lock.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llava_video.errors import CapacityError, ConfigError
from llava_video.model.memory import is_out_of_memory


@dataclass(frozen=True, slots=True)
class KvSpan:
    """A half-open run of token places [start, stop) in one slab."""

    slab_idx: int
    start: int
    stop: int

    @property
    def num_tokens(self) -> int:
        """Token places in the span."""
        return self.stop - self.start

    def part(self, start: int, stop: int) -> "KvSpan":
        """Return the places [start, stop) counted from this span's first place.

        Raises:
            ValueError: when they do not lie within the span.
        """
        if not 0 <= start <= stop <= self.num_tokens:
            raise ValueError(f"places [{start}, {stop}) of a span of {self.num_tokens}.")
        return KvSpan(self.slab_idx, self.start + start, self.start + stop)


@dataclass(frozen=True, slots=True)
class Extent:
    """A reservation: its own number, never used again, and the places it holds."""

    extent_id: int
    span: KvSpan

    @property
    def num_tokens(self) -> int:
        """Token places reserved."""
        return self.span.num_tokens


class _Slab:
    """Keys and values of `num_tokens` places in every layer, and which of them are free."""

    def __init__(
        self,
        num_tokens: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        devices: Sequence[torch.device],
    ) -> None:
        self.num_tokens = num_tokens
        self.free: list[tuple[int, int]] = [(0, num_tokens)]
        shape = (2, num_tokens, num_kv_heads, head_dim)
        # Ordinary tensors even under inference mode, so that any caller may write to them later.
        with torch.inference_mode(mode=False):
            pairs = [torch.empty(shape, dtype=dtype, device=device) for device in devices]
            # Token-major in memory, so one write is one run; seen as (Hkv, n, d) by attention.
            self.keys = [pair[0].transpose(0, 1) for pair in pairs]
            self.values = [pair[1].transpose(0, 1) for pair in pairs]

    @property
    def is_empty(self) -> bool:
        return self.free == [(0, self.num_tokens)]

    def take(self, num_tokens: int) -> int | None:
        """Take the first free run that is long enough; return its start, or None."""
        for idx, (start, stop) in enumerate(self.free):
            if stop - start >= num_tokens:
                rest = (start + num_tokens, stop)
                self.free[idx : idx + 1] = [rest] if rest[0] < stop else []
                return start
        return None

    def give(self, start: int, stop: int) -> None:
        """Return a run to the free list, joined with its neighbours."""
        joined: list[tuple[int, int]] = []
        for run in sorted([*self.free, (start, stop)]):
            if joined and joined[-1][1] == run[0]:
                joined[-1] = (joined[-1][0], run[1])
            else:
                joined.append(run)
        self.free = joined


class KvCache:
    """Keys and values of every sequence, in slabs that are made when they are needed.

    Args:
        num_layers: decoder layers.
        num_kv_heads: key and value heads.
        head_dim: channels of one head.
        dtype: what is stored.
        devices: where each layer's keys and values stand; one per layer, or one for all.
        slab_tokens: places of an ordinary slab; a longer reservation gets a slab of its own.
        limit_tokens: most places of all slabs together; None for no limit but the memory.

    Raises:
        ConfigError: when the sizes are not positive or `devices` does not match.
    """

    def __init__(
        self,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        *,
        dtype: torch.dtype,
        devices: Sequence[torch.device],
        slab_tokens: int,
        limit_tokens: int | None = None,
    ) -> None:
        if len(devices) not in (1, num_layers):
            raise ConfigError(
                f"devices has {len(devices)} entries for {num_layers} layers.",
                "give one device per layer, or one for all.",
            )
        if slab_tokens < 1 or (limit_tokens is not None and limit_tokens < 1):
            raise ConfigError(
                f"slab_tokens = {slab_tokens}, limit_tokens = {limit_tokens}.", "at least 1 each."
            )
        self.num_layers = num_layers
        self.num_kv_heads = num_kv_heads
        self.head_dim = head_dim
        self.dtype = dtype
        self.devices = tuple(devices) if len(devices) == num_layers else (*devices,) * num_layers
        self.slab_tokens = slab_tokens
        self.limit_tokens = limit_tokens
        self._slabs: dict[int, _Slab] = {}
        self._owners: dict[int, int] = {}
        self._num_slabs_made = 0
        self._num_extents_made = 0

    @property
    def token_bytes(self) -> int:
        """Bytes of one token in all layers, keys and values."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * self.dtype.itemsize

    @property
    def held_tokens(self) -> int:
        """Token places of all slabs, free or not."""
        return sum(slab.num_tokens for slab in self._slabs.values())

    @property
    def used_tokens(self) -> int:
        """Token places reserved now."""
        free = sum(stop - start for slab in self._slabs.values() for start, stop in slab.free)
        return self.held_tokens - free

    def reserve(self, num_tokens: int) -> Extent:
        """Reserve contiguous places, with one owner.

        Args:
            num_tokens: how many, > 0.

        Raises:
            CapacityError: when the limit or the memory does not allow it.
            ConfigError: when `num_tokens` is not positive.
        """
        if num_tokens < 1:
            raise ConfigError(f"num_tokens = {num_tokens}.", "at least 1.")
        for slab_idx, slab in self._slabs.items():
            start = slab.take(num_tokens)
            if start is not None:
                return self._extent(slab_idx, start, num_tokens)
        slab_idx = self._make_slab(num_tokens)
        self._slabs[slab_idx].take(num_tokens)
        return self._extent(slab_idx, 0, num_tokens)

    def retain(self, extent: Extent) -> None:
        """Count one more owner of an extent.

        Raises:
            ValueError: when it was released already.
        """
        self._owners[extent.extent_id] = self._count(extent) + 1

    def release(self, extent: Extent) -> None:
        """Count one owner less; the last one gives the places back.

        Raises:
            ValueError: when it was released already.
        """
        count = self._count(extent) - 1
        if count:
            self._owners[extent.extent_id] = count
            return
        del self._owners[extent.extent_id]
        self._slabs[extent.span.slab_idx].give(extent.span.start, extent.span.stop)

    def trim(self) -> None:
        """Give back the memory of slabs that hold nothing."""
        for slab_idx in [idx for idx, slab in self._slabs.items() if slab.is_empty]:
            del self._slabs[slab_idx]

    def keys(self, layer_idx: int, span: KvSpan) -> torch.Tensor:
        """Return the keys of a span as a view (Hkv, n, d)."""
        return self._slabs[span.slab_idx].keys[layer_idx][:, span.start : span.stop]

    def values(self, layer_idx: int, span: KvSpan) -> torch.Tensor:
        """Return the values of a span as a view (Hkv, n, d)."""
        return self._slabs[span.slab_idx].values[layer_idx][:, span.start : span.stop]

    def write(self, layer_idx: int, span: KvSpan, k: torch.Tensor, v: torch.Tensor) -> None:
        """Store keys and values in a span.

        Args:
            layer_idx: which layer.
            span: n places.
            k: (Hkv, n, d), rotated.
            v: (Hkv, n, d).
        """
        slab = self._slabs[span.slab_idx]
        slab.keys[layer_idx][:, span.start : span.stop] = k
        slab.values[layer_idx][:, span.start : span.stop] = v

    def _extent(self, slab_idx: int, start: int, num_tokens: int) -> Extent:
        extent = Extent(self._num_extents_made, KvSpan(slab_idx, start, start + num_tokens))
        self._num_extents_made += 1
        self._owners[extent.extent_id] = 1
        return extent

    def _count(self, extent: Extent) -> int:
        count = self._owners.get(extent.extent_id)
        if count is None:
            raise ValueError(f"extent {extent.extent_id} was released already.")
        return count

    def _make_slab(self, num_tokens: int) -> int:
        """Make a slab with room for `num_tokens`; empty ones, all too short, make room for it."""
        self.trim()
        wanted = max(num_tokens, self.slab_tokens)
        if self.limit_tokens is not None:
            room = self.limit_tokens - self.held_tokens
            if room < num_tokens:
                raise CapacityError(
                    f"{num_tokens} tokens asked of the cache, {room} of {self.limit_tokens} free.",
                    "wait for other requests, plan fewer tokens, or raise the cache's limit.",
                )
            wanted = min(wanted, room)
        try:
            slab = _Slab(wanted, self.num_kv_heads, self.head_dim, self.dtype, self.devices)
        except (MemoryError, RuntimeError) as cause:  # torch.OutOfMemoryError is one
            if not is_out_of_memory(cause):
                raise
            num_bytes = wanted * self.token_bytes
            raise CapacityError(
                f"no memory for {wanted} tokens of cache ({num_bytes} bytes).",
                "plan fewer tokens, a coarser pool stride, or a smaller model.",
            ) from cause
        slab_idx = self._num_slabs_made
        self._num_slabs_made += 1
        self._slabs[slab_idx] = slab
        return slab_idx
