"""Features of the vision tower -> vectors of the language model's width.

A two-layer MLP with the exact GELU (the tower uses the tanh one). Knows no tile, no pooling and no
newline.
"""

import torch
from torch import nn

from llava_video.model.layers import Linear
from llava_video.ops.activation import activate


class Projector(nn.Module):
    """Linear, GELU, linear: "mlp2x_gelu".

    Args:
        vision_size: channels of a feature.
        text_size: channels of a token.
    """

    def __init__(self, vision_size: int, text_size: int) -> None:
        super().__init__()
        self.linear1 = Linear(vision_size, text_size)
        self.linear2 = Linear(text_size, text_size)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (..., text_size) of features (..., vision_size)."""
        result: torch.Tensor = self.linear2(activate(self.linear1(features), "gelu"))
        return result
