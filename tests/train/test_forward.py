"""The training forward: the original code's loss, transformers' gradients, packed as apart."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from seeded_models import clips_of, noise_frames, video_plan

from llava_video.errors import ConfigError
from llava_video.model.checkpoint import load_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config
from llava_video.model.preprocess import make_tiles
from llava_video.model.tiny import write_tiny_checkpoint
from llava_video.ops.tile_frames import normalised
from llava_video.train.forward import Example, TrainingModel, pack
from llava_video.train.parts import set_learning
from llava_video.values import Clip, Newline, VisualPlan

MARK = -200


def loaded(folder: Path, **changes: Any) -> LlavaModel:
    config = read_model_config(folder)
    return load_model(folder, config=config, device="cpu", dtype=torch.float32, **changes)


def tiles_of(model: LlavaModel, plan: VisualPlan, frames: np.ndarray) -> torch.Tensor:
    vision = model.dimensions.vision
    clip = Clip(frames, np.arange(len(frames), dtype=np.float64), np.arange(len(frames)))
    return make_tiles(
        clip, plan, tile_px=vision.image_px, mean=vision.pixel_mean, std=vision.pixel_std
    )


def small_plan(num_frames: int, **changes: Any) -> VisualPlan:
    """Plan the tiny checkpoint's frames: 4 x 4 patches pooled to 2 x 2, a newline per row."""
    num_tokens = changes.pop("num_tokens", num_frames * 2 * 3)
    layout = {"crop": (0, 4, 0, 4), "map_size": (2, 2), **changes}
    return video_plan(num_frames, num_tokens, **layout)


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> LlavaModel:
    return loaded(tiny_folder)


def example(model: LlavaModel, num_frames: int, seed: int, num_text: int = 9) -> Example:
    """Make an example of random tokens, the last four learned, with one video or without."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, 250, num_text).tolist()
    labels = [-100] * (num_text - 4) + ids[-4:]
    plans, tiles = (), torch.zeros(0, 3, 56, 56)
    if num_frames:
        plans = (small_plan(num_frames),)
        frames = generator.integers(0, 256, (num_frames, 40, 60, 3), dtype=np.uint8)
        tiles = tiles_of(model, plans[0], frames)
        ids, labels = [*ids[:2], MARK, *ids[2:]], [*labels[:2], -100, *labels[2:]]
    return Example(ids=tuple(ids), labels=tuple(labels), plans=plans, tiles=tiles)


def gradients_of(model: LlavaModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    names = [name for name, _ in model.named_parameters()]
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    return {name: one for name, one in zip(names, found, strict=True) if one is not None}


def assert_equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """Compare gradients; those that are zero but for rounding (of a key's bias), absolutely."""
    for name, one in found.items():
        assert (one - wanted[name]).norm() <= 1e-5 * max(wanted[name].norm(), 0.2), name


def learning(model: LlavaModel) -> TrainingModel:
    model.requires_grad_(True)
    return TrainingModel(model)


def test_the_golden_loss(shared: Path):
    family = shared / "golden" / "family"
    golden = np.load(family / "cases" / "llava15_train_loss.npz")
    picture = np.load(family / "cases" / "llava15_image.npz")["image_0"]
    model = loaded(family / "llava-v1.5-tiny")
    layout = {"kind": "image", "fit": "pad", "pool_stride": 1, "newline": Newline.NONE}
    plan = video_plan(1, 576, crop=(0, 24, 0, 24), map_size=(24, 24), **layout)
    examples = []
    for ids, labels in zip(golden["input_ids"], golden["labels"], strict=True):
        length = int(np.flatnonzero(ids)[-1]) + 1  # what is behind is padding
        has_picture = MARK in ids
        tiles = tiles_of(model, plan, picture[None]) if has_picture else torch.zeros(0, 3, 336, 336)
        plans = (plan,) if has_picture else ()
        own = {"ids": tuple(ids[:length].tolist()), "labels": tuple(labels[:length].tolist())}
        examples.append(Example(**own, plans=plans, tiles=tiles))
    training = TrainingModel(model)
    assert max(one.num_rows for one in examples) == golden["expanded_len"]
    with torch.no_grad():
        loss = training(**pack(examples))["loss"]
        first = training(**pack(examples[:1]))["loss"]
    assert abs(loss - float(golden["loss_batch"])) <= 1e-5
    assert abs(first - float(golden["loss_first_row"])) <= 1e-5
    # Means of the examples' means would be another loss.
    with torch.no_grad():
        second = training(**pack(examples[1:]))["loss"]
    assert abs((first + second) / 2 - float(golden["loss_batch"])) > 1e-3


def onevision(folder: Path) -> Any:
    import transformers

    transformers.logging.set_verbosity_error()
    return transformers.LlavaOnevisionForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    )


