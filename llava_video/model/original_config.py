"""The original config.json (LlavaLlamaForCausalLM and its kin) → every size of the model.

Every key may be missing; the defaults are the ones the original code falls back to. A configuration
in transformers' own style reaches this file after `hf_config` has spelled it in these keys. Opens
no file and knows no weights.
"""

import re
from typing import Any

from llava_video.errors import CheckpointError
from llava_video.model.dimensions import (
    FusionConfig,
    ModelDimensions,
    Spare,
    TextConfig,
    VisionConfig,
)
from llava_video.model.json_fields import JsonFields
from llava_video.model.members import Backbone, backbone_of
from llava_video.model.tower_config import MOST_LAYERS, tower_kind, unsupported, vision_config_of
from llava_video.model.visual_layout import is_slow_fast
from llava_video.ops.frequency_bands import FrequencyBands

# What an override may change: keys whose values reach the model or the plan, and those that only
# say what the reference does (force_sample, tokenizer_padding_side).
READ_KEYS = frozenset(
    (
        "add_faster_video",
        "add_time_instruction",
        "attention_bias",
        "bos_token_id",
        "compressor_size",
        "eos_token_id",
        "faster_token_stride",
        "force_sample",
        "head_dim",
        "hidden_act",
        "hidden_size",
        "image_aspect_ratio",
        "image_grid_pinpoints",
        "intermediate_size",
        "max_position_embeddings",
        "max_window_layers",
        "mlp_bias",
        "mm_hidden_size",
        "mm_newline_position",
        "mm_patch_merge_type",
        "mm_pooling_position",
        "mm_projector_type",
        "mm_resampler_type",
        "mm_spatial_pool_mode",
        "mm_spatial_pool_stride",
        "mm_use_im_start_end",
        "mm_vision_select_feature",
        "mm_vision_select_layer",
        "mm_vision_tower",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "pad_token_id",
        "prefusion_layer_num",
        "quantization_config",
        "resolution_ratio",
        "rms_norm_eps",
        "rope_scaling",
        "rope_theta",
        "sliding_window",
        "tie_word_embeddings",
        "tokenizer_model_max_length",
        "tokenizer_padding_side",
        "torch_dtype",
        "use_sliding_window",
        "vision_config",
        "vocab_size",
    )
)

# What the decoders' classes assume of a key that a file leaves out.
_MAX_POSITIONS: dict[Backbone, int] = {"qwen2": 32_768, "llama": 2048, "mistral": 131_072}
_MISTRAL_WINDOW, _MISTRAL_KV_HEADS = 4096, 8


def check_supported(fields: JsonFields) -> None:
    """Refuse parts this library does not build.

    Raises:
        CheckpointError: what was found, what is expected, what to do.
    """
    expected: dict[str, tuple[object, ...]] = {
        "mm_resampler_type": (None, "none", "spatial_pool"),
        "hidden_act": (None, "silu"),
        "quantization_config": (None,),
        "mlp_bias": (None, False),
    }
    for key, allowed in expected.items():
        found = fields.values.get(key)
        if found not in allowed:
            words = " or ".join("nothing" if one is None else repr(one) for one in allowed)
            raise unsupported(key, found, words)
    _check_windows(fields)


def dimensions_of(fields: JsonFields) -> ModelDimensions:
    """Read every size of the model.

    Raises:
        CheckpointError: on a missing or impossible value, or a part this library does not build.
    """
    vision = vision_config_of(fields)
    is_video = fields.values.get("mm_resampler_type") == "spatial_pool"
    may_hold: dict[Spare, bool] = {"newline": vision.kind == "siglip", "projector copy": is_video}
    return ModelDimensions(
        vision=vision,
        text=_text_config(fields),
        spares=frozenset(spare for spare, is_so in may_hold.items() if is_so),
        has_newline="unpad" in fields.text("mm_patch_merge_type", "flat"),
        has_separator=is_slow_fast(fields),
        projector_layers=_projector_layers(fields),
        fusion=_fusion_config(fields, vision) if fields.has("compressor_size") else None,
    )


def context_of(fields: JsonFields, text: TextConfig) -> int:
    """Return the positions the model accepts, in tokens.

    The positions the decoder was made for, stretched by linear position scaling. Of a SigLIP member
    at most `tokenizer_model_max_length`, where the original code cuts. With CLIP that cut, which
    would take the question from behind a picture or a video, is lifted, unless a decoder sees no
    further than a window.

    Raises:
        CheckpointError: a decoder whose attention reaches less far than that.
    """
    positions = int(text.max_positions * text.rope_scale)
    cut = min(positions, fields.integer("tokenizer_model_max_length", positions))
    if tower_kind(fields) == "siglip" and not fields.has("compressor_size"):
        positions = cut
    if backbone_of(fields) == "mistral":
        is_said = "sliding_window" in fields.values
        window = fields.values["sliding_window"] if is_said else _MISTRAL_WINDOW
        reach = positions if window is None else fields.integer("sliding_window", _MISTRAL_WINDOW)
        if reach < cut:
            raise unsupported("sliding_window", window, f"none, or at least {cut} tokens")
        positions = min(positions, reach)
    return positions


