"""What single tokens attend to -> items of work for the programs of a kernel.

An item is some consecutive tokens of one slab that one row's query attends to. A long row is cut
into many, so that every multiprocessor has a part of it; a graph is captured with a fixed number of
items, and the empty ones among them weigh nothing. Knows no attention.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

_LEAST_SPLIT_TOKENS: Final = 128
_BLOCK_TOKENS: Final = 64  # items are whole blocks of the kernel
_PROGRAM_SHARED_BYTES: Final = 40 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeWork:
    """Which tokens of one slab each row's query attends to, cut into items of work.

    Attributes:
        items: (W, 3) int32: row, first slot, one past the last; start == stop weighs nothing.
        row_items: (R + 1,) int32: the items of row r are [row_items[r], row_items[r + 1]); items
            beyond the last belong to no row.
    """

    items: torch.Tensor
    row_items: torch.Tensor

    @property
    def num_items(self) -> int:
        """Items, the empty ones included."""
        return self.items.shape[0]

    @property
    def num_rows(self) -> int:
        """Rows, those without tokens included."""
        return self.row_items.shape[0] - 1

    def to(self, device: torch.device) -> "DecodeWork":
        """Return the same work on another device."""
        return DecodeWork(items=self.items.to(device), row_items=self.row_items.to(device))

    def copy_(self, work: "DecodeWork") -> None:
        """Overwrite this work by one of the same shapes, in the memory that a graph reads."""
        self.items.copy_(work.items, non_blocking=True)
        self.row_items.copy_(work.row_items, non_blocking=True)


def programs_at_once(device: torch.device) -> int:
    """Return how many programs of the kernel a device runs at once; 1 where it has none.

    A program takes 39 KB of shared memory and 168 registers a thread: three of them on a
    multiprocessor of an A100 or H200, two on one of the 24 GB cards.
    """
    if device.type != "cuda":
        return 1
    card = torch.cuda.get_device_properties(device)
    per_processor = min(3, card.shared_memory_per_multiprocessor // _PROGRAM_SHARED_BYTES)
    return int(card.multi_processor_count * max(1, per_processor))


def choose_split_tokens(num_tokens: int, num_kv_heads: int, num_programs: int) -> int:
    """Return the tokens of an item: as few as make programs that all run at once.

    More items would wait for the first to end, fewer would leave memory idle. At 12,288 tokens of
    4 kv heads, and 396 programs at once (132 multiprocessors), it is 128 tokens: 384 programs.

    Args:
        num_tokens: that all rows attend to together.
        num_kv_heads: each is a program of its own.
        num_programs: of `programs_at_once`.
    """
    num_items = max(1, num_programs // num_kv_heads)
    split_tokens = -(-num_tokens // num_items)
    return max(_LEAST_SPLIT_TOKENS, -(-split_tokens // _BLOCK_TOKENS) * _BLOCK_TOKENS)


def count_items(spans_per_row: Sequence[Sequence[tuple[int, int]]], split_tokens: int) -> int:
    """Return how many items `plan_decode` makes of some spans."""
    return sum(-(-(stop - start) // split_tokens) for row in spans_per_row for start, stop in row)


def plan_decode(
    spans_per_row: Sequence[Sequence[tuple[int, int]]],
    *,
    split_tokens: int,
    num_items: int | None = None,
    device: torch.device | str = "cpu",
) -> DecodeWork:
    """Cut what each row attends to into items.

    Args:
        spans_per_row: for each row the slots [start, stop) it sees, of one slab; none for a row
            that only fills up a batch, whose result is zeros.
        split_tokens: most tokens of an item.
        num_items: make exactly so many, the last ones empty; None makes as many as are needed.
        device: where the tensors go.

    Raises:
        ValueError: when a span is not one, or more items are needed than `num_items`.
    """
    items: list[tuple[int, int, int]] = []
    row_items = [0]
    for row, spans in enumerate(spans_per_row):
        for start, stop in spans:
            if not 0 <= start <= stop:
                raise ValueError(f"row {row} attends to slots [{start}, {stop}).")
            cuts = range(start, stop, split_tokens)
            items.extend((row, cut, min(cut + split_tokens, stop)) for cut in cuts)
        row_items.append(len(items))
    num_items = max(len(items), 1) if num_items is None else num_items
    if len(items) > num_items:
        raise ValueError(f"{len(items)} items of {split_tokens} tokens, room for {num_items}.")
    items.extend([(0, 0, 0)] * (num_items - len(items)))
    return DecodeWork(
        items=torch.tensor(items, dtype=torch.int32).view(-1, 3).to(device),
        row_items=torch.tensor(row_items, dtype=torch.int32).to(device),
    )


def spans_per_row(work: DecodeWork) -> list[list[tuple[int, int]]]:
    """Return the slots [start, stop) each row sees: items that touch joined, empty ones left out.

    Reads the tensors, so it waits for the device they stand on.
    """
    rows: list[list[tuple[int, int]]] = []
    items, row_items = work.items.tolist(), work.row_items.tolist()
    for first, last in itertools.pairwise(row_items):
        spans: list[tuple[int, int]] = []
        for _, start, stop in items[first:last]:
            if spans and spans[-1][1] == start:
                spans[-1] = (spans[-1][0], stop)
            elif start < stop:
                spans.append((start, stop))
        rows.append(spans)
    return rows
