"""A frozen tower's features, kept by what the tiles show, so that a tile is encoded once.

Formula: the fingerprint of a tile, its float32 values taken as 32-bit integers x, is two sums over
i of x_i r_i mod 2^64, r random 64-bit numbers. Two tiles that differ share it with a probability of
at most 2^-64: where some x_i differ by d_i, 0 < |d_i| < 2^32, a sum of d_i r_i is 0 mod 2^64 for at
most one r in 2^32. Integers, so the same on every device. The first tiles are kept, until the room
is full: the least recently used ones would be gone before their next epoch. Knows no plan and no
file.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Final

import torch

from llava_video.model.llava import LlavaModel

_SEED: Final = 0x5EED
_Key = tuple[int, int]


def fingerprints(tiles: torch.Tensor) -> list[_Key]:
    """Return what each tile is known by.

    Args:
        tiles: (N, 3, px, px), any floating dtype.

    Returns:
        N pairs of 64-bit integers; equal for equal tiles.
    """
    values = tiles.float().contiguous().view(torch.int32).flatten(1)
    numbers = _numbers(values.shape[1], tiles.device)
    sums = torch.stack([(row.long() * numbers).sum(1) for row in values])
    return [(first, second) for first, second in sums.tolist()]


@functools.lru_cache(maxsize=4)
def _numbers(num_pixels: int, device: torch.device) -> torch.Tensor:
    """Return the r of both sums (2, n) int64, on a device."""
    generator = torch.Generator().manual_seed(_SEED)
    low, high = -(2**63), 2**63 - 1
    return torch.randint(low, high, (2, num_pixels), generator=generator).to(device)


class KeptFeatures:
    """A tower's forward that encodes no tile twice, as long as there is room.

    Args:
        forward: tiles (N, 3, px, px) → features (N, P, C), without gradients.
        most_bytes: of features that are kept, in the memory of the host.

    Attributes:
        num_encoded: tiles that went through the tower.
        num_bytes: of the features that are kept.
    """

    def __init__(self, forward: Callable[[torch.Tensor], torch.Tensor], most_bytes: int) -> None:
        self._forward, self._most_bytes = forward, most_bytes
        self._kept: dict[_Key, torch.Tensor] = {}
        self.num_encoded = 0
        self.num_bytes = 0

    def __call__(self, tiles: torch.Tensor) -> torch.Tensor:
        """Return the features (N, P, C) of tiles, on their device."""
        keys = fingerprints(tiles)
        places = {key: idx for idx, key in reversed(list(enumerate(keys)))}
        known = [key for key in places if key in self._kept]
        new = [key for key in places if key not in self._kept]
        parts: list[torch.Tensor] = []
        if known:
            parts.append(torch.stack([self._kept[key] for key in known]).to(tiles.device))
        if new:
            made = self._forward(tiles[[places[key] for key in new]])
            self.num_encoded += len(new)
            self._keep(new, made)
            parts.append(made)
        place_of = {key: idx for idx, key in enumerate([*known, *new])}
        return torch.cat(parts)[[place_of[key] for key in keys]]

    def _keep(self, keys: Sequence[_Key], made: torch.Tensor) -> None:
        num_bytes = made[0].nbytes
        room = (self._most_bytes - self.num_bytes) // num_bytes
        if room <= 0:
            return
        for key, features in zip(keys, made[:room].to("cpu"), strict=False):
            self._kept[key] = features.clone()  # a part of a call would keep all of it
            self.num_bytes += num_bytes


def keep_features(model: LlavaModel, most_bytes: int) -> KeptFeatures:
    """Let a tower that does not learn encode each tile once.

    After `set_learning`. The features are the tower's own; a tile's may differ in the last bit by
    what stands beside it in a call, as they do without this.

    Args:
        model: changed in place.
        most_bytes: of features that are kept.
    """
    tower = model.vision_tower
    kept = KeptFeatures(tower.forward, most_bytes)
    tower.forward = kept  # type: ignore[method-assign,assignment]  # of this object
    return kept
