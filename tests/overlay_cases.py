"""A tiny checkpoint → its weights in pieces: a tower apart, an adapter, a projector, a delta.

Each piece is written as the original code writes it, from tensors drawn here, so that a test knows
what their merging must give.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

TOWER = "model.vision_tower.vision_tower."
PROJECTOR = "model.mm_projector."
Q_PROJ = "model.layers.0.self_attn.q_proj"
DOWN_PROJ = "model.layers.1.mlp.down_proj"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
NORM = "model.norm.weight"


def stored(folder: Path) -> dict[str, Tensor]:
    """Read every tensor of a folder with one safetensors file."""
    return load_file(folder / "model.safetensors")


def write_model(
    source: Path, target: Path, tensors: Mapping[str, Tensor], **config: object
) -> Path:
    """Write tensors as a checkpoint with the small files of another, some config keys changed."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors"))
    save_file({n: t.contiguous().clone() for n, t in tensors.items()}, target / "model.safetensors")
    return change_config(target, **config)


def change_config(folder: Path, **config: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def write_tower_apart(source: Path, target: Path, tower_name: str = "owner/tower") -> Path:
    """Write a checkpoint whose tower is in a folder of its own, beside it."""
    whole = stored(source)
    tower = {n.removeprefix(TOWER): t for n, t in whole.items() if n.startswith(TOWER)}
    rest = {n: t for n, t in whole.items() if not n.startswith(TOWER)}
    beside = {
        "text_model.encoder.layers.0.mlp.fc1.weight": torch.zeros(2, 2),
        "visual_projection.weight": torch.zeros(2, 2),
        "logit_scale": torch.zeros(()),
        "vision_model.head.probe": torch.zeros(1, 1, 2),
        "vision_model.embeddings.position_ids": torch.arange(4),
    }
    folder = target.parent / tower_name
    folder.mkdir(parents=True)
    save_file(tower | beside, folder / "model.safetensors")
    sizes = json.loads((source / "config.json").read_text())["vision_config"]
    sizes["num_hidden_layers"] += 1  # the original code leaves the last one out
    values = {"model_type": "siglip_vision_model", **sizes}
    (folder / "config.json").write_text(json.dumps(values))
    return write_model(source, target, rest, mm_vision_tower=tower_name)


def write_small_files(source: Path, target: Path, **config: object) -> Path:
    """Begin an overlay: config.json and nothing else."""
    target.mkdir()
    shutil.copy(source / "config.json", target)
    return change_config(target, **config)


def low_rank(rank: int, height: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw A (r, in) and B (out, r)."""
    draw = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, width, generator=draw)
    return down, torch.randn(height, rank, generator=draw)


def write_adapter(
    base: Path,
    target: Path,
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    beside: Mapping[str, Tensor] | None = None,
    **changed: object,
) -> Path:
    """Write a LoRA folder over a base.

    Args:
        base: named by the adapter, as a folder beside it when it is one.
        target: the folder to write.
        pairs: module in the file → A and B.
        beside: what was trained whole, by its name in a whole checkpoint.
        **changed: keys of adapter_config.json.
    """
    write_small_files(base, target)
    named = str(base.name if base.parent == target.parent else base)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": named}
    (target / "adapter_config.json").write_text(json.dumps({**config, "bias": "none", **changed}))
    tensors = {}
    for module, (down, up) in pairs.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = down
        tensors[f"base_model.model.{module}.lora_B.weight"] = up
    torch.save(tensors, target / "adapter_model.bin")
    if beside is not None:
        named_so = {f"base_model.model.{name}": tensor for name, tensor in beside.items()}
        torch.save(named_so, target / "non_lora_trainables.bin")
    return target


def write_projector(
    base: Path, target: Path, tensors: Mapping[str, Tensor], **config: object
) -> Path:
    """Write a folder with a projector alone, the base's but for what is given.

    Its config.json names the base.
    """
    usual = {"tune_mm_mlp_adapter": True, "_name_or_path": str(base)}
    write_small_files(base, target, **{**usual, **config})
    whole = {name: t for name, t in stored(base).items() if name.startswith(PROJECTOR)}
    torch.save(whole | dict(tensors), target / "mm_projector.bin")
    return target
