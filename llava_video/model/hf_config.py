"""transformers' own config.json ↔ the original keys, so that one parser reads both.

Reads Llava, LlavaNext, LlavaNextVideo and LlavaOnevision, in the sparse style of transformers 4.36
to 4.57 (defaults left out, `rope_theta` beside the sizes) and in the style of 5.x
(`rope_parameters`). Opens no file.
"""

from collections.abc import Mapping
from typing import Any

from llava_video.errors import CheckpointError
from llava_video.model.dimensions import VisionConfig
from llava_video.model.hf_classes import ARCHITECTURES, HF_CLASSES, TEXT_DEFAULTS, HfClass
from llava_video.model.json_fields import JsonFields
from llava_video.model.members import (
    FPS_KEY,
    MAX_FRAMES_KEY,
    MEMBER_KEY,
    TEMPLATE_KEY,
    Backbone,
    backbone_of,
    member_of,
)
from llava_video.model.tower_config import (
    CLIP_L,
    CLIP_L_336,
    SO400M,
    completed,
    known_tower,
    tower_kind,
    vision_config_of,
    vision_values,
)

_MEMBER_CLASSES = {
    "LLaVA-1.5": "llava",
    "LLaVA-NeXT": "llava_next",
    "LLaVA-NeXT-Video": "llava_next_video",
    "LLaVA-OneVision": "llava_onevision",
    "LLaVA-Critic": "llava_onevision",
    "LLaVA-Video": "llava_onevision",
}
# Keys that transformers keeps but does not read; we read them back, so that saving loses nothing.
_KEPT = (
    "_name_or_path",
    MEMBER_KEY,
    TEMPLATE_KEY,
    FPS_KEY,
    MAX_FRAMES_KEY,
    "mm_patch_merge_type",
    "mm_newline_position",
    "mm_pooling_position",
    "mm_spatial_pool_mode",
    "mm_spatial_pool_stride",
    "mm_use_im_start_end",
    "add_faster_video",
    "add_time_instruction",
    "force_sample",
    "faster_token_stride",
    "image_aspect_ratio",
    "tokenizer_model_max_length",
    "tokenizer_padding_side",
)
_CLIP_PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def original_from_hf(values: Mapping[str, Any]) -> dict[str, Any]:
    """Spell a configuration of transformers' own classes in the original keys.

    Raises:
        CheckpointError: when a part of it is of another kind.
    """
    fields = JsonFields(values, "config.json")
    text = fields.inner("text_config")
    kind, model_type = _class_of(fields)
    backbone = _checked_backbone(fields, kind)
    ties = (fields.flag("tie_word_embeddings", False), text.flag("tie_word_embeddings", False))
    tower = _tower_keys(fields, kind)
    sizes = JsonFields(tower["vision_config"], "config.json vision_config")
    defaults = TEXT_DEFAULTS[backbone]
    kept = {key: values[key] for key in _KEPT if key in values}
    return {
        "architectures": [ARCHITECTURES[backbone]],
        "model_type": "llava",
        **tower,
        "mm_projector_type": "mlp2x_gelu",
        **{key: text.values.get(key, default) for key, default in defaults.items()},
        **_stated(text, "head_dim", "attention_bias", "mlp_bias"),
        **_rope_values(text),
        **{key: text.values.get(key) for key in ("use_sliding_window", "max_window_layers")},
        "tie_word_embeddings": any(ties),
        **_special_ids(fields, text, defaults),
        **kind.layout,
        **_pictures(fields, model_type, sizes.integer("image_size")),
        "torch_dtype": values.get(
            "dtype", values.get("torch_dtype", text.values.get("torch_dtype"))
        ),
        **kept,
    }


