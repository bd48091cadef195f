"""The keys of a config.json → whose they are: the authors', or those of transformers' own classes.

Told by `architectures` and the keys, not by `model_type`: the hub says "llava" for most originals,
and transformers means its own class by it. Reads no value of a key that shapes a model.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, Literal

from llava_video.errors import CheckpointError
from llava_video.model.hf_classes import HF_CLASSES
from llava_video.model.json_fields import JsonFields
from llava_video.model.tower_config import TOWER_TYPES

Schema = Literal["original", "hf"]

_ORIGINAL = re.compile(r"Llava(Llama|Mistral|Qwen|MiniLlama|MPT|Mpt)ForCausalLM")
# What a configuration is of that was trained from a decoder and never saved as a whole.
DECODERS = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"})


def schema_of(values: Mapping[str, Any]) -> Schema:
    """Say whose keys a configuration has.

    Raises:
        CheckpointError: `architectures` and the keys contradict each other, or it is of another
            kind of model, as a bare vision tower.
    """
    names = JsonFields(values, "config.json").texts("architectures")
    model_type = str(values.get("model_type"))
    stated = {layout for name in names if (layout := _layout_named(name)) is not None}
    found: set[Schema] = set()
    if "mm_vision_tower" in values or "mm_projector_type" in values:
        found.add("original")
    if "text_config" in values or (model_type in HF_CLASSES and "vision_config" in values):
        found.add("hf")
    # Beside an adapter or a projector, training leaves the decoder's own architecture.
    is_open = all(name in DECODERS for name in names)
    if len(stated) > 1 or (stated and found and not stated & found) or (is_open and len(found) > 1):
        raise _collision(names, stated)
    if stated:
        return stated.pop()
    if is_open and found == {"original"}:
        return "original"
    if not names and found == {"hf"} and model_type in HF_CLASSES:
        return "hf"
    raise _another_kind(names, model_type)


def _layout_named(architecture: str) -> Schema | None:
    if any(kind.architecture == architecture for kind in HF_CLASSES.values()):
        return "hf"
    return "original" if _ORIGINAL.fullmatch(architecture) else None


def _collision(names: tuple[str, ...], stated: Collection[Schema]) -> CheckpointError:
    keys = {
        "original": "mm_vision_tower and sizes beside it, of the authors' layout",
        "hf": "text_config and vision_config, of transformers' layout",
    }
    means = " and ".join(keys[layout] for layout in sorted(stated)) or "one of two layouts"
    return CheckpointError(
        f"config.json contradicts itself: architectures = {list(names)} means {means}, but "
        f"{'its keys are of the other layout' if len(stated) == 1 else 'both are there'}.",
        "write the architecture that goes with the keys: LlavaLlamaForCausalLM and its like with "
        "mm_vision_tower, LlavaForConditionalGeneration and its like with text_config.",
    )


def _another_kind(names: tuple[str, ...], model_type: str) -> CheckpointError:
    if model_type in TOWER_TYPES:
        return CheckpointError(
            f"this is a vision tower (model_type = {model_type!r}), not a model that answers.",
            "load the checkpoint that was trained with it, and pass this folder as vision_tower=.",
        )
    return CheckpointError(
        "config.json describes another kind of model: "
        f"architectures = {list(names)}, model_type = {model_type!r}; this version reads "
        "LlavaLlamaForCausalLM, LlavaMistralForCausalLM, LlavaQwenForCausalLM, "
        "LlavaMiniLlamaForCausalLM and, of transformers, "
        f"{', '.join(kind.architecture for kind in HF_CLASSES.values())}.",
        "use a checkpoint of the LLaVA family; `llava-video models` lists them.",
    )
