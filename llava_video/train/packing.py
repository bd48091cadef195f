"""Examples of any length → one sequence without padding, and who attends to what in it.

Each example attends to itself causally and to no other; its positions begin at 0. An example may
share its beginning (a video) among several tails (questions with their answers): a tail sees the
beginning and itself, and its positions go on from the beginning's end, as if the others were not
there. Knows no tile and no loss.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from llava_video.model.dimensions import TextConfig
from llava_video.model.kv_cache import KvCache
from llava_video.ops.attention import AttentionKind, attention
from llava_video.ops.kv_format import StoredKv
from llava_video.ops.rope import rotate_reference
from llava_video.ops.rotation import make_rotation

_SIZES = 64  # beginnings and tails side by side are of a multiple of so many rows
# Not cuDNN's: it builds a plan for every new size, which takes longer than a step.
_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


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

    def positions(self) -> torch.Tensor:
        """Return the position of each row (rows,).

        >>> Share(3, 9, tails=(5, 7)).positions().tolist()
        [0, 1, 2, 3, 2, 3]
        """
        begun = self.prefix_stop - self.start
        tails = zip(self.tails, (*self.tails[1:], self.stop), strict=False)
        parts = [torch.arange(begun, begun + high - low) for low, high in tails]
        return torch.cat([torch.arange(begun), *parts])


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
        padded: where all examples are attended to at once; None for one by one.
    """

    shares: tuple[Share, ...]
    cos: torch.Tensor
    sin: torch.Tensor
    padded: "PaddedShares | None" = None

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
        if self.padded is not None:
            return self.padded.attend(q, k, v)
        # A CPU's gradient of attention takes longer in bfloat16, unlike its products of matrices.
        with torch.autocast(q.device.type, enabled=False):
            return self._one_by_one(q, k, v.to(q.dtype), kind).to(v.dtype)

    def _one_by_one(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, kind: AttentionKind
    ) -> torch.Tensor:
        # Parted once: the gradient of a slice is as large as what it was cut from.
        sizes = [share.stop - share.start for share in self.shares]
        parts = zip(self.shares, *(torch.split(x, sizes) for x in (q, k, v)), strict=True)
        outs: list[torch.Tensor] = []
        for share, own_q, own_k, own_v in parts:
            num_first, scale = share.prefix_stop - share.start, q.shape[2] ** -0.5
            prefix_q, tails_q = own_q.tensor_split([num_first])
            prefix = StoredKv(own_k[:num_first], own_v[:num_first])
            outs.append(attention(prefix_q, (), prefix, scale, kind=kind))
            if share.tails:
                outs.append(_attend_tails(tails_q, own_k, own_v, share))
        return torch.cat(outs)

    def to(self, device: torch.device) -> Self:
        """Return the same on another device."""
        padded = None if self.padded is None else self.padded.to(device)
        return replace(self, cos=self.cos.to(device), sin=self.sin.to(device), padded=padded)


@dataclass(frozen=True, slots=True)
class PaddedShares:
    """Several examples side by side, filled up to the longest: three calls instead of hundreds.

    A GPU is idle between small calls; what is computed for nothing costs it less. The plain twin is
    the loop of `PackedKeys.attend`, which a CPU runs.

    Attributes:
        prefixes: where the beginnings stand: (B, P) rows of the sequence.
        tails: where all tails of an example stand: (B, T); T = 0 without any.
        every: both, (B, P + T).
        seen: (B, 1, T, P + T) bool, what each tail's row sees.
        back: (1, L), where each row of the sequence stands among the (B P + B T) results.
    """

    prefixes: "Places"
    tails: "Places"
    every: "Places"
    seen: torch.Tensor
    back: "Places"

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the attention of every row (L, Hq, d), of q (L, Hq, d) and k, v (L, Hkv, d)."""
        with sdpa_kernel(_BACKENDS):
            # Rows that fill up come behind a beginning: nothing real sees them.
            queries, keys, values = (self.prefixes.of(x).transpose(1, 2) for x in _alike(q, k, v))
            first = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
            outs = [first.transpose(1, 2).flatten(0, 1)]
            if self.seen.numel():
                keys, values = (self.every.of(x).transpose(1, 2) for x in _alike(q, k, v)[1:])
                queries = self.tails.of(q).transpose(1, 2)
                out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=self.seen)
                outs.append(out.transpose(1, 2).flatten(0, 1))
        return self.back.of(torch.cat(outs))[0]

    def to(self, device: torch.device) -> Self:
        """Return the same on another device."""
        return replace(
            self,
            prefixes=self.prefixes.to(device),
            tails=self.tails.to(device),
            every=self.every.to(device),
            seen=self.seen.to(device),
            back=self.back.to(device),
        )


@dataclass(frozen=True, slots=True)
class Places:
    """Which row of a tensor stands at each place; a row stands at one place at most.

    torch's own gradient of `x[rows]` sorts the rows to add up those that come twice, which takes
    most of a step; here it is a gather as well.

    Attributes:
        rows: (B, n) int64; what fills up has any row.
        back: (L,) int64, the place of each row; B n for a row that stands nowhere.
    """

    rows: torch.Tensor
    back: torch.Tensor

    def of(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rows (B, n, ...) of x (L, ...)."""
        found: torch.Tensor = _Laid.apply(x, self.rows, self.back)  # type: ignore[no-untyped-call]  # torch's
        return found

    def to(self, device: torch.device) -> Self:
        """Return the same on another device."""
        return replace(self, rows=self.rows.to(device), back=self.back.to(device))


