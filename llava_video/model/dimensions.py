"""The sizes a model is built from, as plain values; a config reader turns files into them.

Imports no torch, so that plans and tables can be made from it; knows no checkpoint, file or name.
"""

from dataclasses import dataclass
from typing import Literal

from llava_video.ops.frequency_bands import FrequencyBands

TowerKind = Literal["siglip", "clip"]
Spare = Literal["newline", "projector copy"]
TowerActivation = Literal["gelu_tanh", "quick_gelu", "gelu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionConfig:
    """Sizes of the vision tower; the defaults are SigLIP so400m/14 at 384 px as the family uses it.

    A CLIP tower has a class token in front of the patches and a norm before its layers; the token
    is dropped from the feature.

    Attributes:
        hidden_size: channels of a feature.
        intermediate_size: channels inside the MLP.
        num_layers: layers that are run (the feature leaves after the last of them).
        num_heads: attention heads; `hidden_size` must divide by it.
        image_px: side of a tile, px.
        patch_px: side of a patch, px.
        layer_norm_eps: epsilon of the layer norms.
        kind: which tower.
        activation: inside the MLP.
        pixel_mean: what is subtracted from a channel in 0..1, red, green, blue.
        pixel_std: what it is divided by after that.
    """

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_layers: int = 26
    num_heads: int = 16
    image_px: int = 384
    patch_px: int = 14
    layer_norm_eps: float = 1e-6
    kind: TowerKind = "siglip"
    activation: TowerActivation = "gelu_tanh"
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def patches_per_side(self) -> int:
        """Rows and columns of a tile's map; pixels beyond the last whole patch are unused."""
        return self.image_px // self.patch_px


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """Sizes of the language model: Qwen1.5, Qwen2, Llama, Mistral, Yi.

    Attributes:
        hidden_size: channels of a token.
        intermediate_size: channels inside the gated MLP.
        num_layers: decoder layers.
        num_heads: query heads.
        num_kv_heads: key and value heads; `num_heads` is a multiple of it.
        head_dim: channels of one head.
        vocab_size: rows of the embedding and of the head.
        rms_norm_eps: epsilon of the RMS norms.
        rope_theta: base of the rotary embedding.
        rope_scale: position = index / rope_scale (linear scaling of the configuration).
        rope_bands: Llama 3's change of the frequencies; None without.
        max_positions: positions the model was made for.
        tie_embeddings: whether the head is the embedding matrix.
        qkv_bias: whether the query, key and value projections have a bias.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float
    rope_scale: float = 1.0
    rope_bands: FrequencyBands | None = None
    max_positions: int
    tie_embeddings: bool
    qkv_bias: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionConfig:
    """Sizes of LLaVA-Mini's compressor and pre-fusion, beside those of tower and language model.

    Attributes:
        side: rows and columns of the queries; a frame becomes side x side tokens.
        num_layers: decoder layers that fuse patches, queries and prompt.
        split: the frame is cut into split x split tiles beside the whole; 1 for the whole alone.
        num_heads: attention heads of the compressor.
    """

    side: int
    num_layers: int
    split: int = 1
    num_heads: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDimensions:
    """Everything that fixes the shapes of a `LlavaModel`.

    Attributes:
        vision: the vision tower.
        text: the language model.
        has_newline: whether there is a learned newline token.
        has_separator: whether there is a learned separator token (slow-fast layout).
        projector_layers: linear layers of the projector, a GELU between each two.
        fusion: LLaVA-Mini's; None for every other member.
        spares: what files may hold that nothing here needs: a newline token that the layout does
            not use, a second copy of the projector.
    """

    vision: VisionConfig
    text: TextConfig
    has_newline: bool = True
    has_separator: bool = False
    projector_layers: int = 2
    fusion: FusionConfig | None = None
    spares: frozenset[Spare] = frozenset()
