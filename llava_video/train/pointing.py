"""The keys of a packed batch → the same, and a loss that teaches heads to look where things show.

An answer is a weak teacher of attention: which row a question is about is found last, long after
the rows know all that is asked. So chosen heads are told: the attention p of a row to the rows
where the one thing it is about shows, all together, is to be 1, and 1 / n where n are:
    loss = -mean over pointers and heads of mean_i log sum_{j in shown_i} p_j
Source of the idea: supervised attention, Liu et al. 2016 (arXiv 1609.04186). Knows no scene.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.utils.rnn import pad_sequence

from llava_video.model.dimensions import TextConfig
from llava_video.model.kv_cache import KvCache
from llava_video.ops.attention import AttentionKind
from llava_video.ops.rope import rotate_reference
from llava_video.train.packing import PackedKeys, Share, seen_by
from llava_video.train.pointer import Pointer, Role

Heads = Sequence[tuple[int, int]]


@dataclass(slots=True)
class PointingKeys:
    """Packed keys that keep the losses of some heads on the way; a kind of `StepKeys`.

    Attributes:
        keys: whose attention it is.
        pointers: of each share.
        heads: by role of a pointer the (layer, head) that look where it points.
        losses: by layer, role and first row of a share: (heads, pointers).
    """

    keys: PackedKeys
    pointers: Sequence[Sequence[Pointer]]
    heads: Mapping[Role, Heads]
    losses: dict[tuple[int, Role, int], torch.Tensor] = field(default_factory=dict)

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
        for role, heads in self.heads.items():
            own = [head for layer, head in heads if layer == layer_idx]
            if own:
                self._look(q, k, own, layer_idx, role)
        return self.keys.attend(q, k, v, cache, layer_idx, kind)

    def to(self, device: torch.device) -> "PointingKeys":
        """Return the same on another device; losses are kept in one place."""
        return PointingKeys(self.keys.to(device), self.pointers, self.heads, self.losses)

    def loss(self) -> torch.Tensor | None:
        """Return the mean of what was kept; None where nothing was to be looked at."""
        if not self.losses:
            return None
        every = [loss.flatten() for loss in self.losses.values()]
        return torch.cat([loss.to(every[0].device) for loss in every]).mean()

    def _look(
        self, q: torch.Tensor, k: torch.Tensor, heads: list[int], layer_idx: int, role: Role
    ) -> None:
        num_sharing = q.shape[1] // k.shape[1]
        q, k = q[:, heads], k[:, [head // num_sharing for head in heads]]
        q, k = (rotate_reference(x, self.keys.cos, self.keys.sin) for x in (q, k))
        with torch.autocast(q.device.type, enabled=False):
            for share, every in zip(self.keys.shares, self.pointers, strict=True):
                pointers = [one for one in every if one.role == role]
                if pointers:
                    loss = _loss(q.float(), k.float(), share, pointers)
                    # A layer that is computed again for its gradients has told its own already.
                    self.losses.setdefault((layer_idx, role, share.start), loss)


def _loss(
    q: torch.Tensor, k: torch.Tensor, share: Share, pointers: Sequence[Pointer]
) -> torch.Tensor:
    """Return the losses (heads, pointers) of one share; q and k are (L, heads, d)."""
    rows = torch.tensor([one.row for one in pointers], device=q.device)
    scores = torch.einsum("phd,khd->hpk", q[rows], k[share.start : share.stop])
    scores = (scores * q.shape[2] ** -0.5).masked_fill(~seen_by(share, rows), -torch.inf)
    log_p = scores.log_softmax(dim=-1)
    # All things at once, filled up to the one that shows most often: of which pointer each is,
    # how much it counts there, and where it shows.
    owners = [idx for idx, one in enumerate(pointers) for _ in one.shown]
    counts = [1 / len(one.shown) for one in pointers for _ in one.shown]
    shown = [torch.tensor(places) - share.start for one in pointers for places in one.shown]
    places = pad_sequence(shown, batch_first=True, padding_value=-1).to(q.device)
    of, weights = (torch.tensor(x, device=q.device) for x in (owners, counts))
    found = log_p[:, of[:, None], places.clamp(min=0)].masked_fill(places < 0, -torch.inf)
    losses: torch.Tensor = -found.logsumexp(dim=-1) * weights
    return losses.new_zeros(len(losses), len(pointers)).index_add(1, of, losses)


def heads_fit(heads: Heads, config: TextConfig) -> bool:
    """Say whether a decoder has such layers and heads."""
    return all(
        0 <= layer < config.num_layers and 0 <= head < config.num_heads for layer, head in heads
    )
