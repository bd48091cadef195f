"""Tiles -> features: a vision transformer whose last stored layer's output is the feature.

SigLIP and CLIP: learned positions and pre-norm layers. CLIP has a class token in front of the
patches, which every patch sees and no feature keeps, and a norm before its layers. Neither has a
norm after the last: the checkpoints were trained on what leaves it (reference trap T13), which in
CLIP is the last layer but one, so the last is not built. Knows neither frames nor the language
model.
"""

import torch
import torch.nn.functional as F
from torch import nn

from llava_video.model.dimensions import VisionConfig
from llava_video.model.layers import LayerNorm, Linear, add_residual, for_products
from llava_video.ops.activation import activate
from llava_video.ops.linear import linear


class PatchEmbedding(nn.Module):
    """One vector per patch: a convolution whose stride is its kernel; CLIP's has no bias.

    Args:
        config: sizes.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        side = config.patch_px
        self.weight = nn.Parameter(torch.empty(config.hidden_size, 3, side, side))
        has_bias = config.kind == "siglip"
        self.bias = nn.Parameter(torch.empty(config.hidden_size)) if has_bias else None

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (N, P, C) of pixels (N, 3, px, px); what is left of the last patch is unused."""
        num_tiles, num_colours, height_px, width_px = pixels.shape
        side = self.weight.shape[2]
        num_rows, num_cols = height_px // side, width_px // side
        whole = pixels[:, :, : num_rows * side, : num_cols * side]
        patches = whole.reshape(num_tiles, num_colours, num_rows, side, num_cols, side)
        # A matrix product instead of a convolution: the same sum, without its search for a kernel.
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(num_tiles, num_rows * num_cols, -1)
        return linear(patches, self.weight.flatten(1), self.bias)


class VisionLayer(nn.Module):
    """One layer: x + attention(norm(x)), then x + MLP(norm(x)).

    Args:
        config: sizes.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.norm1 = LayerNorm(hidden, config.layer_norm_eps)
        self.q_proj = Linear(hidden, hidden)
        self.k_proj = Linear(hidden, hidden)
        self.v_proj = Linear(hidden, hidden)
        self.out_proj = Linear(hidden, hidden)
        self.norm2 = LayerNorm(hidden, config.layer_norm_eps)
        self.fc1 = Linear(hidden, config.intermediate_size)
        self.fc2 = Linear(config.intermediate_size, hidden)
        self.num_heads = config.num_heads
        self.activation = config.activation

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return (N, P, C) after this layer; without gradients, in hidden's own memory."""
        hidden = add_residual(hidden, self._attend(self.norm1(hidden)))
        inner = activate(self.fc1(self.norm2(hidden)), self.activation)  # not the projector's
        return add_residual(hidden, self.fc2(inner))

    def _attend(self, normed: torch.Tensor) -> torch.Tensor:
        normed = for_products(normed)
        num_tiles, num_patches, num_channels = normed.shape
        heads = (num_tiles, num_patches, self.num_heads, num_channels // self.num_heads)
        q, k, v = (
            project(normed).view(heads).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)  # (N, H, P, C / H)
        out: torch.Tensor = self.out_proj(mixed.transpose(1, 2).reshape(normed.shape))
        return out


class VisionTower(nn.Module):
    """The encoder of tiles.

    Args:
        config: sizes.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = PatchEmbedding(config)
        width, is_clip = config.hidden_size, config.kind == "clip"
        self.class_embedding = nn.Parameter(torch.empty(width)) if is_clip else None
        num_positions = config.patches_per_side**2 + is_clip
        self.position_embedding = nn.Parameter(torch.empty(num_positions, width))
        self.pre_norm = LayerNorm(width, config.layer_norm_eps) if is_clip else None
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.num_layers))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the features of normalised tiles.

        Args:
            pixels: (N, 3, px, px), N >= 1, on the tower's device; any floating dtype.

        Returns:
            (N, P, C) in the tower's dtype, contiguous, P = (px // patch_px)^2, row by row.

        Raises:
            ValueError: when the tiles are not of the tower's size.
        """
        side = self.config.image_px
        if pixels.ndim != 4 or pixels.shape[1:] != (3, side, side):
            raise ValueError(f"tiles {tuple(pixels.shape)}, expected (N, 3, {side}, {side}).")
        hidden = self.patch_embedding(pixels.to(self.position_embedding.dtype))
        if self.class_embedding is not None:
            first = self.class_embedding.expand(len(hidden), 1, -1)
            hidden = torch.cat((first, hidden), dim=1)  # (N, 1 + P, C)
        hidden = add_residual(hidden, self.position_embedding.expand_as(hidden))
        if self.pre_norm is not None:
            hidden = self.pre_norm(hidden)
        for layer in self.layers:
            hidden = layer(hidden)
        # A copy, because a matrix product would make one for itself, and more slowly.
        features: torch.Tensor = hidden if self.class_embedding is None else hidden[:, 1:]
        return features.contiguous()
