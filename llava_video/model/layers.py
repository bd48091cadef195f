"""The layers both towers are made of: linear, layer norm, RMS norm, and the residual sum.

They allocate their weights and never fill them: weights come from a checkpoint, so building a model
costs nothing, on the meta device least of all. Knows no architecture.
"""

import torch
import torch.nn.functional as F
from torch import nn

from llava_video.ops.linear import linear


class Linear(nn.Linear):
    """y = x W^T + b; torch's own layer to those who look for it, as PEFT does.

    Args:
        in_features: channels in.
        out_features: channels out.
        bias: whether there is a b.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True) -> None:
        nn.Module.__init__(self)  # torch's own would fill the weights
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_features)) if bias else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., out_features) of x (..., in_features)."""
        return linear(x, self.weight, self.bias)


class LayerNorm(nn.Module):
    """Layer norm over the last axis, with weight and bias.

    Args:
        num_channels: length of the last axis.
        eps: added to the variance.
    """

    def __init__(self, num_channels: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_channels))
        self.bias = nn.Parameter(torch.empty(num_channels))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x normalised over its last axis."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class RmsNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, computed in float32.

    Args:
        num_channels: length of the last axis.
        eps: added to the mean square.
    """

    def __init__(self, num_channels: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_channels))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x normalised over its last axis."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def for_products(x: torch.Tensor) -> torch.Tensor:
    """Return what several products read in the dtype that autocast makes them in, or as it is.

    Each of them would round the same numbers for itself, and widen its gradient again before they
    are added; so they are rounded once, to the very same ones.
    """
    kind = x.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return x
    return x.to(torch.get_autocast_dtype(kind))


def add_residual(hidden: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
    """Return hidden + update; without gradients, in hidden's own memory.

    Args:
        hidden: any shape; not to be used afterwards.
        update: the same shape.
    """
    if torch.is_grad_enabled():
        return hidden + update
    return hidden.add_(update)
