"""transformers' LlavaOnevision config.json ↔ the original keys, so that one parser reads both.

Accepts the sparse style of transformers 4.45 (defaults left out, `rope_theta` beside the sizes) and
the style of 5.x (`rope_parameters`). Opens no file.
"""

from collections.abc import Mapping
from typing import Any

from llava_video.errors import CheckpointError
from llava_video.model.dimensions import VisionConfig
from llava_video.model.json_fields import JsonFields
from llava_video.model.original_config import SO400M

# What transformers' Qwen2Config and SiglipVisionConfig assume of a key that a file leaves out.
_TEXT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 4096,
    "intermediate_size": 22_016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
}
_VISION_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 16,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}

# The one video layout of transformers' class, in the original words.
HF_LAYOUT: dict[str, Any] = {
    "mm_patch_merge_type": "spatial_unpad",
    "mm_newline_position": "one_token",
    "mm_spatial_pool_mode": "bilinear",
    "add_faster_video": False,
    "add_time_instruction": False,
    "force_sample": False,
}
# Keys that transformers keeps but does not read; we read them back, so that saving loses nothing.
_KEPT = (
    *HF_LAYOUT,
    "mm_spatial_pool_stride",
    "faster_token_stride",
    "tokenizer_model_max_length",
    "tokenizer_padding_side",
)


def original_from_hf(values: Mapping[str, Any]) -> dict[str, Any]:
    """Spell a LlavaOnevision configuration in the original keys.

    Raises:
        CheckpointError: when a part of it is of another kind.
    """
    fields = JsonFields(values, "config.json")
    text, vision = fields.inner("text_config"), fields.inner("vision_config")
    _check_kind(fields, text, vision)
    ties = (fields.flag("tie_word_embeddings", False), text.flag("tie_word_embeddings", False))
    tower = _vision_values(vision, fields.values.get("vision_feature_layer", -1))
    return {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava",
        "mm_vision_tower": SO400M,
        "mm_hidden_size": tower["hidden_size"],
        "mm_projector_type": "mlp2x_gelu",
        **{key: text.values.get(key, default) for key, default in _TEXT_DEFAULTS.items()},
        **_head_dim(text),
        **_rope_values(text),
        **{key: text.values.get(key) for key in ("use_sliding_window", "max_window_layers")},
        "tie_word_embeddings": any(ties),
        **_special_ids(fields, text),
        **HF_LAYOUT,
        "image_aspect_ratio": fields.text("vision_aspect_ratio", "anyres_max_9"),
        "image_grid_pinpoints": _swapped(fields.values.get("image_grid_pinpoints"))
        or default_pinpoints(tower["image_size"]),
        "vision_config": tower,
        "torch_dtype": values.get(
            "dtype", values.get("torch_dtype", text.values.get("torch_dtype"))
        ),
        **{key: values[key] for key in _KEPT if key in values},
    }


def hf_from_original(values: Mapping[str, Any]) -> dict[str, Any]:
    """Spell an original configuration the way transformers 4.45 and newer read it.

    Video layouts that transformers' class does not have (newlines per row, other pooling) are kept
    under their original keys: it ignores them, this library reads them back.
    """
    vision = dict(values.get("vision_config") or {})
    text_keys = (*_TEXT_DEFAULTS, "head_dim", "rope_theta", "rope_scaling", "tie_word_embeddings")
    special_keys = ("bos_token_id", "eos_token_id", "use_sliding_window", "max_window_layers")
    text = {key: values[key] for key in (*text_keys, *special_keys) if values.get(key) is not None}
    vocab_size = int(values["vocab_size"])
    image_id = int(values.get("image_token_index") or 151_646)
    video_id = int(values.get("video_token_index") or image_id + 1)
    if video_id >= vocab_size:  # a small vocabulary: its last two rows, which nothing else uses
        image_id, video_id = vocab_size - 2, vocab_size - 1
    kept = {key: values[key] for key in _KEPT if values.get(key) not in (None, HF_LAYOUT.get(key))}
    return {
        "architectures": ["LlavaOnevisionForConditionalGeneration"],
        "model_type": "llava_onevision",
        "image_token_index": image_id,
        "video_token_index": video_id,
        "image_grid_pinpoints": _swapped(values.get("image_grid_pinpoints")),
        "vision_aspect_ratio": values.get("image_aspect_ratio", "square"),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": bool(values.get("tie_word_embeddings", False)),
        "torch_dtype": values.get("torch_dtype"),
        "text_config": {**text, "model_type": "qwen2"},
        "vision_config": {
            **vision_values(VisionConfig()),
            **vision,
            "model_type": "siglip_vision_model",
            "vision_use_head": False,
        },
        **kept,
    }