# Our parameter -> where transformers has it.
PEERS = {
    "vision_tower.patch_embedding.bias": "vision_tower.embeddings.patch_embedding.bias",
    "vision_tower.layers.0.q_proj.weight": "vision_tower.encoder.layers.0.self_attn.q_proj.weight",
    "vision_tower.layers.0.fc2.weight": "vision_tower.encoder.layers.0.mlp.fc2.weight",
    "projector.linear1.weight": "multi_modal_projector.linear_1.weight",
    "projector.linear2.bias": "multi_modal_projector.linear_2.bias",
    "image_newline": "image_newline",
    "language_model.embed_tokens.weight": "language_model.embed_tokens.weight",
    "language_model.layers.0.k_proj.weight": "language_model.layers.0.self_attn.k_proj.weight",
    "language_model.layers.1.down_proj.weight": "language_model.layers.1.mlp.down_proj.weight",
    "language_model.layers.1.post_norm.weight": (
        "language_model.layers.1.post_attention_layernorm.weight"
    ),
    "language_model.norm.weight": "language_model.norm.weight",
    "language_model.lm_head.weight": "lm_head.weight",
}


def peer_of(theirs: dict[str, torch.nn.Parameter], ours: str) -> torch.nn.Parameter:
    found = [name for name in theirs if name.endswith(PEERS[ours])]
    assert len(found) == 1, (ours, found, sorted(theirs)[:8])
    return theirs[found[0]]


def test_gradients_are_those_of_transformers(tmp_path: Path):
    folder = write_tiny_checkpoint(
        tmp_path / "ov", layout="hf", member="LLaVA-OneVision", newline_position="one_token"
    )
    ours, peer = loaded(folder), onevision(folder)
    layout = {"newline": Newline.CLIP, "num_tokens": 3 * 4 + 1}
    plan = small_plan(3, **layout)
    tiles = tiles_of(ours, plan, noise_frames(3))
    ids, labels = [*range(40, 45), MARK, *range(60, 70)], [-100] * 11 + [*range(65, 70)]
    own = Example(ids=tuple(ids), labels=tuple(labels), plans=(plan,), tiles=tiles)
    batch = pack([own])
    loss = learning(ours)(**batch)["loss"]
    mark = peer.config.video_token_id
    peer_ids = [[*range(40, 45), *[mark] * plan.num_tokens, *range(60, 70)]]
    theirs = peer(
        input_ids=torch.tensor(peer_ids),
        pixel_values_videos=tiles[None],
        labels=batch["labels"][None],
    ).loss
    assert abs(loss.item() - theirs.item()) <= 1e-5 * abs(theirs.item())
    found = gradients_of(ours, loss)
    theirs.backward()
    parameters = dict(peer.named_parameters())
    for name in PEERS:
        expected = peer_of(parameters, name).grad[: len(found[name])].reshape(found[name].shape)
        error = (found[name] - expected).norm() / expected.norm()
        assert expected.norm() > 0, name
        assert error <= 1e-5, (name, float(error))