def hf_from_original(values: Mapping[str, Any]) -> dict[str, Any]:
    """Spell an original configuration the way transformers 4.45 and newer read it.

    Layouts that transformers' class does not have (newlines per row, pooling after the projector)
    are kept under their original keys: it ignores them, this library reads them back. Of a CLIP
    tower only the layers that run are told, and that the last of them is the feature.

    Raises:
        CheckpointError: transformers has no class for this member.
    """
    fields = JsonFields(values, "config.json")
    model_type = _hf_type_of(fields)
    kind, backbone = HF_CLASSES[model_type], backbone_of(fields)
    layout = kind.layout
    kept = {key: values[key] for key in _KEPT if values.get(key) not in (None, layout.get(key))}
    stated = ("head_dim", "rope_theta", "rope_scaling", "tie_word_embeddings", "attention_bias")
    windows = ("use_sliding_window", "max_window_layers", "sliding_window")
    text_keys = dict.fromkeys((*TEXT_DEFAULTS[backbone], *stated, *windows[:2]))
    text_keys |= dict.fromkeys(("bos_token_id", "eos_token_id"))
    text = {key: values[key] for key in text_keys if values.get(key) is not None}
    if backbone == "mistral" and "sliding_window" in values:
        text["sliding_window"] = values["sliding_window"]  # none is not the class's default
    return {
        "architectures": [kind.architecture],
        "model_type": model_type,
        **_placeholders(values, model_type),
        **_hf_pictures(values, model_type),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": kind.select,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": bool(values.get("tie_word_embeddings", False)),
        "torch_dtype": values.get("torch_dtype"),
        "text_config": {**text, "model_type": backbone},
        "vision_config": _hf_tower(fields),
        **kept,
    }


def default_pinpoints(tile_px: int) -> list[list[int]]:
    """Return the 36 canvases of the family, 1 to 6 tiles each way."""
    sides = [tile_px * count for count in range(1, 7)]
    return [[a, b] for a in sides for b in sides]


def _class_of(fields: JsonFields) -> tuple[HfClass, str]:
    named = fields.texts("architectures")
    for model_type, kind in HF_CLASSES.items():
        if kind.architecture in named:
            return kind, model_type
    model_type = fields.text("model_type")
    return HF_CLASSES[model_type], model_type


def _checked_backbone(fields: JsonFields, kind: HfClass) -> Backbone:
    text, vision = fields.inner("text_config"), fields.inner("vision_config")
    parts = (
        (text, "model_type", kind.backbones),
        (vision, "model_type", (f"{kind.tower}_vision_model",)),
        (fields, "projector_hidden_act", ("gelu",)),
        (fields, "vision_feature_select_strategy", (kind.select,)),
    )
    for part, key, expected in parts:
        found = part.text(key, expected[0])
        if found not in expected:
            raise CheckpointError(
                f"{part.place} has {key} = {found!r}, this version reads "
                f"{' or '.join(map(repr, expected))} in a {kind.architecture}.",
                "use a conversion of a LLaVA checkpoint; `llava-video models` lists them.",
            )
    if not fields.flag("multimodal_projector_bias", True):
        raise fields.wrong("multimodal_projector_bias", False, "true")
    sliding = [one for one in text.values.get("layer_types") or () if one != "full_attention"]
    if sliding:
        raise text.wrong("layer_types", sliding[0], "'full_attention' in every layer")
    found = text.text("model_type", kind.backbones[0])
    return next(backbone for backbone in kind.backbones if backbone == found)


def _tower_keys(fields: JsonFields, kind: HfClass) -> dict[str, Any]:
    """Return the tower's sizes and, of a CLIP tower, its name and the layer that is the feature."""
    vision = fields.inner("vision_config")
    layer = fields.values.get("vision_feature_layer", kind.layer)
    is_clip = kind.tower == "clip"
    if vision.values:
        tower = completed({**vision.values, "model_type": f"{kind.tower}_vision_model"})
    else:  # no vision_config at all means the family's own
        tower = (known_tower(CLIP_L_336) if is_clip else None) or vision_values(VisionConfig())
    num_layers = JsonFields(tower, vision.place).integer("num_hidden_layers")
    # transformers counts hidden states: -1 is after the last layer, -2 after the one before.
    if not isinstance(layer, int) or not 0 < abs(layer) <= num_layers:
        raise vision.wrong("vision_feature_layer", layer, "the index of one layer")
    if is_clip:
        name = CLIP_L if tower["image_size"] == 224 else CLIP_L_336
        return {
            "mm_vision_tower": name,
            "mm_vision_select_layer": layer,
            "mm_hidden_size": tower["hidden_size"],
            "vision_config": tower,
        }
    used = layer if layer > 0 else num_layers + 1 + layer
    tower = {**tower, "num_hidden_layers": min(used, num_layers)}
    return {
        "mm_vision_tower": SO400M,
        "mm_hidden_size": tower["hidden_size"],
        "vision_config": tower,
    }


