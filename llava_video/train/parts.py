"""A model and a stage's settings → which parameters learn, how fast, and what is kept for them.

Source of the groups: LLaVA's trainer, {decayed, not decayed} x {parts}; biases and norms do not
decay. Knows no data and no loop.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from llava_video.errors import CheckpointError
from llava_video.model.llava import LlavaModel
from llava_video.train.settings import PARTS, Part, StageSettings

_LEARNED_TOKENS = ("image_newline", "separator")
_BESIDE = "beside the model"


def part_of(name: str) -> Part:
    """Return the part that a parameter of `LlavaModel` belongs to.

    >>> part_of("projector.linear1.weight"), part_of("image_newline")
    ('projector', 'learned_tokens')
    """
    first = name.partition(".")[0]
    if first in _LEARNED_TOKENS:
        return "learned_tokens"
    return next(part for part in PARTS if part == first)


def set_learning(model: LlavaModel, learn: Sequence[Part]) -> None:
    """Let some parts learn and freeze the others.

    A frozen tower is run as in inference: nothing of it is kept for gradients.

    Args:
        model: changed in place.
        learn: the parts.

    Raises:
        CheckpointError: one of them is not in the checkpoint.
    """
    found = {part_of(name) for name, _ in model.named_parameters()}
    lacking = [part for part in learn if part not in found]
    # A checkpoint without newline and separator has nothing to learn there; its other parts do.
    if [part for part in lacking if part != "learned_tokens"]:
        raise CheckpointError(f"the checkpoint has no {', '.join(lacking)} to learn.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in learn)
    if "vision_tower" not in learn:
        tower = model.vision_tower
        tower.forward = torch.no_grad()(tower.forward)  # type: ignore[method-assign]  # of this object


def run_in_bfloat16(model: LlavaModel) -> None:
    """Let a tower that does not learn run as on a GPU that answers: stored and run in bfloat16.

    After `set_learning`, which says whether it learns; one that does stays as it is. Autocast would
    keep its weights twice as wide, and round them at every step; a checkpoint in bfloat16 loses
    nothing.

    Args:
        model: changed in place.
    """
    tower = model.vision_tower
    if any(parameter.requires_grad for parameter in tower.parameters()):
        return
    forward = tower.to(torch.bfloat16).forward

    def plain(pixels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(tower.position_embedding.device.type, enabled=False):
            return forward(pixels)

    tower.forward = plain  # type: ignore[method-assign]  # of this object


def compute_again(model: LlavaModel) -> None:
    """Let every layer be computed again for its gradients instead of keeping what it needs.

    After `set_learning`: a tower that does not learn keeps nothing anyway.

    Args:
        model: changed in place.
    """
    tower = model.vision_tower
    is_learning = any(parameter.requires_grad for parameter in tower.parameters())
    for layer in [*(tower.layers if is_learning else ()), *model.language_model.layers]:
        layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)


def draw(model: LlavaModel, parts: Sequence[Part], seed: int) -> None:
    """Begin some parts with drawn numbers, as torch's linear layers and the original's newline.

    Args:
        model: changed in place.
        parts: of "projector" and "learned_tokens".
        seed: of the draw; the same numbers on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = {name: p.shape for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        if part_of(name) not in parts:
            continue
        if part_of(name) == "learned_tokens":
            drawn = torch.randn(parameter.shape, generator=generator) / parameter.shape[0] ** 0.5
        else:
            fan_in = sizes[name.replace(".bias", ".weight")][1]
            drawn = (torch.rand(parameter.shape, generator=generator) * 2 - 1) / math.sqrt(fan_in)
        parameter.data.copy_(drawn)


def parameter_groups(
    model: nn.Module, stage: StageSettings, prefix: str = ""
) -> list[dict[str, Any]]:
    """Return the optimiser's groups: one per part and decay, of what learns.

    Args:
        model: with `LlavaModel`'s names behind `prefix`.
        stage: rates and decay.
        prefix: "model." for a `TrainingModel`.

    Returns:
        {"name", "params", "lr", "weight_decay"} each; low-rank changes count as the language model.
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            own = name.removeprefix(prefix)
            # What stands beside the model, as the readers of dense losses, goes with training.
            part = part_of(own) if name.startswith(prefix) else _BESIDE
            groups.setdefault((part, decays(own)), []).append(parameter)
    return [
        {
            "name": f"{part}, {'decayed' if is_decayed else 'not decayed'}",
            "params": parameters,
            "lr": stage.learning_rate if part == _BESIDE else stage.rate_of(part),
            "weight_decay": stage.weight_decay if is_decayed else 0.0,
        }
        for (part, is_decayed), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def decays(name: str) -> bool:
    """Say whether weight decay pulls at a parameter: not at biases and norms.

    >>> decays("language_model.norm.weight"), decays("projector.linear1.weight")
    (False, True)
    """
    *modules, leaf = name.split(".")
    return leaf != "bias" and not any("norm" in module for module in modules[-1:])
