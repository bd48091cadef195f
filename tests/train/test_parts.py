"""Which parameters learn and how fast: by hand, over a tiny checkpoint's names."""

from pathlib import Path
from typing import Any

import pytest
import torch

from llava_video.config import from_mapping
from llava_video.errors import CheckpointError
from llava_video.model.checkpoint import load_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config
from llava_video.train.forward import Example, TrainingModel, pack
from llava_video.train.parts import (
    compute_again,
    decays,
    draw,
    parameter_groups,
    part_of,
    run_in_bfloat16,
    set_learning,
)
from llava_video.train.settings import PARTS, StageSettings


@pytest.fixture
def model(tiny_folder: Path) -> LlavaModel:
    return load_model(tiny_folder, config=read_model_config(tiny_folder), device="cpu")


def stage(**changes: Any) -> StageSettings:
    data = {"sources": [{"path": "data.json"}]}
    return from_mapping(StageSettings, {"model": "m", "output": "o", "data": data, **changes})


def batch(model: LlavaModel) -> Any:
    ids = tuple(range(40, 60))
    tiles = torch.zeros(0, 3, 56, 56)
    return pack([Example(ids=ids, labels=(*[-100] * 10, *ids[10:]), plans=(), tiles=tiles)])


def test_every_parameter_has_a_part(model: LlavaModel):
    found = {part_of(name) for name, _ in model.named_parameters()}
    assert found == set(PARTS)


def test_what_does_not_learn_gets_no_gradient(model: LlavaModel):
    set_learning(model, ["projector", "learned_tokens"])
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    expected = {f"projector.linear{i}.{leaf}" for i in (1, 2) for leaf in ("weight", "bias")}
    assert learning == expected | {"image_newline"}
    tiles = torch.zeros(1, 3, 56, 56)
    assert not model.vision_tower(tiles).requires_grad
    assert model.projector(model.vision_tower(tiles)).requires_grad
    set_learning(model, ["vision_tower"])


def test_a_tower_that_learns_has_gradients(model: LlavaModel):
    set_learning(model, ["vision_tower"])
    assert model.vision_tower(torch.zeros(1, 3, 56, 56)).requires_grad


def test_a_frozen_tower_runs_as_one_that_answers_in_bfloat16(model: LlavaModel, tiny_folder: Path):
    answering = load_model(
        tiny_folder,
        config=read_model_config(tiny_folder),
        device="cpu",
        dtype=torch.bfloat16,
    )
    tiles = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = answering.vision_tower(tiles)
    set_learning(model, ["projector"])
    with torch.autocast("cpu", torch.bfloat16):
        by_autocast = model.vision_tower(tiles)
        run_in_bfloat16(model)
        found = model.vision_tower(tiles)
    assert torch.equal(found, expected)
    assert not torch.equal(by_autocast.bfloat16(), expected)
    assert not found.requires_grad
    assert model.projector.get_parameter("linear1.weight").dtype is torch.float32


def test_a_tower_that_learns_keeps_its_weights_as_they_are(model: LlavaModel):
    set_learning(model, ["vision_tower"])
    run_in_bfloat16(model)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.vision_tower(torch.zeros(1, 3, 56, 56)).requires_grad


def test_a_checkpoint_without_the_part_is_refused(model: LlavaModel):
    del model.projector
    with pytest.raises(CheckpointError, match="no projector"):
        set_learning(model, ["projector"])


def test_groups_by_hand(model: LlavaModel):
    made = stage(
        learn=["vision_tower", "projector"],
        learning_rate=1e-3,
        part_rates={"vision_tower": 2e-6},
        weight_decay=0.1,
    )
    set_learning(model, made.learn)
    groups = {group["name"]: group for group in parameter_groups(model, made)}
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()} == {
        "projector, decayed": (1e-3, 0.1),
        "projector, not decayed": (1e-3, 0.0),
        "vision_tower, decayed": (2e-6, 0.1),
        "vision_tower, not decayed": (2e-6, 0.0),
    }
    # Two linear layers: two weights decay, two biases do not.
    assert len(groups["projector, decayed"]["params"]) == 2
    assert len(groups["projector, not decayed"]["params"]) == 2
    wrapped = parameter_groups(TrainingModel(model), made, prefix="model.")
    counts = {group["name"]: len(group["params"]) for group in wrapped}
    assert counts == {name: len(group["params"]) for name, group in groups.items()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vision_tower.layers.0.norm1.weight", False),
        ("vision_tower.layers.0.norm1.bias", False),
        ("vision_tower.layers.0.q_proj.weight", True),
        ("language_model.layers.0.q_proj.bias", False),
        ("language_model.layers.0.input_norm.weight", False),
        ("language_model.embed_tokens.weight", True),
        ("image_newline", True),
    ],
)
def test_biases_and_norms_do_not_decay(name: str, expected: bool):
    assert decays(name) is expected


def test_layers_computed_again_give_the_same_gradients(model: LlavaModel):
    set_learning(model, PARTS)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        TrainingModel(model)(**batch(model))["loss"].backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    kept = gradients()
    calls = []
    layer = model.language_model.layers[0]
    layer.register_forward_hook(lambda *_: calls.append(1))
    compute_again(model)
    again = gradients()
    assert len(kept) == len(again) > 10
    assert all(torch.equal(*pair) for pair in zip(kept, again, strict=True))


def test_drawn_parts_are_new_and_the_same_for_a_seed(model: LlavaModel):
    def drawn(seed: int) -> dict[str, torch.Tensor]:
        draw(model, ["projector"], seed)
        return {name: p.clone() for name, p in model.named_parameters()}

    before = {name: p.clone() for name, p in model.named_parameters()}
    first, other, again = drawn(0), drawn(1), drawn(0)
    for name, tensor in first.items():
        is_drawn = name.startswith("projector")
        assert torch.equal(tensor, again[name])
        assert torch.equal(tensor, before[name]) is not is_drawn
        assert torch.equal(tensor, other[name]) is not is_drawn
    # As torch's own linear layers begin: evenly within 1 / sqrt(inputs), here 32 and 64.
    for name, inputs in (("projector.linear1", 32), ("projector.linear2", 64)):
        for leaf in ("weight", "bias"):
            largest = first[f"{name}.{leaf}"].abs().max()
            assert 0.8 * inputs**-0.5 < largest <= inputs**-0.5


def test_drawn_newlines_have_about_the_length_one(model: LlavaModel):
    draw(model, ["learned_tokens"], 0)
    assert 0.7 < model.image_newline.norm() < 1.4
