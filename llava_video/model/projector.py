"""Features of the vision tower -> vectors of the language model's width.

Linear layers with the exact GELU between them (the tower uses another): one in LLaVA's first
version, two since. Pooling may stand before the last, for the weights of bilinear and average
pooling add up to one:
    P (H W^T + 1 b^T) = (P H) W^T + 1 b^T
For a tile of 729 patches that become 196 rows this takes 11.06 GFLOP instead of 24.75 at a width of
3584 (2.24 times fewer), 1.82 instead of 2.68 at 896. The largest of some values does not commute
with a linear layer, so max pooling stays behind it. Knows no tile, no map and no newline.
"""

from collections.abc import Sequence

import torch
from torch import nn

from llava_video.model.layers import Linear
from llava_video.ops.activation import activate
from llava_video.values import PoolOf


class Projector(nn.Module):
    """Linear layers `linear1`, `linear2`, ... with a GELU between each two: "mlp2x_gelu" has two.

    Args:
        vision_size: channels of a feature.
        text_size: channels of a token.
        num_layers: linear layers, at least 1.
    """

    def __init__(self, vision_size: int, text_size: int, num_layers: int = 2) -> None:
        super().__init__()
        for idx in range(num_layers):
            layer = Linear(text_size if idx else vision_size, text_size)
            self.add_module(f"linear{idx + 1}", layer)

    @property
    def num_layers(self) -> int:
        """Linear layers."""
        return len(self._modules)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (..., text_size) of features (..., vision_size)."""
        return _through(self._layers, features)

    def num_before_pooling(self, pool_of: PoolOf, *, is_linear: bool) -> int:
        """Return how many layers come before the pooling.

        Where it is neither none nor all of them, the pooling applies the GELU between the two
        parts to what it reads.

        Args:
            pool_of: what the model pools.
            is_linear: whether pooling is a linear map, which the last layer may come after.
        """
        if pool_of == "features":
            return 0
        return self.num_layers - is_linear

    def before_pooling(self, features: torch.Tensor, num_before: int) -> torch.Tensor:
        """Return what is pooled of features (..., vision_size): what the first layers make."""
        return _through(self._layers[:num_before], features)

    def after_pooling(self, rows: torch.Tensor, num_before: int) -> torch.Tensor:
        """Return projected rows (..., text_size) of pooled ones: by the layers that are left."""
        return _through(self._layers[num_before:], rows)

    @property
    def _layers(self) -> Sequence[nn.Module]:
        return list(self.children())


def _through(layers: Sequence[nn.Module], x: torch.Tensor) -> torch.Tensor:
    """Return x after some linear layers with a GELU between each two; x itself after none.

    The layers may stand on another device than x, which goes there.
    """
    x = x.to(next(layers[0].parameters()).device) if layers else x
    for idx, layer in enumerate(layers):
        x = layer(activate(x, "gelu") if idx else x)
    return x