class _Laid(torch.autograd.Function):
    """x[rows], whose gradient is a gather: grad[back]."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rows: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        ctx.back = back
        return x[rows]

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        places = grad.flatten(0, 1)
        nothing = places.new_zeros(1, *places.shape[1:])
        return torch.cat([places, nothing])[ctx.back], None, None


def _alike(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Give every head its key and value: the fast kernels want as many, with a mask."""
    num_groups = q.shape[1] // k.shape[1]
    return q, *(x.repeat_interleave(num_groups, dim=1) for x in (k, v))


def padded_shares(shares: Sequence[Share], device: torch.device | None = None) -> PaddedShares:
    """Lay examples side by side.

    Args:
        shares: end to end from row 0.
        device: of the result; what is large is made there.
    """
    num_tail = max(share.stop - share.prefix_stop for share in shares)
    num_first = max(share.prefix_stop - share.start for share in shares)
    # Few sizes: a GPU's kernels are chosen, and memory is kept, by size.
    num_first, num_tail = (-(-size // _SIZES) * _SIZES for size in (num_first, num_tail))
    width, num_rows = num_first + num_tail, shares[-1].stop
    every = torch.full((len(shares), width), num_rows)  # of what fills up: no row
    tail_of = torch.full((len(shares), num_tail), -1)
    for idx, share in enumerate(shares):
        own, rest = share.prefix_stop - share.start, share.stop - share.prefix_stop
        every[idx, :own] = torch.arange(share.start, share.prefix_stop)
        every[idx, num_first : num_first + rest] = torch.arange(share.prefix_stop, share.stop)
        bounds = torch.tensor([*share.tails, share.stop])
        numbers = torch.arange(len(share.tails))
        tail_of[idx, :rest] = numbers.repeat_interleave(bounds.diff())
    every, tail_of = every.to(device), tail_of.to(device)
    prefixes, tails = every[:, :num_first], every[:, num_first:]
    places = torch.arange(num_tail, device=device)
    is_own = (tail_of[:, :, None] == tail_of[:, None]) & (places[:, None] >= places)
    is_first = (prefixes < num_rows)[:, None].expand(-1, num_tail, -1)
    results = torch.cat([prefixes.flatten(), tails.flatten()])
    return PaddedShares(
        prefixes=_places(prefixes, num_rows),
        tails=_places(tails, num_rows),
        every=_places(every, num_rows),
        seen=torch.cat([is_first, is_own], dim=2)[:, None],
        back=Places(_places(results[None], num_rows).back[None], results),
    )


def _places(rows: torch.Tensor, num_rows: int) -> Places:
    """Turn rows (B, n), `num_rows` where nothing stands, into places."""
    back = torch.full((num_rows + 1,), rows.numel(), device=rows.device)
    back[rows.flatten()] = torch.arange(rows.numel(), device=rows.device)
    return Places(rows.clamp(max=num_rows - 1), back[:num_rows])


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
        torch.cat([share.positions() for share in shares]),
        [config.rope_scale * position_scale],
        head_dim=config.head_dim,
        theta=config.rope_theta,
        device=device,
        bands=config.rope_bands,
    )
    # Of one example there is nothing to gain.
    is_padded = device.type == "cuda" and len(shares) > 1
    padded = padded_shares(shares, device) if is_padded else None
    return PackedKeys(tuple(shares), *rotation.tables(), padded)


def _attend_tails(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, share: Share) -> torch.Tensor:
    """Return the attention of all tails' rows q (n, Hq, d): to the beginning, and each to itself.

    k and v are the whole example's, (P + n, Hkv, d).
    """
    queries, keys, values = (x.transpose(0, 1)[None] for x in (q, k, v))
    seen = seen_by(share, torch.arange(share.prefix_stop, share.stop, device=q.device))
    out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen, enable_gqa=True)
    return out[0].transpose(0, 1)


def seen_by(share: Share, rows: torch.Tensor) -> torch.Tensor:
    """Return what rows of an example see of it: the beginning and their tail, both up to them.

    Args:
        share: the example.
        rows: (n,) of the sequence, on the device of the result.

    Returns:
        (n, `share.stop` - `share.start`) bool.
    """
    starts = torch.tensor([share.start, *share.tails], device=rows.device)
    own = starts[torch.searchsorted(starts, rows, right=True) - 1][:, None]
    keys = torch.arange(share.start, share.stop, device=rows.device)
    return (keys <= rows[:, None]) & ((keys < share.prefix_stop) | (keys >= own))
