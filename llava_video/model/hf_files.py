"""The small files beside a checkpoint's weights, for transformers' processors and back.

transformers reads `<image>` and `<video>` as tokens of the vocabulary, and how a picture becomes
tiles from files of its own; the authors' code does without both. Knows no weight.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from llava_video.model.export import TOKENIZER_FILES
from llava_video.model.json_fields import read_json_object
from llava_video.model.model_config import ModelConfig
from llava_video.model.tokenizer import Tokenizer

_TOKENIZER, _TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
_ADDED, _IMAGES, _VIDEOS = (
    "added_tokens.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
_PROCESSOR = "processor_config.json"
# What only transformers' processors read.
_OF_PROCESSORS: Final = (_IMAGES, _VIDEOS, _PROCESSOR)
_COPIED: Final = tuple(
    name for name in (*TOKENIZER_FILES, "tokenizer.model") if name not in _OF_PROCESSORS
)
_PLACEHOLDERS: Final = {"<image>": "image_token", "<video>": "video_token"}
# Model type → the classes of its processor, of pictures and of videos.
_CLASSES: Final = {
    "llava": ("LlavaProcessor", "LlavaImageProcessor", None),
    "llava_next": ("LlavaNextProcessor", "LlavaNextImageProcessor", None),
    "llava_next_video": (
        "LlavaNextVideoProcessor",
        "LlavaNextImageProcessor",
        "LlavaNextVideoVideoProcessor",
    ),
    "llava_onevision": (
        "LlavaOnevisionProcessor",
        "LlavaOnevisionImageProcessor",
        "LlavaOnevisionVideoProcessor",
    ),
}
_BICUBIC: Final = 3


def files_for_hf(folder: Path, config: ModelConfig, values: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the tokenizer's files with the placeholders in them, and those of the processors.

    Args:
        folder: holds the tokenizer's files.
        config: of the checkpoint.
        values: the config.json that is written, in transformers' spelling.
    """
    ids = {
        token: int(values[f"{key}_index"])
        for token, key in _PLACEHOLDERS.items()
        if f"{key}_index" in values
    }
    files = _copied(folder)
    tokenizer = json.loads(Tokenizer(folder).to_json())
    added = [one for one in tokenizer.get("added_tokens") or () if one["content"] not in ids]
    tokenizer["added_tokens"] = added + [{"id": ids[t], **_token(t)} for t in ids]
    files[_TOKENIZER] = _text(tokenizer)
    settings = json.loads(files.get(_TOKENIZER_CONFIG, b"{}"))
    decoder = settings.get("added_tokens_decoder") or {}
    settings["added_tokens_decoder"] = decoder | {str(ids[t]): _token(t) for t in ids}
    settings |= {_PLACEHOLDERS[t]: t for t in ids}
    processor, pictures, videos = _CLASSES[values["model_type"]]
    files[_TOKENIZER_CONFIG] = _text(settings | {"processor_class": processor})
    files[_PROCESSOR] = _text(_processor_values(config, values) | {"processor_class": processor})
    common = _pixel_values(config) | {"processor_class": processor}
    files[_IMAGES] = _text(common | _tiling(config, values) | {"image_processor_type": pictures})
    if videos:
        files[_VIDEOS] = _text(common | {"video_processor_type": videos})
    return files


def files_for_original(folder: Path, num_text_ids: int) -> dict[str, bytes]:
    """Return the tokenizer's files without the placeholders, and nothing of the processors.

    Args:
        folder: holds the tokenizer's files.
        num_text_ids: ids from here on were added by the conversion.
    """
    files = _copied(folder)
    for name in (_TOKENIZER, _TOKENIZER_CONFIG, _ADDED):
        if name in files:
            values = json.loads(files[name])
            files[name] = _text(_without_added(name, values, num_text_ids))
    return files


def _without_added(name: str, values: dict[str, Any], num_text_ids: int) -> dict[str, Any]:
    if name == _ADDED:
        return {token: one for token, one in values.items() if _is_text(token, one, num_text_ids)}
    if name == _TOKENIZER:
        added = values.get("added_tokens") or []
        kept = [one for one in added if _is_text(one["content"], one["id"], num_text_ids)]
        return values | {"added_tokens": kept}
    names = (*_PLACEHOLDERS.values(), "processor_class")
    values = {key: value for key, value in values.items() if key not in names}
    if "added_tokens_decoder" in values:
        values["added_tokens_decoder"] = {
            token_id: token
            for token_id, token in values["added_tokens_decoder"].items()
            if _is_text(token["content"], int(token_id), num_text_ids)
        }
    return values


def _is_text(token: str, token_id: int, num_text_ids: int) -> bool:
    return token not in _PLACEHOLDERS and token_id < num_text_ids


def _copied(folder: Path) -> dict[str, bytes]:
    found = {name: folder / name for name in _COPIED if (folder / name).is_file()}
    for name in (_TOKENIZER, _TOKENIZER_CONFIG):
        if name in found:
            read_json_object(found[name])  # says which file is damaged, and how
    return {name: path.read_bytes() for name, path in found.items()}


def _token(content: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"content": content, **flags, "special": True}


def _processor_values(config: ModelConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "vision_feature_select_strategy": values["vision_feature_select_strategy"],
        **{key: token for token, key in _PLACEHOLDERS.items() if f"{key}_index" in values},
    }
    if values["model_type"] == "llava_onevision":
        ratio = values["vision_aspect_ratio"]
        num_tokens = config.vision.patches_per_side**2
        return found | {"num_image_tokens": num_tokens, "vision_aspect_ratio": ratio}
    # The class token is counted as one more and taken away again by "default".
    return found | {"patch_size": config.vision.patch_px, "num_additional_image_tokens": 1}


def _pixel_values(config: ModelConfig) -> dict[str, Any]:
    vision = config.vision
    square = {"height": vision.image_px, "width": vision.image_px}
    is_clip = vision.kind == "clip"
    cropped = {"do_center_crop": True, "crop_size": square} if is_clip else {}
    return {
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": vision.image_px} if is_clip else square,
        **cropped,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(vision.pixel_mean),
        "image_std": list(vision.pixel_std),
        "resample": _BICUBIC,
    }


def _tiling(config: ModelConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    if values["model_type"] == "llava":
        return {"do_pad": config.visual.aspect == "pad"}
    return {"image_grid_pinpoints": values["image_grid_pinpoints"], "do_pad": True}


def _text(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
