"""The cache's bookkeeping, made safe to call from any thread and from a finalizer.

`KvCache` counts owners and free places without a lock. Answers are kept and released by callers'
threads while another runs a step, so the calls that count are guarded here. An
extent can also give back its end. Knows no sequence.
"""

import threading
from collections import deque
from typing import Any

from llava_video.model.kv_cache import Extent, KvCache
from llava_video.values import KvFormat


class Arena(KvCache):
    """A `KvCache` that several threads may reserve in and give back to; arguments are the same."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._guard = threading.Lock()
        self._due: deque[Extent] = deque()
        self._shrunk: dict[int, Extent] = {}

    def preallocate(self, num_tokens: int, kv_format: KvFormat = "plain") -> int:
        """Make a slab that stays; see `KvCache.preallocate`."""
        self._give_back()
        with self._guard:
            slab_idx = super().preallocate(num_tokens, kv_format)
        self._give_back()
        return slab_idx

    def reserve(
        self,
        num_tokens: int,
        kv_format: KvFormat = "plain",
        *,
        near: int | None = None,
        wanted_tokens: int = 0,
    ) -> Extent:
        """Reserve contiguous places; see `KvCache.reserve`."""
        self._give_back()
        with self._guard:
            extent = super().reserve(num_tokens, kv_format, near=near, wanted_tokens=wanted_tokens)
        self._give_back()
        return extent

    def set_aside(self, num_bytes: int) -> None:
        """Leave a part of the limit to others; see `KvCache.set_aside`."""
        self._give_back()
        with self._guard:
            super().set_aside(num_bytes)
        self._give_back()

    def retain(self, extent: Extent) -> None:
        """Count one more owner; see `KvCache.retain`."""
        with self._guard:
            super().retain(extent)
        self._give_back()

    def release(self, extent: Extent) -> None:
        """Count one owner less; see `KvCache.release`."""
        # A finalizer may run inside any of these calls, in their own thread: waiting for the guard
        # would wait for ever. What cannot be given back now, the guard's holder gives back.
        self._due.append(extent)
        self._give_back()

    def shrink(self, extent: Extent, num_tokens: int) -> None:
        """Give back all places of an extent but the first; its owners stay.

        Args:
            extent: as it was reserved.
            num_tokens: places that stay, > 0 and at most those there are.
        """
        with self._guard:
            span = self._shrunk.get(extent.extent_id, extent).span
            kept = span.part(0, num_tokens)
            if kept.stop < span.stop:
                self._slabs[span.slab_idx].give(kept.stop, span.stop)
                self._shrunk[extent.extent_id] = Extent(extent.extent_id, kept)
        self._give_back()

    def free_empty_slabs(self) -> None:
        """Give back the memory of slabs that hold nothing; see `KvCache.trim`."""
        with self._guard:
            super().trim()
        self._give_back()

    def _give_back(self) -> None:
        while self._due and self._guard.acquire(blocking=False):
            try:
                while self._due:
                    extent = self._due.popleft()
                    super().release(self._shrunk.get(extent.extent_id, extent))
                    if extent.extent_id not in self._owners:
                        self._shrunk.pop(extent.extent_id, None)
                if not self._owners:
                    super().trim()  # idle: other programs may have the memory
            finally:
                self._guard.release()