def vision_values(vision: VisionConfig) -> dict[str, Any]:
    """Spell the tower's sizes as a `vision_config` object."""
    return {
        "hidden_size": vision.hidden_size,
        "intermediate_size": vision.intermediate_size,
        "num_hidden_layers": vision.num_layers,
        "num_attention_heads": vision.num_heads,
        "image_size": vision.image_px,
        "patch_size": vision.patch_px,
        "num_channels": 3,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": vision.layer_norm_eps,
    }


def default_pinpoints(tile_px: int) -> list[list[int]]:
    """Return the 36 canvases of the family, 1 to 6 tiles each way."""
    sides = [tile_px * count for count in range(1, 7)]
    return [[a, b] for a in sides for b in sides]


def _check_kind(fields: JsonFields, text: JsonFields, vision: JsonFields) -> None:
    parts = (
        (text, "model_type", "qwen2"),
        (vision, "model_type", "siglip_vision_model"),
        (fields, "projector_hidden_act", "gelu"),
        (fields, "vision_feature_select_strategy", "full"),
    )
    for part, key, expected in parts:
        found = part.text(key, expected)
        if found != expected:
            raise CheckpointError(
                f"{part.place} has {key} = {found!r}, this version reads {expected!r}.",
                "use a LLaVA-OneVision checkpoint with a SigLIP tower and a Qwen2 decoder.",
            )
    if not fields.flag("multimodal_projector_bias", True):
        raise fields.wrong("multimodal_projector_bias", False, "true")
    sliding = [kind for kind in text.values.get("layer_types") or () if kind != "full_attention"]
    if sliding:
        raise text.wrong("layer_types", sliding[0], "'full_attention' in every layer")


def _vision_values(vision: JsonFields, feature_layer: object) -> dict[str, Any]:
    if not vision.values:  # no vision_config at all means so400m
        tower = vision_values(VisionConfig())
    else:
        tower = {key: vision.values.get(key, usual) for key, usual in _VISION_DEFAULTS.items()}
    num_layers = JsonFields(tower, vision.place).integer("num_hidden_layers")
    # transformers counts hidden states: -1 is after the last layer, -2 after the one before.
    is_layer = isinstance(feature_layer, int) and 0 < abs(feature_layer) <= num_layers
    if not isinstance(feature_layer, int) or not is_layer:
        raise vision.wrong("vision_feature_layer", feature_layer, "the index of one layer")
    used = feature_layer if feature_layer > 0 else num_layers + 1 + feature_layer
    return {**tower, "num_hidden_layers": min(used, num_layers)}


def _rope_values(text: JsonFields) -> dict[str, Any]:
    rope = text.inner("rope_parameters")
    theta = rope.values.get("rope_theta", text.values.get("rope_theta", 10_000.0))
    scaling = dict(rope.values) or dict(text.inner("rope_scaling").values)
    scaling.pop("rope_theta", None)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    return {"rope_theta": theta, "rope_scaling": None if kind == "default" else scaling}


def _head_dim(text: JsonFields) -> dict[str, Any]:
    return {"head_dim": text.values["head_dim"]} if text.has("head_dim") else {}


def _special_ids(fields: JsonFields, text: JsonFields) -> dict[str, Any]:
    ids: dict[str, Any] = {
        key: text.values.get(key, fields.values.get(key))
        for key in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    for ours, theirs in (
        ("image_token_index", "image_token_id"),
        ("video_token_index", "video_token_id"),
    ):
        ids[ours] = fields.values.get(ours, fields.values.get(theirs))
    return ids


def _swapped(pinpoints: Any) -> Any:
    """Swap (height, width) and (width, height); anything but a list of pairs is left as it is."""
    if not isinstance(pinpoints, list):
        return pinpoints
    return [pair[::-1] if isinstance(pair, list) else pair for pair in pinpoints]