def test_packing_changes_no_loss_and_no_gradient(tiny: LlavaModel):
    training = learning(tiny)
    examples = [example(tiny, 2, 1), example(tiny, 0, 2), example(tiny, 3, 3, num_text=14)]
    packed = training(**pack(examples))["loss"]
    apart = [training(**pack([one]))["loss"] for one in examples]
    expected = sum(apart) / 3  # four learned tokens each
    assert abs(packed - expected) <= 1e-6 * expected
    found, wanted = gradients_of(tiny, packed), gradients_of(tiny, expected)
    assert found.keys() == wanted.keys() == dict(tiny.named_parameters()).keys()
    assert_equal(found, wanted)


def test_questions_on_one_video_learn_as_apart(tiny: LlavaModel):
    training = learning(tiny)
    first, other = example(tiny, 2, 1, num_text=12), example(tiny, 0, 5)
    # The mark and two tokens before it are the beginning; then two questions with their answers.
    beginning, question = first.ids[:4], first.ids[4:]
    shared = Example(
        ids=(*beginning, *question, *other.ids),
        labels=(*first.labels, *other.labels),
        plans=first.plans,
        tiles=first.tiles,
        tails=(4, 4 + len(question)),
    )
    second = Example(
        ids=(*beginning, *other.ids),
        labels=(*[-100] * 4, *other.labels),
        plans=first.plans,
        tiles=first.tiles,
    )
    together = training(**pack([shared]))["loss"]
    apart = (training(**pack([first]))["loss"] + training(**pack([second]))["loss"]) / 2
    assert abs(together - apart) <= 1e-6 * apart
    found, wanted = gradients_of(tiny, together), gradients_of(tiny, apart)
    assert_equal(found, wanted)


def test_labels_stand_on_the_answers_rows(tiny: LlavaModel):
    first, second = example(tiny, 2, 1), example(tiny, 0, 2)
    batch = pack([first, second])
    # Two text tokens, 12 rows of the video, three of text, four learned; then five and four.
    learned = [i for i, label in enumerate(batch["labels"].tolist()) if label != -100]
    assert learned == [*range(17, 21), *range(26, 30)]
    assert [(share.start, share.stop) for share in batch["shares"]] == [(0, 21), (21, 30)]
    # What the first row of an example says is learned from nothing.
    whole = Example(ids=(5, 6), labels=(5, 6), plans=(), tiles=first.tiles[:0])
    assert pack([whole, whole])["labels"].tolist() == [-100, 6, -100, 6]


@pytest.mark.parametrize("plans", [(), (small_plan(1), small_plan(1))])
def test_marks_without_their_visuals_are_refused(tiny: LlavaModel, plans: tuple[VisualPlan, ...]):
    own = example(tiny, 1, 1)
    with pytest.raises(ConfigError, match=f"1 marks and {len(plans)} visuals"):
        pack([Example(ids=own.ids, labels=own.labels, plans=plans, tiles=own.tiles)])


def test_a_batch_that_teaches_nothing_is_refused(tiny: LlavaModel):
    mute = Example(ids=(5, 6), labels=(-100, -100), plans=(), tiles=torch.zeros(0, 3, 56, 56))
    with pytest.raises(ConfigError, match="no learned token"):
        TrainingModel(tiny)(**pack([mute]))


def test_the_sum_is_divided_by_the_tokens_of_the_whole_step(tiny: LlavaModel):
    batch = pack([example(tiny, 0, 2)])
    with torch.no_grad():
        own = TrainingModel(tiny)(**batch)["loss"]
        of_many = TrainingModel(tiny)(**batch, num_items_in_batch=16)["loss"]
    assert torch.allclose(of_many, own * 4 / 16)


