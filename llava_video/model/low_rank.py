"""A LoRA adapter that stays beside the decoder's weights: y = W x + b + scale * B A x.

W may be plain or quantised: the change keeps its own numbers, so that an adapter trained over int4
weights answers as it was trained, and merging rounds nothing away. Knows no file.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llava_video.model.llava import LlavaModel


class LowRankLinear(nn.Module):
    """A linear layer and a change of low rank beside it.

    Args:
        linear: the layer, plain or quantised; (in) -> (out).
        down: A, (r, in), on its device.
        up: B, (out, r), on its device.
        scale: what the change counts.
    """

    def __init__(self, linear: nn.Module, down: Tensor, up: Tensor, scale: float) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(down, requires_grad=False)
        self.up = nn.Parameter(up, requires_grad=False)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out) of x (..., in)."""
        y: Tensor = self.linear(x)
        low = F.linear(x, self.down)
        if torch.is_grad_enabled():
            return y + self.scale * F.linear(low, self.up)
        y.view(-1, y.shape[-1]).addmm_(low.flatten(0, -2), self.up.T, alpha=self.scale)
        return y


def put_beside(
    model: LlavaModel, names: list[str], read: Callable[[str], tuple[Tensor, Tensor]], scale: float
) -> None:
    """Put changes beside layers of the decoder.

    Args:
        model: loaded; changed.
        names: of the weights that change, by our name.
        read: a name → A (r, in) and B (out, r), on any device.
        scale: of all changes.
    """
    for name in names:
        place, _, leaf = name.removesuffix(".weight").rpartition(".")
        layer = model.get_submodule(place)
        linear = layer.get_submodule(leaf)
        device = next(layer.parameters()).device
        down, up = (side.to(device, model.dtype, copy=True) for side in read(name))
        setattr(layer, leaf, LowRankLinear(linear, down, up, scale))


def has_change_beside(model: nn.Module) -> bool:
    """Say whether changes stand beside a model's weights."""
    return any(isinstance(module, LowRankLinear) for module in model.modules())
