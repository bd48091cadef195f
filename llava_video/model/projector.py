"""Features of the vision tower -> vectors of the language model's width.

A two-layer MLP with the exact GELU (the tower uses the tanh one), or a single linear layer. Knows
no tile, no pooling and no newline.
"""

import torch
from torch import nn

from llava_video.model.dimensions import ProjectorKind
from llava_video.model.layers import Linear
from llava_video.ops.activation import activate


class Projector(nn.Module):
    """Linear, GELU, linear ("mlp2x_gelu"); or linear alone ("linear").

    Args:
        vision_size: channels of a feature.
        text_size: channels of a token.
        kind: which of the two.
    """

    def __init__(self, vision_size: int, text_size: int, kind: ProjectorKind) -> None:
        super().__init__()
        self.linear1 = Linear(vision_size, text_size)
        self.linear2 = Linear(text_size, text_size) if kind == "mlp2x_gelu" else None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (..., text_size) of features (..., vision_size)."""
        projected: torch.Tensor = self.linear1(features)
        if self.linear2 is None:
            return projected
        result: torch.Tensor = self.linear2(activate(projected, "gelu"))
        return result