def _check_windows(fields: JsonFields) -> None:
    """Refuse the layers of a Qwen decoder that see a window only."""
    if fields.flag("use_sliding_window", False):
        window_starts = fields.integer("max_window_layers", 28, at_least=0)
        if window_starts < fields.integer("num_hidden_layers"):
            raise unsupported("use_sliding_window", True, "full attention in every layer")


def _text_config(fields: JsonFields) -> TextConfig:
    backbone = backbone_of(fields)
    hidden_size = fields.integer("hidden_size")
    num_heads = fields.integer("num_attention_heads")
    usual_kv_heads = _MISTRAL_KV_HEADS if backbone == "mistral" else num_heads
    num_kv_heads = fields.integer("num_key_value_heads", usual_kv_heads)
    if not fields.has("head_dim") and hidden_size % num_heads:
        raise fields.wrong("num_attention_heads", num_heads, f"a divisor of {hidden_size}")
    if num_heads % num_kv_heads:
        raise fields.wrong("num_key_value_heads", num_kv_heads, f"a divisor of {num_heads}")
    return TextConfig(
        hidden_size=hidden_size,
        intermediate_size=fields.integer("intermediate_size"),
        num_layers=fields.integer("num_hidden_layers", at_most=MOST_LAYERS),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=fields.integer("head_dim", hidden_size // num_heads),
        vocab_size=fields.integer("vocab_size"),
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope_theta=fields.number("rope_theta", 10_000.0),
        max_positions=fields.integer("max_position_embeddings", _MAX_POSITIONS[backbone]),
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        qkv_bias=_has_qkv_bias(fields, backbone),
        **_rope(fields.inner("rope_scaling")),
    )


def _has_qkv_bias(fields: JsonFields, backbone: Backbone) -> bool:
    if backbone == "qwen2":
        return fields.flag("attention_bias", True)
    if fields.flag("attention_bias", False):
        # Llama's class puts a bias on the output projection too, which no layer here has.
        raise unsupported("attention_bias", True, f"projections of {backbone} without bias")
    return False


def _rope(scaling: JsonFields) -> dict[str, Any]:
    """Read the change of positions: transformers spelled its kind "type" before "rope_type"."""
    kind = scaling.values.get("rope_type", scaling.values.get("type"))
    if kind is None and scaling.has("factor"):
        # transformers refused this up to 4.x and ignores the factor since 5.
        raise CheckpointError(
            f"config.json has rope_scaling = {dict(scaling.values)!r}, a factor without a type.",
            'write "type": "linear" beside the factor, or rope_scaling null for positions as they '
            "are.",
        )
    kind = kind or "default"
    if kind == "default":
        return {}
    if kind == "linear":
        return {"rope_scale": scaling.number("factor")}
    if kind != "llama3":
        raise unsupported("rope_scaling", kind, "'linear', 'llama3' or none")
    bands = FrequencyBands(
        factor=scaling.number("factor"),
        low_factor=scaling.number("low_freq_factor"),
        high_factor=scaling.number("high_freq_factor"),
        positions=scaling.integer("original_max_position_embeddings"),
    )
    return {"rope_bands": bands}


def _projector_layers(fields: JsonFields) -> int:
    kind = fields.text("mm_projector_type", "linear")
    if kind == "linear":
        return 1
    layers = re.fullmatch(r"mlp([1-9]\d?)x_gelu", kind)
    if layers is None:
        raise unsupported("mm_projector_type", kind, "'linear' or 'mlpNx_gelu'")
    return int(layers[1])


def _fusion_config(fields: JsonFields, vision: VisionConfig) -> FusionConfig:
    fusion = FusionConfig(
        side=fields.integer("compressor_size"),
        num_layers=fields.integer("prefusion_layer_num", 4, at_most=MOST_LAYERS),
        split=fields.integer("resolution_ratio", 1),
    )
    if vision.hidden_size % fusion.num_heads:
        heads = f"a compressor of {fusion.num_heads} heads needs a multiple of them"
        raise fields.wrong("mm_hidden_size", vision.hidden_size, heads)
    return fusion
