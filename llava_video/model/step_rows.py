"""The rows of one step -> its keys: who writes where, turned by which angles, and sees what.

Made once and used by every layer. Knows no layer and no sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import torch

from llava_video.model.dimensions import TextConfig
from llava_video.model.kv_cache import KvSpan
from llava_video.model.step_keys import DecodeKeys, Reader, RowKeys, SplitKeys, StepKeys
from llava_video.ops.decode_attention import reads_rows_at_once
from llava_video.ops.decode_work import choose_split_tokens, plan_decode, programs_at_once
from llava_video.ops.rotation import Rotation, RotationMode, make_rotation

# Of an item on a CPU: always as many, so that sums are rounded alike whatever else is in the step.
_CPU_SPLIT_TOKENS: Final = 1024


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


def step_keys(
    idxs: torch.Tensor,
    rows: Sequence[Row],
    scales: Sequence[float],
    config: TextConfig,
    *,
    mode: RotationMode,
    device: torch.device,
) -> StepKeys:
    """Say who attends to what in a step of any rows.

    Single tokens that see one slab alone share one call where it is the faster; a token beside
    them in the step that does not, or a chunk, is attended to by itself.

    Args:
        idxs: (L,) int64 token indices.
        rows: end to end over the L tokens.
        scales: the position scale of every row.
        config: the heads, and the checkpoint's own frequencies.
        mode: how angles are computed.
        device: of the first layer.
    """
    parts: list[tuple[int, int, StepKeys]] = []
    paired = list(zip(rows, scales, strict=True))
    is_real = type(idxs) is torch.Tensor  # a fake one has no numbers, which a CPU's plan is made of

    def kind(pair: tuple[Row, float]) -> tuple[int, bool]:
        return pair[0].write.slab_idx, is_real and _is_decode(pair[0], config, device)

    for (_, is_decode), run in groupby(paired, kind):
        run_rows, run_scales = zip(*run, strict=True)
        start, stop = run_rows[0].start, run_rows[-1].stop
        make = decode_keys if is_decode else row_keys
        keys = make(idxs[start:stop], run_rows, run_scales, config, mode=mode, device=device)
        parts.append((start, stop, keys))
    return parts[0][2] if len(parts) == 1 else SplitKeys(tuple(parts))


def row_keys(
    idxs: torch.Tensor,
    rows: Sequence[Row],
    scales: Sequence[float],
    config: TextConfig,
    *,
    mode: RotationMode,
    device: torch.device,
) -> RowKeys:
    """Return the keys of rows that write to one slab; arguments as in `step_keys`."""
    first = rows[0].start
    return RowKeys(
        slab_idx=rows[0].write.slab_idx,
        slots=_slots(rows).to(device),
        rotation=_rotation(idxs, rows, scales, config, mode=mode, device=device),
        readers=tuple(_reader(row, first) for row in rows),
    )


def decode_keys(
    idxs: torch.Tensor,
    rows: Sequence[Row],
    scales: Sequence[float],
    config: TextConfig,
    *,
    mode: RotationMode,
    device: torch.device,
    split_tokens: int | None = None,
    num_items: int | None = None,
) -> DecodeKeys:
    """Return the keys of single tokens of one slab; other arguments as in `step_keys`.

    A row that only fills up a batch sees nothing but a place of its own that nobody reads: several
    such rows may write to the same one.

    Args:
        idxs: (R,).
        rows: of one token each, all their spans in one slab.
        scales: as many.
        config: sizes.
        mode: how angles are computed.
        device: where the tensors go.
        split_tokens: most tokens of an item of work; None for what suits the device.
        num_items: items of work, the rest empty; None for as many as are needed.

    Raises:
        ValueError: rows of several tokens or slabs, or more items than `num_items`.
    """
    slab_idx = rows[0].write.slab_idx
    if not all(row.write.slab_idx == slab_idx and _sees_one_slab(row) for row in rows):
        raise ValueError(f"rows of other than one token of slab {slab_idx}.")
    spans = [[(s.start, s.stop) for s in _joined((*row.past, row.write))] for row in rows]
    if split_tokens is None and device.type == "cpu":
        split_tokens = _CPU_SPLIT_TOKENS
    elif split_tokens is None:
        num_tokens = sum(stop - start for row_spans in spans for start, stop in row_spans)
        num_programs = programs_at_once(device)
        split_tokens = choose_split_tokens(num_tokens, config.num_kv_heads, num_programs)
    return DecodeKeys(
        slab_idx=slab_idx,
        slots=_slots(rows).to(device),
        rotation=_rotation(idxs, rows, scales, config, mode=mode, device=device, is_static=True),
        work=plan_decode(spans, split_tokens=split_tokens, num_items=num_items, device=device),
    )


def _is_decode(row: Row, config: TextConfig, device: torch.device) -> bool:
    """Say whether a row is one of those that one call reads."""
    if not _sees_one_slab(row):
        return False
    num_tokens = 1 + sum(span.num_tokens for span in row.past)
    return reads_rows_at_once(num_tokens, config.num_kv_heads, config.head_dim, device)


def _sees_one_slab(row: Row) -> bool:
    """Say whether a row is a single token that sees no slab but the one it writes to."""
    slab_idx = row.write.slab_idx
    is_single = row.stop - row.start == 1
    return is_single and all(span.slab_idx == slab_idx for span in row.past)


def _reader(row: Row, first: int) -> Reader:
    is_single = row.stop - row.start == 1
    return Reader(
        row.start - first,
        row.stop - first,
        _joined((*row.past, row.write) if is_single else row.past),
        None if is_single else row.write,
    )


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


def _slots(rows: Sequence[Row]) -> torch.Tensor:
    return torch.cat([torch.arange(row.write.start, row.write.stop) for row in rows])


def _rotation(
    idxs: torch.Tensor,
    rows: Sequence[Row],
    scales: Sequence[float],
    config: TextConfig,
    *,
    mode: RotationMode,
    device: torch.device,
    is_static: bool = False,
) -> Rotation:
    factors = [scale * config.rope_scale for scale in scales]
    kinds = factors if is_static else sorted(set(factors))
    kind_idxs = range(len(rows)) if is_static else map(kinds.index, factors)
    of_rows = [
        torch.full((row.stop - row.start,), kind_idx, dtype=torch.int32)
        for row, kind_idx in zip(rows, kind_idxs, strict=True)
    ]
    return make_rotation(
        idxs,
        kinds,
        torch.cat(of_rows),
        head_dim=config.head_dim,
        theta=config.rope_theta,
        device=device,
        mode=mode,
        bands=config.rope_bands,
    )
