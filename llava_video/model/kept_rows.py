"""Rows of frames that were encoded before → the rows of a frame that shows the same.

A frame's rows depend on its pixels and its layout alone, so a camera's unchanged frames need the
vision tower once. Frames are told by the hash of their pixels; what is kept is bounded by bytes,
and what was not used for longest goes first. Knows no tower and no prompt.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator

import numpy as np
import torch

from llava_video.model.frame_rows import layout_of
from llava_video.values import Clip, VisualPlan

# Frames that wait for a full call of the tower, those whose rows are there among them.
_MOST_PENDING = 64

Make = Callable[[Iterator[tuple[int, Clip]]], Iterator[torch.Tensor]]


class KeptRows:
    """Rows by what their frame shows.

    Args:
        most_bytes: what they may take in all, on the device they were made on.

    Attributes:
        held_bytes: what they take.
        num_found: frames whose rows were there.
        num_made: frames that were encoded.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._rows: OrderedDict[Hashable, torch.Tensor] = OrderedDict()
        self.held_bytes = self.num_found = self.num_made = 0

    def __len__(self) -> int:
        return len(self._rows)

    def find(self, key: Hashable) -> torch.Tensor | None:
        """Return the rows of a frame, not to be written to; None when they are not kept."""
        rows = self._rows.get(key)
        if rows is not None:
            self._rows.move_to_end(key)
        return rows

    def keep(self, key: Hashable, rows: torch.Tensor) -> None:
        """Keep the rows of a frame; the tensor is ours from now on."""
        num_bytes = rows.numel() * rows.element_size()
        if num_bytes > self._most_bytes or key in self._rows:
            return
        self._rows[key] = rows
        self.held_bytes += num_bytes
        while self.held_bytes > self._most_bytes:
            _, oldest = self._rows.popitem(last=False)
            self.held_bytes -= oldest.numel() * oldest.element_size()

    def clear(self) -> None:
        """Let all of them go: the weights are others, or the memory is needed."""
        self._rows.clear()
        self.held_bytes = 0


def kept_or_made(
    plan: VisualPlan, frames: Iterator[Clip], kept: KeptRows, make: Make, at_once: int
) -> Iterator[torch.Tensor]:
    """Yield the rows of each frame, made only where they are not kept; a copy, the reader's own.

    Args:
        plan: the layout.
        frames: clips of one frame each.
        kept: rows of earlier frames; takes in those that are made.
        make: yields the rows of numbered frames, in order.
        at_once: frames that are made together.
    """
    pending: list[tuple[Hashable, torch.Tensor | None]] = []
    missing: dict[Hashable, tuple[int, Clip]] = {}
    for idx, frame in enumerate(frames):
        key = frame_key(frame, plan, idx)
        rows = kept.find(key)
        pending.append((key, rows))
        if rows is None:
            missing.setdefault(key, (idx, frame))
        if len(missing) >= at_once or len(pending) >= _MOST_PENDING:
            yield from _flushed(pending, missing, kept, make)
            pending, missing = [], {}
    yield from _flushed(pending, missing, kept, make)


def frame_key(frame: Clip, plan: VisualPlan, frame_idx: int) -> Hashable:
    """Return what names the rows of a frame: its pixels, how it is cut, and how it is laid out.

    Args:
        frame: one frame.
        plan: of its clip.
        frame_idx: which of the plan's frames it is.
    """
    pixels = np.ascontiguousarray(frame.frames)
    digest = hashlib.sha256(pixels.data).digest()
    layout = layout_of(plan, frame_idx)
    return (digest, pixels.shape, plan.kind, plan.fit, plan.overview, plan.pool_of, layout)


def _flushed(
    pending: list[tuple[Hashable, torch.Tensor | None]],
    missing: dict[Hashable, tuple[int, Clip]],
    kept: KeptRows,
    make: Make,
) -> Iterator[torch.Tensor]:
    made: dict[Hashable, torch.Tensor] = {}
    if missing:
        # A copy: the rows of a call are views of one memory, which one of them would keep alive.
        rows = (row.clone() for row in make(iter(missing.values())))
        made = dict(zip(missing, rows, strict=True))
    kept.num_made += len(made)
    kept.num_found += len(pending) - len(made)
    for key, rows_found in pending:
        yield (made[key] if rows_found is None else rows_found).clone()
    for key, rows_made in made.items():
        kept.keep(key, rows_made)
