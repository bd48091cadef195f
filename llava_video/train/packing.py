"""Examples of any length → one sequence without padding, and who attends to what in it.

Each example attends to itself causally and to no other; its positions begin at 0. An example may
share its beginning (a video) among several tails (questions with their answers): a tail sees the
beginning and itself, and its positions go on from the beginning's end, as if the others were not
there. Knows no tile and no loss.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F

from llava_video.model.dimensions import TextConfig
from llava_video.model.kv_cache import KvCache
from llava_video.ops.attention import AttentionKind, attention
from llava_video.ops.kv_format import StoredKv
from llava_video.ops.rope import rotate_reference
from llava_video.ops.rotation import make_rotation


@dataclass(frozen=True, slots=True)
class Share:
    """One example's rows of a packed sequence, [start, stop).

    Attributes:
        start: its first row.
        stop: one past its last.
        tails: where each tail begins, ascending, behind `start`; () for an example without any.
    """

    start: int
    stop: int
    tails: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        bounds = (self.start, *self.tails, self.stop)
        if any(low >= high for low, high in itertools.pairwise(bounds)):
            raise ValueError(f"an example's rows and tails are at {bounds}: not ascending.")

    @property
    def prefix_stop(self) -> int:
        """Where the rows end that all tails see; `stop` without tails."""
        return self.tails[0] if self.tails else self.stop

    @property
    def first_rows(self) -> tuple[int, ...]:
        """Rows that no row before them leads to: what comes there cannot be learned."""
        return (self.start, *self.tails)

    def positions(self) -> Iterator[int]:
        """Yield the position of each row.

        >>> list(Share(3, 9, tails=(5, 7)).positions())
        [0, 1, 2, 3, 2, 3]
        """
        yield from range(self.prefix_stop - self.start)
        for low, high in zip(self.tails, (*self.tails[1:], self.stop), strict=False):
            begun = self.prefix_stop - self.start
            yield from range(begun, begun + high - low)


def shares_of(lengths: Iterable[int]) -> tuple[Share, ...]:
    """Return the shares of plain examples that stand one behind the other.

    >>> shares_of([2, 3])
    (Share(start=0, stop=2, tails=()), Share(start=2, stop=5, tails=()))
    """
    shares: list[Share] = []
    start = 0
    for length in lengths:
        shares.append(Share(start, start + length))
        start += length
    return tuple(shares)


@dataclass(frozen=True, slots=True)
class PackedKeys:
    """Who attends to what in a packed sequence; nothing is stored. A kind of `StepKeys`.

    Attributes:
        shares: end to end over the L rows.
        cos: (L, 1, d / 2) float32, of the rows' positions.
        sin: the same.
    """

    shares: tuple[Share, ...]
    cos: torch.Tensor
    sin: torch.Tensor

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cache: KvCache | None,
        layer_idx: int,
        kind: AttentionKind,
    ) -> torch.Tensor:
        """See `StepKeys.attend`; everything has a gradient, the cache is not asked."""
        q, k = (rotate_reference(x, self.cos, self.sin) for x in (q, k))
        outs: list[torch.Tensor] = []
        for share in self.shares:
            own = slice(share.start, share.prefix_stop)
            scale = q.shape[2] ** -0.5
            outs.append(attention(q[own], (), StoredKv(k[own], v[own]), scale, kind=kind))
            if share.tails:
                outs.append(_attend_tails(q, k, v, share))
        return torch.cat(outs)

    def to(self, device: torch.device) -> Self:
        """Return the same on another device."""
        return replace(self, cos=self.cos.to(device), sin=self.sin.to(device))


def packed_keys(
    shares: Sequence[Share],
    config: TextConfig,
    *,
    device: torch.device,
    position_scale: float = 1.0,
) -> PackedKeys:
    """Return the keys of packed examples.

    Args:
        shares: end to end from row 0.
        config: the heads, and the checkpoint's own frequencies.
        device: of the first layer.
        position_scale: position = index / scale, on top of the checkpoint's own.

    Raises:
        ValueError: the shares leave gaps or overlap.
    """
    stops = [0, *(share.stop for share in shares)]
    if [share.start for share in shares] != stops[:-1]:
        raise ValueError(f"shares of a packed sequence are not end to end: {shares}.")
    rotation = make_rotation(
        torch.tensor([place for share in shares for place in share.positions()]),
        [config.rope_scale * position_scale],
        head_dim=config.head_dim,
        theta=config.rope_theta,
        device=device,
        bands=config.rope_bands,
    )
    return PackedKeys(tuple(shares), *rotation.tables())


def _attend_tails(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, share: Share) -> torch.Tensor:
    """Return the attention of all tails' rows (n, Hq, d): to the beginning, and each to itself."""
    first = share.prefix_stop
    queries, keys, values = (
        x[start : share.stop].transpose(0, 1)[None]
        for x, start in ((q, first), (k, share.start), (v, share.start))
    )
    out = F.scaled_dot_product_attention(
        queries, keys, values, attn_mask=_seen(share, q.device), enable_gqa=True
    )
    return out[0].transpose(0, 1)


def _seen(share: Share, device: torch.device) -> torch.Tensor:
    """Return what each tail's row sees (n, P + n): the P rows of the beginning, itself, before."""
    num_prefix = share.prefix_stop - share.start
    rows = torch.arange(share.prefix_stop, share.stop, device=device)
    starts = torch.tensor(share.tails, device=device)
    tail_of = torch.searchsorted(starts, rows, right=True)
    is_own = (tail_of[:, None] == tail_of) & (rows[:, None] >= rows)
    return torch.cat([is_own.new_ones(len(rows), num_prefix), is_own], dim=1)
