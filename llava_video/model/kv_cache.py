"""One arena of key and value memory for all sequences: slabs, and counted extents within them.

A slab is a run of token places in every layer, stored in one format; an extent is a contiguous
reservation in one slab, shared by counting its owners. Bytes of a token of a 7B (28 layers of 4
heads of 128 channels): 57,344 plain in bfloat16, 29,120 in int8, 16,128 in int4. Knows no sequence,
no position and no scheduler, and is not thread-safe: the engine calls it in its turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from llava_video.errors import CapacityError, ConfigError
from llava_video.model.memory import is_out_of_memory
from llava_video.ops.kv_format import StoredKv, empty_stored, group_channels
from llava_video.values import KvFormat


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

    def __init__(self, layers: list[StoredKv], *, is_kept: bool) -> None:
        self.layers = layers
        self.num_tokens = layers[0].num_tokens
        self.kv_format = layers[0].kv_format
        self.is_kept = is_kept
        self.free: list[tuple[int, int]] = [(0, self.num_tokens)]

    @property
    def num_free(self) -> int:
        return sum(stop - start for start, stop in self.free)

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
        dtype: what plain keys and values are stored in.
        devices: where each layer's keys and values stand; one per layer, or one for all.
        slab_tokens: places of an ordinary slab; a longer reservation gets a slab of its own.
        limit_bytes: most memory of all slabs, and of what is set aside, together; None for no limit
            but the device's.

    Attributes:
        aside_bytes: what of the limit is left to others than slabs.

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
        limit_bytes: int | None = None,
    ) -> None:
        if len(devices) not in (1, num_layers):
            raise ConfigError(
                f"devices has {len(devices)} entries for {num_layers} layers.",
                "give one device per layer, or one for all.",
            )
        if slab_tokens < 1 or (limit_bytes is not None and limit_bytes < 1):
            raise ConfigError(
                f"slab_tokens = {slab_tokens}, limit_bytes = {limit_bytes}.", "at least 1 each."
            )
        self.num_layers = num_layers
        self.num_kv_heads = num_kv_heads
        self.head_dim = head_dim
        self.dtype = dtype
        self.devices = tuple(devices) if len(devices) == num_layers else (*devices,) * num_layers
        self.slab_tokens = slab_tokens
        self.limit_bytes = limit_bytes
        self.aside_bytes = 0
        self._slabs: dict[int, _Slab] = {}
        self._owners: dict[int, int] = {}
        self._num_slabs_made = 0
        self._num_extents_made = 0

    @property
    def held_tokens(self) -> int:
        """Token places of all slabs, free or not."""
        return sum(slab.num_tokens for slab in tuple(self._slabs.values()))

    @property
    def used_tokens(self) -> int:
        """Token places reserved now."""
        return sum(slab.num_tokens - slab.num_free for slab in tuple(self._slabs.values()))

    @property
    def held_bytes(self) -> int:
        """Memory of all slabs."""
        slabs = tuple(self._slabs.values())
        return sum(slab.num_tokens * self.token_bytes(slab.kv_format) for slab in slabs)

    @property
    def used_bytes(self) -> int:
        """Memory of the places reserved now."""
        slabs = tuple(self._slabs.values())
        used = ((slab.num_tokens - slab.num_free, slab.kv_format) for slab in slabs)
        return sum(num_tokens * self.token_bytes(kv_format) for num_tokens, kv_format in used)

    def token_bytes(self, kv_format: KvFormat) -> int:
        """Return the bytes of one token in all layers, keys, values and their scales."""
        head_bytes = {
            "plain": self.head_dim * self.dtype.itemsize,
            "int8": self.head_dim + 2,
            "int4": self.head_dim // 2 + 4 * (self.head_dim // group_channels(self.head_dim)),
        }
        return 2 * self.num_layers * self.num_kv_heads * head_bytes[kv_format]

    def preallocate(self, num_tokens: int, kv_format: KvFormat = "plain") -> int:
        """Make a slab that stays, so that all it will hold stands behind one pointer per layer.

        Args:
            num_tokens: its places, > 0.
            kv_format: how they are stored.

        Returns:
            The slab's number.

        Raises:
            CapacityError: when the limit or the memory does not allow it.
            ConfigError: when `num_tokens` is not positive.
        """
        _check_positive(num_tokens)
        return self._make_slab(num_tokens, num_tokens, kv_format, is_kept=True)

    def reserve(
        self,
        num_tokens: int,
        kv_format: KvFormat = "plain",
        *,
        near: int | None = None,
        wanted_tokens: int = 0,
    ) -> Extent:
        """Reserve contiguous places, with one owner.

        Args:
            num_tokens: how many, > 0.
            kv_format: how they are stored.
            near: the slab to take them from if it has so many; else it is the first that has.
            wanted_tokens: places of a slab made for them, if there is memory for so many.

        Raises:
            CapacityError: when the limit or the memory does not allow it.
            ConfigError: when `num_tokens` is not positive.
        """
        _check_positive(num_tokens)
        for slab_idx in sorted(self._slabs, key=lambda idx: idx != near):  # others stay in order
            slab = self._slabs[slab_idx]
            start = slab.take(num_tokens) if slab.kv_format == kv_format else None
            if start is not None:
                return self._extent(slab_idx, start, num_tokens)
        wanted = max(num_tokens, self.slab_tokens, wanted_tokens)
        slab_idx = self._make_slab(num_tokens, wanted, kv_format, is_kept=False)
        self._slabs[slab_idx].take(num_tokens)
        return self._extent(slab_idx, 0, num_tokens)

    def set_aside(self, num_bytes: int) -> None:
        """Leave so many bytes of the limit to others than slabs, in place of what it was before.

        Raises:
            CapacityError: slabs that hold something take them; what it was before stays.
        """
        if self.limit_bytes is not None and num_bytes > self.aside_bytes:
            self.trim()
            if self.held_bytes + num_bytes > self.limit_bytes:
                raise CapacityError(
                    f"{num_bytes} bytes beside the cache, which holds {self.held_bytes} of "
                    f"{self.limit_bytes}.",
                    "wait for other requests, plan fewer tokens, or raise the cache's limit.",
                )
        self.aside_bytes = num_bytes

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
        """Give back the memory of slabs that hold nothing, save preallocated ones."""
        for slab_idx, slab in tuple(self._slabs.items()):
            if slab.is_empty and not slab.is_kept:
                del self._slabs[slab_idx]

    def has_slab(self, slab_idx: int) -> bool:
        """Whether a slab is still there; numbers are never used again."""
        return slab_idx in self._slabs

    def format_of(self, span: KvSpan) -> KvFormat:
        """Return how the tokens of a span are stored."""
        return self._slabs[span.slab_idx].kv_format

    def store(self, layer_idx: int, slab_idx: int) -> StoredKv:
        """Return a whole slab's keys and values of one layer, to be written by token place."""
        return self._slabs[slab_idx].layers[layer_idx]

    def stored(self, layer_idx: int, span: KvSpan) -> StoredKv:
        """Return a span's keys and values of one layer, as views."""
        return self.store(layer_idx, span.slab_idx).part(span.start, span.stop)

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

    def _make_slab(
        self, num_tokens: int, wanted: int, kv_format: KvFormat, *, is_kept: bool
    ) -> int:
        """Make a slab of the wanted places, or fewer but `num_tokens` where a limit cuts it.

        Empty slabs, all too short or of another format, make room for it.
        """
        self.trim()
        token_bytes = self.token_bytes(kv_format)
        if self.limit_bytes is not None:
            room_bytes = max(0, self.limit_bytes - self.aside_bytes - self.held_bytes)
            if room_bytes < num_tokens * token_bytes:
                raise CapacityError(
                    f"{num_tokens} tokens of {kv_format} cache need {num_tokens * token_bytes} "
                    f"bytes, {room_bytes} of {self.limit_bytes} are free.",
                    "wait for other requests, plan fewer tokens, or raise the cache's limit.",
                )
            wanted = min(wanted, room_bytes // token_bytes)
        try:
            slab = self._new_slab(wanted, kv_format, is_kept=is_kept)
        except CapacityError:
            if wanted == num_tokens:
                raise
            slab = self._new_slab(num_tokens, kv_format, is_kept=is_kept)
        slab_idx = self._num_slabs_made
        self._num_slabs_made += 1
        self._slabs[slab_idx] = slab
        return slab_idx

    def _new_slab(self, num_tokens: int, kv_format: KvFormat, *, is_kept: bool) -> _Slab:
        try:
            return _Slab(self._new_layers(num_tokens, kv_format), is_kept=is_kept)
        except (MemoryError, RuntimeError) as cause:  # torch.OutOfMemoryError is one
            if not is_out_of_memory(cause):
                raise
            raise CapacityError(
                f"no memory for {num_tokens} tokens of {kv_format} cache "
                f"({num_tokens * self.token_bytes(kv_format)} bytes).",
                "plan fewer tokens, a coarser pool stride or cache, or a smaller model.",
            ) from cause

    def _new_layers(self, num_tokens: int, kv_format: KvFormat) -> list[StoredKv]:
        # Ordinary tensors even under inference mode, so that any caller may write to them later.
        with torch.inference_mode(mode=False):
            return [
                empty_stored(
                    num_tokens,
                    self.num_kv_heads,
                    self.head_dim,
                    kv_format=kv_format,
                    dtype=self.dtype,
                    device=device,
                )
                for device in self.devices
            ]


def _check_positive(num_tokens: int) -> None:
    if num_tokens < 1:
        raise ConfigError(f"num_tokens = {num_tokens}.", "at least 1.")
