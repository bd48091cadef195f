"""The keys of a packed batch → the same, and a loss that teaches heads to look where a name shows.

An answer is a weak teacher of attention: which row a question is about is found last, long after
the rows know all that is asked. So chosen heads are told: the attention p of a row of text to the
rows where the one thing it names shows, all together, is to be 1, and 1 / n where n are named:
    loss = -mean over pointers and heads of mean_i log sum_{j in shown_i} p_j
Source of the idea: supervised attention, Liu et al. 2016 (arXiv 1609.04186). Knows no scene.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from llava_video.model.kv_cache import KvCache
from llava_video.ops.attention import AttentionKind
from llava_video.ops.rope import rotate_reference
from llava_video.train.packing import PackedKeys, Share
from llava_video.train.pointer_labels import Pointer

Heads = Sequence[tuple[int, int]]


@dataclass(slots=True)
class PointingKeys:
    """Packed keys that keep the losses of some heads on the way; a kind of `StepKeys`.

    Attributes:
        keys: whose attention it is.
        pointers: of each share.
        name_heads: (layer, head) that look from the last row of a name.
        answer_heads: those that look from the row an answer is said from.
        losses: of each layer that has run, (pointers x heads,).
    """

    keys: PackedKeys
    pointers: Sequence[Sequence[Pointer]]
    name_heads: Heads
    answer_heads: Heads
    losses: list[torch.Tensor] = field(default_factory=list)

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cache: KvCache | None,
        layer_idx: int,
        kind: AttentionKind,
    ) -> torch.Tensor:
        """See `PackedKeys.attend`."""
        for heads, is_answer in ((self.name_heads, False), (self.answer_heads, True)):
            own = [head for layer, head in heads if layer == layer_idx]
            if own:
                self._look(q, k, own, is_answer=is_answer)
        return self.keys.attend(q, k, v, cache, layer_idx, kind)

    def to(self, device: torch.device) -> "PointingKeys":
        """Return the same on another device; losses are kept in one place."""
        return PointingKeys(
            self.keys.to(device), self.pointers, self.name_heads, self.answer_heads, self.losses
        )

    def loss(self) -> torch.Tensor | None:
        """Return the mean of what was kept; None where nothing was to be looked at."""
        if not self.losses:
            return None
        return torch.cat([loss.to(self.losses[0].device) for loss in self.losses]).mean()

    def _look(self, q: torch.Tensor, k: torch.Tensor, heads: list[int], *, is_answer: bool) -> None:
        group = q.shape[1] // k.shape[1]
        q, k = (x[:, own] for x, own in ((q, heads), (k, [head // group for head in heads])))
        q, k = (rotate_reference(x, self.keys.cos, self.keys.sin) for x in (q, k))
        with torch.autocast(q.device.type, enabled=False):
            for share, every in zip(self.keys.shares, self.pointers, strict=True):
                pointers = [one for one in every if one.is_answer is is_answer]
                if pointers:
                    self.losses.append(_loss(q.float(), k.float(), share, pointers))


def _loss(
    q: torch.Tensor, k: torch.Tensor, share: Share, pointers: Sequence[Pointer]
) -> torch.Tensor:
    """Return the losses (pointers x heads,) of one share; q and k are (L, heads, d)."""
    rows = torch.tensor([one.row for one in pointers], device=q.device)
    scores = torch.einsum("phd,khd->hpk", q[rows], k[share.start : share.stop])
    log_p = (scores * q.shape[2] ** -0.5).masked_fill(~_seen(share, rows), -torch.inf)
    log_p = log_p.log_softmax(dim=-1)
    losses: list[torch.Tensor] = []
    for idx, one in enumerate(pointers):
        groups = [torch.tensor(shown, device=q.device) - share.start for shown in one.shown]
        found = torch.stack([log_p[:, idx, group].logsumexp(dim=-1) for group in groups])
        losses.append(-found.mean(dim=0))
    return torch.cat(losses)


def _seen(share: Share, rows: torch.Tensor) -> torch.Tensor:
    """Return which of a share's rows (n,) each of some rows of its tails (p,) sees: (p, n)."""
    starts = torch.tensor(share.tails, device=rows.device)
    own = starts[torch.searchsorted(starts, rows, right=True) - 1][:, None]
    keys = torch.arange(share.start, share.stop, device=rows.device)
    return (keys < share.prefix_stop) | ((keys >= own) & (keys <= rows[:, None]))


def heads_fit(heads: Heads, config: Any) -> bool:
    """Say whether a decoder has such layers and heads."""
    return all(
        0 <= layer < config.num_layers and 0 <= head < config.num_heads for layer, head in heads
    )