@pytest.mark.parametrize("newline", [Newline.ROW, Newline.CLIP])
def test_rows_are_those_of_inference(tiny: LlavaModel, newline: Newline):
    """Several visuals whose frames differ, and the last frame of each again."""

    def plan_of(num_frames: int) -> VisualPlan:
        num_tokens = num_frames * 6 if newline is Newline.ROW else num_frames * 4 + 1
        return small_plan(num_frames, newline=newline, num_tokens=num_tokens)

    plans, frames = [plan_of(3), plan_of(1), plan_of(2)], [noise_frames(n) for n in (3, 1, 2)]
    tiles = torch.cat([tiles_of(tiny, *pair) for pair in zip(plans, frames, strict=True)])
    with torch.no_grad():
        made = tiny.rows_of_tiles(plans, tiles)
    for plan, own, rows in zip(plans, frames, made, strict=True):
        expected = torch.cat(list(tiny.visual_rows(plan, clips_of(own), 8)))
        assert rows.shape == expected.shape
        # Larger calls make their products otherwise than smaller ones.
        assert (rows - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_levels_teach_what_their_tiles_teach(tiny: LlavaModel):
    made = [example(tiny, 3, 1), example(tiny, 0, 2), example(tiny, 2, 3)]
    vision = tiny.dimensions.vision
    frames = noise_frames(5, 56, 56)
    as_levels = [
        replace(one, tiles=torch.from_numpy(frames[: len(one.tiles)]).movedim(3, 1)) for one in made
    ]
    as_tiles = [
        replace(one, tiles=normalised(one.tiles, vision.pixel_mean, vision.pixel_std))
        for one in as_levels
    ]
    losses, gradients = [], []
    for examples in (as_levels, as_tiles):
        loss = learning(tiny)(**pack(examples))["loss"]
        losses.append(loss)
        gradients.append(gradients_of(tiny, loss)["vision_tower.patch_embedding.weight"])
    assert torch.equal(*losses)
    assert torch.equal(*gradients)
    assert not torch.equal(losses[0], learning(tiny)(**pack(made))["loss"])


def test_text_alone_beside_other_processes_reaches_every_module(
    tiny: LlavaModel, monkeypatch: pytest.MonkeyPatch
):
    training, batch = learning(tiny), pack([example(tiny, 0, 2)])
    alone = training(**batch)["loss"]
    assert "projector.linear1.weight" not in gradients_of(tiny, alone)
    monkeypatch.setattr("llava_video.train.forward._has_other_processes", lambda: True)
    beside = training(**batch)["loss"]
    assert torch.equal(alone, beside)
    found = gradients_of(tiny, beside)
    assert found.keys() == dict(tiny.named_parameters()).keys()
    assert not found["vision_tower.layers.0.fc1.weight"].any()
    assert found["language_model.embed_tokens.weight"].any()


def test_text_alone_runs_parts_in_the_order_that_visuals_have(
    tiny: LlavaModel, monkeypatch: pytest.MonkeyPatch
):
    """Processes share gradients in the order they come in: one of another order breaks off."""
    monkeypatch.setattr("llava_video.train.forward._has_other_processes", lambda: True)
    ran: list[torch.nn.Module] = []
    parts = [tiny.vision_tower, tiny.projector.linear1, tiny.language_model.embed_tokens]
    hooks = [part.register_forward_hook(lambda module, *_: ran.append(module)) for part in parts]
    for visuals in (1, 0):
        learning(tiny)(**pack([example(tiny, visuals, 2)]))
        assert ran == parts
        ran.clear()
    for hook in hooks:
        hook.remove()


def test_text_alone_is_no_fault_where_only_the_projector_learns(tiny_folder: Path):
    model = loaded(tiny_folder)
    set_learning(model, ["projector"])
    loss = TrainingModel(model)(**pack([example(model, 0, 2)]))["loss"]
    assert loss > 0
    loss.backward()
    gradient = model.projector.get_parameter("linear1.weight").grad
    assert gradient is not None
    assert not gradient.any()
