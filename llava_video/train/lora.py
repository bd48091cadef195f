"""Low-rank changes of the decoder through PEFT, and the folder they are saved as.

The folder is LLaVA's released one: `adapter_config.json`, the changes, `non_lora_trainables.bin`
with the other parts that learned, and the model's own `config.json`; texts in it say which base's
numbers it was trained over, and whether as integers (QLoRA). `load` merges it with its base as it
reads, or keeps it beside. Needs the `peft` package (extra `train`).
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from llava_video import backends
from llava_video.errors import CheckpointError, ConfigError
from llava_video.model.adapters import TRAINED_OVER, base_digest, stored_dtypes
from llava_video.model.export import config_values, new_folder, write_json
from llava_video.model.llava import LlavaModel
from llava_video.model.names import file_names
from llava_video.model.quantize import QuantLinear, format_of
from llava_video.model.shards import find_shards
from llava_video.model.sources import ADAPTER_CONFIG, ADAPTER_FILES, BESIDE_ADAPTER
from llava_video.model.spec import ModelSpec
from llava_video.train.settings import LoraSettings

_WRAPPER = "base_model.model."
_NAMED = ".default"  # what PEFT calls an adapter that has no name


def add_lora(model: LlavaModel, settings: LoraSettings, seed: int) -> None:
    """Put low-rank changes beside the decoder's linear layers; they begin as no change.

    Args:
        model: changed in place; of its decoder only the changes learn.
        settings: rank, scale and which layers.
        seed: of the numbers they begin with, the same on every device.

    Raises:
        BackendMissingError: without PEFT.
    """
    peft = backends.require("peft")
    config = peft.LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.modules),
        bias="none",
    )
    # PEFT's way for layers it does not know: its own one for linear layers does, since it calls
    # what it wraps and looks at no weight.
    config._register_custom_module({QuantLinear: peft.tuners.lora.Linear})
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Unsupported layer type", UserWarning)
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, model.language_model)


def check_base(spec: ModelSpec) -> None:
    """See that a model can be the base of an adapter.

    Raises:
        ConfigError: it is an adapter, a projector or a delta itself.
    """
    if spec.sources.kind != "whole":
        raise ConfigError(
            f"{spec.name} is itself over another model.",
            "merge it first: llava-video convert … --to original.",
        )


def save_adapter(
    model: LlavaModel, folder: Path, *, spec: ModelSpec, settings: LoraSettings
) -> Path:
    """Write what a stage with low-rank changes learned.

    Args:
        model: after `add_lora`.
        folder: the target; must not exist, or be empty.
        spec: the model it began with, which is its base.
        settings: of `add_lora`.

    Returns:
        The folder.

    Raises:
        CheckpointError: it cannot be written, or what learned holds no numbers.
    """
    names = file_names(spec.config.dimensions, "original")
    changes: dict[str, torch.Tensor] = {}
    others: dict[str, torch.Tensor] = {}
    changed: set[str] = set()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if not parameter.numel():  # of a process that holds a share alone: ZeRO-3's placeholder
            raise CheckpointError(
                f"{name} holds no numbers.",
                "gather the parameters of all processes (StageTrainer.gather), then save.",
            )
        tensor = parameter.detach().cpu().contiguous()
        module, is_change, side = name.partition(".lora_")
        if is_change:
            changed.add(f"{module}.weight")
            stored = names[f"{module}.weight"].removesuffix(".weight")
            changes[f"{_WRAPPER}{stored}.lora_{side.replace(_NAMED, '')}"] = tensor
        else:
            others[_WRAPPER + names[name]] = tensor
    if not changes:
        raise CheckpointError("the model has no low-rank changes to save.")
    base = find_shards(spec.sources.folder)
    digest = base_digest(changed, base, spec.config.dimensions)
    dtypes = stored_dtypes(changed, base, spec.config.dimensions)
    notes = {TRAINED_OVER: f"{format_of(model)} {digest} {dtypes}"}
    with new_folder(folder) as unfinished:
        save_file(changes, unfinished / ADAPTER_FILES[0], notes)
        if others:
            torch.save(others, unfinished / BESIDE_ADAPTER)
        write_json(unfinished / ADAPTER_CONFIG, _adapter_values(spec, settings))
        # A tower that did not learn is not in this folder, but where its base has it.
        told = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad or not name.startswith("vision_tower.")
        }
        values = config_values(spec.config, "original", told)
        # Merged, it is of its base's dtype, whatever the changes were learned in.
        values["torch_dtype"] = spec.config.stored_dtype
        write_json(unfinished / "config.json", values)
    return folder


def _adapter_values(spec: ModelSpec, settings: LoraSettings) -> dict[str, Any]:
    folder = spec.sources.folder
    # A folder that happens to have the name of what was read from elsewhere is not the base.
    is_local = folder == Path(spec.name).expanduser()
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(folder.resolve()) if is_local else spec.name,
        "r": settings.r,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": list(settings.modules),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
    }