def _pictures(fields: JsonFields, model_type: str, tile_px: int) -> dict[str, Any]:
    """Return how pictures and videos are laid out where the class leaves a choice."""
    pinpoints = _swapped(fields.values.get("image_grid_pinpoints"))
    if model_type == "llava":
        return {}
    if model_type == "llava_onevision":
        ratio = fields.text("vision_aspect_ratio", "anyres_max_9")
        usual = default_pinpoints(tile_px)
        return {"image_aspect_ratio": ratio, "image_grid_pinpoints": pinpoints or usual}
    tiled = {"image_grid_pinpoints": pinpoints or _swapped(_CLIP_PINPOINTS)}
    if model_type == "llava_next":
        return tiled
    return {
        **tiled,
        "mm_spatial_pool_mode": fields.text("spatial_pool_mode", "average"),
        "mm_spatial_pool_stride": fields.integer("spatial_pool_stride", 2),
    }


def _hf_pictures(values: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    if model_type == "llava":
        return {}
    found = {"image_grid_pinpoints": _swapped(values.get("image_grid_pinpoints"))}
    if model_type == "llava_onevision":
        return found | {"vision_aspect_ratio": values.get("image_aspect_ratio", "square")}
    if model_type == "llava_next":
        return found
    return found | {
        "spatial_pool_mode": values.get("mm_spatial_pool_mode") or "average",
        "spatial_pool_stride": values.get("mm_spatial_pool_stride") or 2,
    }


def _hf_type_of(fields: JsonFields) -> str:
    member, why = member_of(fields.values)
    model_type = _MEMBER_CLASSES.get(member.name)
    projector = fields.text("mm_projector_type", "linear")
    if model_type is None or projector != "mlp2x_gelu":
        raise CheckpointError(
            f"transformers has no class for {member.name} ({why}).",
            "write it in the original layout.",
        )
    tower = tower_kind(fields)
    if HF_CLASSES[model_type].tower != tower:
        raise CheckpointError(
            f"transformers' {HF_CLASSES[model_type].architecture} has a CLIP tower, "
            f"the checkpoint's is {fields.values.get('mm_vision_tower')!r}.",
            "write it in the original layout.",
        )
    return model_type


def _hf_tower(fields: JsonFields) -> dict[str, Any]:
    vision = vision_config_of(fields)
    if vision.kind == "clip":
        return vision_values(vision)
    return {
        **vision_values(vision),
        **fields.inner("vision_config").values,
        "model_type": "siglip_vision_model",
        "vision_use_head": False,
    }


def _placeholders(values: Mapping[str, Any], model_type: str) -> dict[str, int]:
    """Return the ids that stand for a picture and a video; they must be rows of the embedding."""
    vocab_size = int(values["vocab_size"])
    usual = 151_646 if model_type == "llava_onevision" else vocab_size
    image_id = int(values.get("image_token_index") or usual)
    video_id = int(values.get("video_token_index") or image_id + 1)
    if max(image_id, video_id) >= vocab_size:  # the last two rows, which hardly a text uses
        image_id, video_id = vocab_size - 2, vocab_size - 1
    ids = {"image_token_index": image_id, "video_token_index": video_id}
    return (
        ids
        if "video" in model_type or "onevision" in model_type
        else {"image_token_index": image_id}
    )


def _stated(fields: JsonFields, *keys: str) -> dict[str, Any]:
    return {key: fields.values[key] for key in keys if fields.has(key)}


def _rope_values(text: JsonFields) -> dict[str, Any]:
    rope = text.inner("rope_parameters")
    theta = rope.values.get("rope_theta", text.values.get("rope_theta", 10_000.0))
    scaling = dict(rope.values) or dict(text.inner("rope_scaling").values)
    scaling.pop("rope_theta", None)
    # A factor without a type is left as it is: it is an error in either spelling.
    usual = None if "factor" in scaling else "default"
    kind = scaling.get("rope_type", scaling.get("type", usual))
    return {"rope_theta": theta, "rope_scaling": None if kind == "default" else scaling}


def _special_ids(
    fields: JsonFields, text: JsonFields, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    ids: dict[str, Any] = {
        key: text.values.get(key, fields.values.get(key, defaults.get(key)))
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
