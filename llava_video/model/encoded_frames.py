"""Frames that were encoded -> their rows again: a store of bounded bytes, by what the frame shows.

A frame's rows depend on its pixels and on how they are cut and pooled alone (LLaVA-Mini's apart,
which are fused with the prompt), so a frame that a later clip shows again need not pass the tower.
Equal means equal pixels, all of them: a digest of the whole frame (BLAKE2b, 160 bits, about 1 GB/s;
6 ms for 1080p) beside its size and layout. What is given back are the very rows that were made the
first time, bit for bit; made again among other frames they could differ in the last digit, as any
two batchings do.

Bytes of a frame of 210 rows in bfloat16: 376 kB at 0.5B (896 channels), 1.5 MB at 7B (3,584). The
least recently used frame goes first. Knows no tower; not for two threads at once, save the counts.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import torch

from llava_video.errors import ConfigError
from llava_video.model.frame_rows import layout_of
from llava_video.values import Clip, VisualPlan

_DIGEST_BYTES = 20


class EncodedFrames:
    """Rows of frames that were seen lately, of one model.

    Args:
        most_bytes: what all rows may take; a frame that is larger alone is not kept.

    Attributes:
        num_hits: frames whose rows were there.
        num_misses: frames that were encoded.
        held_bytes: what all rows take now.

    Raises:
        ConfigError: not a positive size.
    """

    def __init__(self, most_bytes: int) -> None:
        if most_bytes < 1:
            raise ConfigError(f"most_bytes = {most_bytes}.", "at least 1; without a store, None.")
        self.num_hits = self.num_misses = self.held_bytes = 0
        self._most_bytes = most_bytes
        self._rows: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def reused_share(self) -> float:
        """Hits of all frames, 0..1; 0 before the first frame."""
        return self.num_hits / max(1, self.num_hits + self.num_misses)

    def rows_of(
        self, keys: Sequence[bytes], encode: Callable[[list[int]], list[torch.Tensor]]
    ) -> list[torch.Tensor]:
        """Return the rows of some frames; those that are not here are encoded, equal ones once.

        Args:
            keys: of `frame_key`.
            encode: places among the keys, ascending → the rows (n, D) of those frames. Nothing is
                counted or kept when it raises.

        Returns:
            (n, D) for each key; to be read only.
        """
        found = {key: self._rows[key] for key in keys if key in self._rows}
        places: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            if key not in found:
                places.setdefault(key, place)
        if places:
            found.update(zip(places, encode(list(places.values())), strict=True))
        self.num_misses += len(places)
        self.num_hits += len(keys) - len(places)
        for key in dict.fromkeys(keys):
            self._keep(key, found[key])
        return [found[key] for key in keys]

    def clear(self) -> None:
        """Let go of all rows; the counts stay."""
        self._rows.clear()
        self.held_bytes = 0

    def _keep(self, key: bytes, rows: torch.Tensor) -> None:
        if key in self._rows:
            self._rows.move_to_end(key)
        elif rows.nbytes <= self._most_bytes:
            self._rows[key] = rows.clone()  # a view would hold all of its call's rows
            self.held_bytes += rows.nbytes
            while self.held_bytes > self._most_bytes:
                _, gone = self._rows.popitem(last=False)
                self.held_bytes -= gone.nbytes


def frame_key(frame: Clip, plan: VisualPlan, frame_idx: int) -> bytes:
    """Name the rows of a frame: equal keys mean equal pixels, cut and pooled alike.

    Args:
        frame: a clip of one frame.
        plan: of the whole item.
        frame_idx: which of its frames it is, from 0; only its layout counts.
    """
    layout = (layout_of(plan, frame_idx), plan.fit, plan.overview, plan.pool_of)
    words = repr((layout, frame.frames.shape)).encode()
    pixels = np.ascontiguousarray(frame.frames)
    return hashlib.blake2b(pixels.data, digest_size=_DIGEST_BYTES, person=b"frame").digest() + (
        hashlib.blake2b(words, digest_size=_DIGEST_BYTES, person=b"layout").digest()
    )
