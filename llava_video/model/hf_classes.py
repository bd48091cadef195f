"""The model classes of transformers that conversions of the family are written for, as a table.

What each class is used with, its one layout of pictures and videos in the original words, and what
its decoders assume of a key that a file leaves out. Opens no file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from llava_video.model.dimensions import TowerKind
from llava_video.model.members import Backbone

# What transformers' classes of the decoders assume of a key that a file leaves out.
_LLAMA: dict[str, Any] = {
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TEXT_DEFAULTS: dict[Backbone, dict[str, Any]] = {
    "llama": _LLAMA,
    "mistral": {
        **_LLAMA,
        "intermediate_size": 14_336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
    },
    "qwen2": {
        "vocab_size": 151_936,
        "hidden_size": 4096,
        "intermediate_size": 22_016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "hidden_act": "silu",
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6,
    },
}
ARCHITECTURES: dict[Backbone, str] = {
    "llama": "LlavaLlamaForCausalLM",
    "mistral": "LlavaMistralForCausalLM",
    "qwen2": "LlavaQwenForCausalLM",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HfClass:
    """One model class of transformers.

    Attributes:
        architecture: its name in `architectures`.
        tower: the vision tower it is used with.
        backbones: the decoders it is used with.
        select: what it calls "all features of the tower": SigLIP has no class token to drop.
        layer: the hidden state that is the feature, where a file does not say it.
        layout: its one layout of pictures and videos, in the original words.
    """

    architecture: str
    tower: TowerKind
    backbones: tuple[Backbone, ...]
    select: Literal["default", "full"]
    layer: int
    layout: Mapping[str, Any]


_CLIP_BACKBONES: Final[tuple[Backbone, ...]] = ("llama", "mistral", "qwen2")
_NEXT_LAYOUT: dict[str, Any] = {
    "mm_patch_merge_type": "spatial_unpad",
    "image_aspect_ratio": "anyres",
}
HF_CLASSES: Final[dict[str, HfClass]] = {
    "llava": HfClass(
        architecture="LlavaForConditionalGeneration",
        tower="clip",
        backbones=_CLIP_BACKBONES,
        select="default",
        layer=-2,
        # The conversions' processors crop the middle of a picture; the weights were trained on
        # padded ones, and padding loses nothing.
        layout={"mm_patch_merge_type": "flat", "image_aspect_ratio": "pad"},
    ),
    "llava_next": HfClass(
        architecture="LlavaNextForConditionalGeneration",
        tower="clip",
        backbones=_CLIP_BACKBONES,
        select="default",
        layer=-2,
        layout=_NEXT_LAYOUT,
    ),
    "llava_next_video": HfClass(
        architecture="LlavaNextVideoForConditionalGeneration",
        tower="clip",
        backbones=_CLIP_BACKBONES,
        select="default",
        layer=-2,
        layout={**_NEXT_LAYOUT, "mm_resampler_type": "spatial_pool"},
    ),
    "llava_onevision": HfClass(
        architecture="LlavaOnevisionForConditionalGeneration",
        tower="siglip",
        backbones=("qwen2",),
        select="full",
        layer=-1,
        layout={
            "mm_patch_merge_type": "spatial_unpad",
            "mm_newline_position": "one_token",
            "mm_spatial_pool_mode": "bilinear",
            "add_faster_video": False,
            "add_time_instruction": False,
            "force_sample": False,
        },
    ),
}
