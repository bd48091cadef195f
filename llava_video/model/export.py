"""Named tensors and a configuration → a checkpoint folder in either layout, whole or not at all.

Everything is written to a folder beside the target, which takes its name at the very end. Knows no
module: a model's parameters and freshly drawn tensors are written alike.
"""

import contextlib
import errno
import functools
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from llava_video.errors import CheckpointError
from llava_video.model.config_schema import DECODERS
from llava_video.model.dimensions import ModelDimensions, VisionConfig
from llava_video.model.hf_classes import ARCHITECTURES
from llava_video.model.hf_config import hf_from_original
from llava_video.model.json_fields import JsonFields
from llava_video.model.members import MEMBER_KEY, TEMPLATE_KEY, backbone_of
from llava_video.model.model_config import FileFormat, GenerationDefaults, ModelConfig
from llava_video.model.names import file_names, parameter_shapes, unused_tower_shapes
from llava_video.model.tensor_files import Entry, write_shards
from llava_video.model.tower_config import vision_values

DEFAULT_SHARD_BYTES: Final = 5_000_000_000

TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
)


def write_checkpoint(
    folder: str | Path,
    *,
    tensors: Mapping[str, Tensor],
    config: ModelConfig,
    layout: FileFormat,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write a checkpoint.

    Args:
        folder: the target; must not exist, or be empty.
        tensors: every parameter by our name, on any device.
        config: its sizes name the tensors, its values are written.
        layout: "original" (lmms-lab) or "hf" (llava-hf, which transformers 4.45 and newer read).
        shard_bytes: largest size of one file; a larger tensor has a file of its own.
        files: further files, by name.

    Returns:
        The folder.

    Raises:
        CheckpointError: a tensor is not of the configuration's shape, or the target is not empty or
            cannot be written; nothing is left behind.
    """
    _check_shapes(tensors, config.dimensions)
    target = Path(folder)
    with new_folder(target) as unfinished:
        write_shards(unfinished, _entries(tensors, config, layout), shard_bytes)
        write_json(unfinished / "config.json", config_values(config, layout, tensors))
        write_json(unfinished / "generation_config.json", generation_values(config.generation))
        for name, content in (files or {}).items():
            (unfinished / name).write_bytes(content)
    return target


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder to fill; it becomes `target` when all went well and vanishes otherwise.

    Args:
        target: must not exist, or be an empty folder.

    Raises:
        CheckpointError: it is a file or not empty, or cannot be written.
    """
    if target.is_file():
        raise CheckpointError(f"{target} is a file.", "name a new folder.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CheckpointError(f"{target} exists and is not empty.", "name a new folder.")
    missing = [folder for folder in target.parents if not folder.exists()]
    unfinished = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        os.replace(unfinished, target)  # noqa: PTH105 - the same call, and it may replace an empty folder
    except OSError as cause:
        raise _cannot_write(target, cause) from cause
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not target.exists():
            for folder in missing:
                with contextlib.suppress(OSError):
                    folder.rmdir()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write an object as readable JSON, its keys sorted."""
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def config_values(
    config: ModelConfig, layout: FileFormat, tensors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return what config.json says of these tensors in a layout."""
    is_tied = "language_model.lm_head.weight" not in tensors
    stored = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}
    original = {
        **config.values,
        "tie_word_embeddings": is_tied,
        "torch_dtype": stored.pop() if len(stored) == 1 else "float32",
        MEMBER_KEY: config.member,
        TEMPLATE_KEY: config.template,
    }
    if any(name.startswith("vision_tower.") for name in tensors):
        # The authors' code looks at this flag, not at the files: without it, it leaves the tower in
        # them and fetches the published one, which a tower that learned is not.
        original["unfreeze_mm_vision_tower"] = True
    named = original.get("architectures")
    if not named or named[0] in DECODERS:
        original |= _class_keys(config)
    original.pop("dtype", None)
    if isinstance(original.get("image_grid_pinpoints"), str):  # transformers reads lists alone
        pairs = [[width_px, height_px] for height_px, width_px in config.visual.canvases]
        original["image_grid_pinpoints"] = pairs
    if config.vision.kind == "siglip" and config.vision != VisionConfig():
        original["vision_config"] = vision_values(config.vision)
    return hf_from_original(original) if layout == "hf" else original


def _class_keys(config: ModelConfig) -> dict[str, Any]:
    """Return what tells the authors' code which of its classes to build."""
    backbone = backbone_of(JsonFields(config.values, "config.json"))
    if config.dimensions.fusion:
        name, model_type = "LlavaMiniLlamaForCausalLM", "llava_mini_llama"
    else:
        name, model_type = ARCHITECTURES[backbone], f"llava_{backbone.removesuffix('2')}"
    return {"architectures": [name], "model_type": model_type}


def generation_values(generation: GenerationDefaults) -> dict[str, Any]:
    """Return what generation_config.json says; defaults that are not known are left out."""
    eos_ids = list(generation.eos_ids)
    values: dict[str, Any] = {
        "bos_token_id": generation.bos_id,
        "eos_token_id": eos_ids[0] if len(eos_ids) == 1 else eos_ids or None,
        "pad_token_id": generation.pad_id,
        "do_sample": generation.do_sample or None,
        "repetition_penalty": generation.repetition_penalty,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "top_k": generation.top_k,
    }
    return {key: value for key, value in values.items() if value is not None}


def _check_shapes(tensors: Mapping[str, Tensor], dimensions: ModelDimensions) -> None:
    """See that every tensor is whole: under ZeRO-3 a process holds placeholders of no numbers."""
    shapes = parameter_shapes(dimensions)
    wrong = [
        f"{name} is {tuple(tensor.shape)}, not {shapes[name]}"
        for name, tensor in tensors.items()
        if name in shapes and tuple(tensor.shape) != shapes[name]
    ]
    if wrong:
        more = f"; {len(wrong) - 1:,} more are unlike" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"the tensors are not of the shapes that the configuration says: {wrong[0]}{more}.",
            "save with the configuration of the model; where ZeRO-3 shares a model out among "
            "processes, gather it first.",
        )


def _entries(
    tensors: Mapping[str, Tensor], config: ModelConfig, layout: FileFormat
) -> Iterator[Entry]:
    names = file_names(config.dimensions, layout)
    for ours, tensor in tensors.items():
        yield Entry(
            names[ours], tuple(tensor.shape), tensor.dtype, functools.partial(_itself, tensor)
        )
    yield from unused_entries(config.dimensions, layout, tensors["projector.linear1.bias"].dtype)


def unused_entries(
    dimensions: ModelDimensions, layout: FileFormat, dtype: torch.dtype
) -> Iterator[Entry]:
    """Yield the tower's last norm, whose output nothing of the family uses.

    Loaders of other libraries expect it; its weight is one and its bias zero.
    """
    for name, length in unused_tower_shapes(dimensions, layout).items():
        value = 1.0 if name.endswith("weight") else 0.0
        read = functools.partial(torch.full, (length,), value, dtype=dtype)
        yield Entry(name, (length,), dtype, read)


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _cannot_write(target: Path, cause: OSError) -> CheckpointError:
    if cause.errno == errno.ENOSPC:
        hint = "free some space, or save to another disk."
        return CheckpointError(f"no disk space is left to save {target}.", hint)
    return CheckpointError(
        f"{target} cannot be written: {cause}.", "check its folder's permissions."
    )
