"""A tensor of a base → the tensor an overlay makes of it, while the base streams.

    adapter    W + (alpha / r) B A
    projector  the last rows of the embedding
    delta      base + delta

One tensor at a time, in float32, so that nothing of the base is held twice. Knows names and shapes;
finds no folder, and opens a file only to read a tensor of it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from llava_video.model.adapters import is_beside
from llava_video.model.shards import Place, ShardReader
from llava_video.ops.weight_format import quantise_weight
from llava_video.values import WeightFormat

EMBEDDING = "language_model.embed_tokens.weight"
HEAD = "language_model.lm_head.weight"

Shape = tuple[int, ...]


class Change:
    """No change; the others are kinds of it. A context manager that lets its files go."""

    def shape(self, ours: str, stored: Shape) -> Shape:
        """Return the shape that a parameter has after the change.

        Args:
            ours: the parameter's name.
            stored: its shape in the file.
        """
        return stored

    def apply(self, ours: str, tensor: Tensor, device: torch.device) -> Tensor:
        """Return a tensor as the overlay has it.

        Args:
            ours: the parameter's name.
            tensor: of the base, on the CPU, perhaps mapped; it is not written to.
            device: where to compute.

        Returns:
            The very tensor when nothing changes; else a new one on the device, whose dtype may be
            another.
        """
        return tensor

    def close(self) -> None:
        """Let the overlay's files go."""


@dataclass(frozen=True, slots=True)
class LowRank(Change):
    """A LoRA adapter: W + scale * B A.

    Where it was trained over integers, W is what these stand for, in all linear layers of the
    decoder: so the sum is the model that was trained.

    Attributes:
        pairs: the parameter's name → where A (r, in) and B (out, r) are.
        scale: alpha / r, or alpha / sqrt(r).
        rounded: how the decoder was stored where it was trained.
    """

    pairs: Mapping[str, tuple[Place, Place]]
    scale: float
    rounded: WeightFormat = "plain"
    _reader: ShardReader = field(default_factory=ShardReader)

    def apply(self, ours: str, tensor: Tensor, device: torch.device) -> Tensor:
        """Add the adapter's product, in float32."""
        if self.rounded != "plain" and is_beside(ours) and tensor.dim() == 2:
            stored = quantise_weight(tensor.to(device), self.rounded)
            tensor = stored.plain(torch.float32)
        if ours not in self.pairs:
            return tensor
        down, up = (side.to(device, torch.float32) for side in self.read(ours))
        return torch.addmm(tensor.to(device, torch.float32), up, down, alpha=self.scale)

    def read(self, ours: str) -> tuple[Tensor, Tensor]:
        """Return A and B of a parameter that changes, mapped."""
        down, up = self.pairs[ours]
        return self._reader.read(*down), self._reader.read(*up)

    def without(self, names: Collection[str]) -> "LowRank":
        """Return the same adapter with some of its changes left out."""
        return replace(self, pairs={n: pair for n, pair in self.pairs.items() if n not in names})

    def close(self) -> None:
        """Let the adapter's file go."""
        self._reader.close()


@dataclass(frozen=True, slots=True)
class LastRows(Change):
    """The rows of an embedding that were trained with a projector: the last ones.

    The base may lack them; its head then gets as many rows of the mean of its own, which is what
    the original code starts such rows with.

    Attributes:
        place: where the rows (n, hidden) are.
        num_rows: n.
        vocab_size: rows of the embedding and the head in all.
    """

    place: Place
    num_rows: int
    vocab_size: int
    _reader: ShardReader = field(default_factory=ShardReader)

    def shape(self, ours: str, stored: Shape) -> Shape:
        """Return the whole vocabulary's rows, where the base's and these make them up."""
        is_grown = ours in (EMBEDDING, HEAD)
        if is_grown and self.vocab_size - self.num_rows <= stored[0] <= self.vocab_size:
            return self.vocab_size, *stored[1:]
        return stored

    def apply(self, ours: str, tensor: Tensor, device: torch.device) -> Tensor:
        """Put the rows behind the base's first ones, or fill up the head."""
        if ours == EMBEDDING:
            first = tensor[: self.vocab_size - self.num_rows]
            parts = (first, self._reader.read(*self.place))
            return torch.cat([part.to(device, torch.float32) for part in parts])
        num_lacking = self.vocab_size - len(tensor)
        if ours == HEAD and num_lacking:
            own = tensor.to(device, torch.float32)
            return torch.cat([own, own.mean(0, keepdim=True).expand(num_lacking, -1)])
        return tensor

    def close(self) -> None:
        """Let the file of the rows go."""
        self._reader.close()


@dataclass(frozen=True, slots=True)
class Difference(Change):
    """A delta checkpoint: base + delta, rounded to the delta's dtype as the published sum is.

    Where the delta has more rows than the base, its further rows are whole already.

    Attributes:
        base: the parameter's name → where the base's tensor is.
    """

    base: Mapping[str, Place]
    _reader: ShardReader = field(default_factory=ShardReader)

    def apply(self, ours: str, tensor: Tensor, device: torch.device) -> Tensor:
        """Add the base's tensor."""
        if ours not in self.base:
            return tensor
        added = self._reader.read(*self.base[ours]).to(device, torch.float32)
        total = tensor.to(device, torch.float32, copy=True)
        total[: len(added)] += added
        return total.to(tensor.dtype)

    def close(self) -> None:
        """Let the base's file go."""
        self._reader.close()
