"""The losses of cells and patches, by another formula."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from seeded_models import video_plan

from llava_video.errors import ConfigError
from llava_video.model.checkpoint import load_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config
from llava_video.train.dense import DenseTraining
from llava_video.train.dense_labels import LOOKS, PATCHES, STORY, UNKNOWN
from llava_video.train.forward import Batch, Example, TrainingModel, pack
from llava_video.train.parts import compute_again
from llava_video.train.pointer import Pointer
from llava_video.train.pointing import PointingKeys
from llava_video.train.world_settings import DenseSettings
from llava_video.values import VisualPlan

PER_TILE = 16  # patches of 14 px of 56
PLAN = video_plan(2, 12, crop=(0, 4, 0, 4), map_size=(2, 2))


def loaded(folder: Path) -> LlavaModel:
    return load_model(folder, config=read_model_config(folder), device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> LlavaModel:
    return loaded(tiny_folder)


def drawn(seed: int, plan: VisualPlan = PLAN) -> Example:
    """Make an example of a clip with labels, two in three of them unknown."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(0, 250, 5 + seed).tolist()
    cells = {}
    asked = (("looks", LOOKS), ("story", STORY), ("patches", PATCHES))
    for name, questions in asked:
        num_rows = 2 * PER_TILE if name == "patches" else plan.num_tokens
        columns = [draw.integers(0, num, num_rows) for num in questions.values()]
        own = np.stack(columns, axis=1)
        own[draw.random(own.shape) < 2 / 3] = UNKNOWN
        own[:, 3] = UNKNOWN  # one that nobody is asked
        cells[name] = torch.from_numpy(own.astype(np.int8))
    tiles = torch.from_numpy(draw.standard_normal((2, 3, 56, 56), dtype=np.float32))
    shown = {"plans": (plan,), "tiles": tiles}
    return Example(ids=(*ids[:2], -200, *ids[2:]), labels=(-100, -100, -100, *ids[2:]),
                   **shown, **cells)  # fmt: skip


@pytest.fixture(scope="module")
def batch() -> Batch:
    return pack([drawn(0), drawn(3)])


def learner(model: LlavaModel, **counts: Any) -> DenseTraining:
    torch.manual_seed(0)
    return DenseTraining(
        model, DenseSettings(**{"patches": 0, "looks": 0, "story": 0, "answers": 0} | counts)
    )


def mean_of(logits: np.ndarray, labels: np.ndarray, questions: dict[str, int]) -> np.ndarray:
    """Return each question's mean of -log softmax over the rows that are asked; 0 for none."""
    found, start = [], 0
    for idx, num in enumerate(questions.values()):
        part = logits[:, start : start + num]
        odds = part - np.log(np.exp(part).sum(axis=1, keepdims=True))
        own = [-odds[row, label] for row, label in enumerate(labels[:, idx]) if label >= 0]
        found.append(sum(own) / len(own) if own else 0.0)
        start += num
    return np.array(found)


def mean_as_they_count(losses: np.ndarray, questions: dict[str, int]) -> float:
    """Return the mean in which shape counts three times, and where it goes and went twice."""
    counts = [{"shape": 3, "goes": 2, "went": 2}.get(name, 1) for name in questions]
    return float(np.average(losses, weights=counts))


def test_visual_rows_are_where_the_visuals_stand(tiny: LlavaModel, batch: Batch):
    net = learner(tiny, looks=1)
    # Two ids, 12 rows; three more ids, and the second example's two.
    assert batch["visual_rows"].tolist() == [*range(2, 14), *range(19, 31)]
    with torch.no_grad():
        visuals = net.visuals(batch["plans"], batch["tiles"])
        rows = net.spliced(batch["ids"], visuals)
    assert torch.equal(rows[batch["visual_rows"]], torch.cat(visuals))


def test_the_losses_are_the_formula(tiny: LlavaModel, batch: Batch):
    net = learner(tiny, patches=4, looks=0.5, story=2, answers=3)
    with torch.no_grad():
        loss = net(**batch)["loss"].item()
        towards = tiny.vision_tower(batch["tiles"]).flatten(0, 1)
        patches = net.patches(towards).double().numpy()
        visuals = net.visuals(batch["plans"], batch["tiles"])
        hidden = net.hidden_rows(net.spliced(batch["ids"], visuals), net.keys(batch["shares"]))
        looks = net.looks(torch.cat(visuals)).double().numpy()
        story = net.story(hidden[batch["visual_rows"]]).double().numpy()
        late = net.story(hidden[batch["visual_rows"] + 1]).double().numpy()
        plain = {key: batch[key] for key in ("ids", "labels", "tiles", "plans", "shares")}
        answers = TrainingModel(tiny)(**plain)["loss"].item()
    labels = {name: batch[name].numpy() for name in ("looks", "story", "patches")}
    of_patches = mean_as_they_count(mean_of(patches, labels["patches"], PATCHES), PATCHES)
    each_story = mean_of(story, labels["story"], STORY)
    of_looks = mean_as_they_count(mean_of(looks, labels["looks"], LOOKS), LOOKS)
    of_story = mean_as_they_count(each_story, STORY)
    assert net.parts["patches"].item() == pytest.approx(of_patches, abs=1e-5)
    assert net.parts["looks"].item() == pytest.approx(of_looks, abs=1e-5)
    assert net.parts["story"].item() == pytest.approx(of_story, abs=1e-5)
    assert net.parts["answers"].item() == pytest.approx(answers, abs=1e-6)
    assert loss == pytest.approx(
        4 * of_patches + 0.5 * of_looks + 2 * of_story + 3 * answers, abs=1e-4
    )
    asked_as_0 = np.where(labels["story"] < 0, 0, labels["story"])
    num_asked = (labels["story"] >= 0).sum(axis=0)
    for wrong in (
        mean_as_they_count(mean_of(late, labels["story"], STORY), STORY),  # of the row behind
        mean_as_they_count(mean_of(story, asked_as_0, STORY), STORY),  # unknown is no class
        (each_story * num_asked).sum() / num_asked.sum(),  # over all that is asked at once
        each_story[num_asked > 0].mean(),
        (each_story * num_asked / len(story)).mean(),  # over all rows
        each_story.mean(),  # all alike
    ):
        assert abs(net.parts["story"].item() - wrong) > 1e-2


def test_a_story_is_read_behind_the_layer_that_is_asked(tiny: LlavaModel, batch: Batch):
    net = learner(tiny, story=2, answers=1, story_layer=0)
    net(**batch)
    with torch.no_grad():
        rows = net.spliced(batch["ids"], net.visuals(batch["plans"], batch["tiles"]))
        layers = tiny.language_model.layers
        behind = layers[0](rows.clone(), net.keys(batch["shares"]), None, 0)
        own = behind[batch["visual_rows"]].double()
        normed = own / own.square().mean(dim=1, keepdim=True).sqrt()
        logits = (normed @ net.story.weight.double().T + net.story.bias.double()).numpy()
        last = net.story(net.hidden_rows(rows, net.keys(batch["shares"]))[batch["visual_rows"]])
        # Without gradients the rows are overwritten behind the layer, and it tells the same.
        told, quiet = net.parts["story"], net(**batch)["loss"]
    labels = batch["story"].numpy()
    expected = mean_as_they_count(mean_of(logits, labels, STORY), STORY)
    assert told.item() == pytest.approx(expected, abs=1e-5)
    assert net.parts["story"].item() == pytest.approx(expected, abs=1e-5)
    assert quiet.item() == pytest.approx(2 * expected + net.parts["answers"].item(), abs=1e-5)
    wrong = mean_as_they_count(mean_of(last.double().numpy(), labels, STORY), STORY)
    assert abs(expected - wrong) > 1e-2
    assert not layers[0]._forward_hooks


def test_a_story_teaches_the_layers_below_it(tiny_folder: Path, batch: Batch):
    learned = []
    for checkpointed in (False, True):
        model = loaded(tiny_folder).requires_grad_(True)
        if checkpointed:
            compute_again(model)
        net = learner(model, story=2, story_layer=0)
        net(**batch)["loss"].backward()
        first, second = model.language_model.layers[:2]
        assert all(parameter.grad is not None for parameter in first.parameters())
        assert all(parameter.grad is None for parameter in second.parameters())
        assert net.story.weight.grad is not None
        learned.append([first.q_proj.weight.grad, net.story.weight.grad])
    for plain, again in zip(*learned, strict=True):
        assert plain.abs().sum() > 0
        assert torch.allclose(plain, again, atol=1e-6)


def test_a_step_is_a_mean_however_it_is_cut(tiny: LlavaModel):
    net = learner(tiny, looks=1, story=1, pointers=1, name_heads=((1, 0),))
    there = (Pointer(4, "name", ((0, 4),)),)
    batches = [pack([replace(drawn(seed), tails=(3,), pointers=there)]) for seed in (0, 3)]
    with torch.no_grad():
        apart = [net(**batch)["loss"] for batch in batches]
        # Two learned tokens and five, of seven.
        cut = [net(**batch, num_items_in_batch=torch.tensor(7))["loss"] for batch in batches]
        # What is told of it is of the batch, as if it were a step of its own.
        assert sum(net.parts.values()).item() == pytest.approx(apart[1].item(), abs=1e-5)
        whole = net(**batches[0], num_items_in_batch=2)["loss"]
    mean = (2 * apart[0] + 5 * apart[1]).item() / 7
    assert (cut[0] + cut[1]).item() == pytest.approx(mean, abs=1e-5)
    assert torch.equal(whole, apart[0])


def test_where_only_looks_count_the_decoder_is_not_run(
    tiny: LlavaModel, batch: Batch, monkeypatch: pytest.MonkeyPatch
):
    net = learner(tiny, looks=1)
    monkeypatch.setattr(net, "hidden_rows", None)
    tiny.requires_grad_(True)
    net(**batch)["loss"].backward()
    reached = {name.partition(".")[0] for name, p in tiny.named_parameters() if p.grad is not None}
    assert reached == {"vision_tower", "projector", "image_newline"}
    assert net.looks.weight.grad is not None
    assert net.story.weight.grad is None
    tiny.zero_grad()
    assert set(net.parts) == {"looks"}


def test_where_only_patches_count_the_tower_alone_learns(tiny: LlavaModel, batch: Batch):
    net = learner(tiny, patches=1)
    tiny.requires_grad_(True)
    net(**batch)["loss"].backward()
    reached = {name.partition(".")[0] for name, p in tiny.named_parameters() if p.grad is not None}
    assert reached == {"vision_tower"}
    tiny.zero_grad()
    # Nothing stays at the tower that answers.
    assert not tiny.vision_tower._forward_hooks


def test_labels_stay_with_their_example():
    first, second = drawn(1), drawn(2)
    without = replace(first, looks=None, story=None, patches=None)
    made = pack([without, second])
    assert torch.equal(made["looks"], second.looks)
    assert torch.equal(made["patches"], second.patches)
    # Before its visual stand all rows of the first, and two ids of its own.
    assert made["visual_rows"][0] == without.num_rows + 2
    assert "looks" not in pack([without])


def test_heads_that_look_count_as_they_are_told(tiny: LlavaModel):
    pointers = (
        Pointer(3, "name", ((0, 4),)),
        Pointer(4, "answer", ((7,), (2, 3))),
    )
    ones = [replace(drawn(seed), tails=(3,), pointers=pointers) for seed in (0, 3)]
    batch = pack(ones)
    heads = {"name_heads": ((0, 1),), "answer_heads": ((1, 0), (1, 2))}
    net = learner(tiny, answers=1, pointers=0.5, **heads)
    with torch.no_grad():
        loss = net(**batch)["loss"].item()
        keys = PointingKeys(net.keys(batch["shares"]), batch["pointers"], net.settings.heads)
        rows = net.spliced(batch["ids"], net.visuals(batch["plans"], batch["tiles"]))
        tiny.language_model.run(rows, keys, None)
        plain = {key: batch[key] for key in ("ids", "labels", "tiles", "plans", "shares")}
        answers = TrainingModel(tiny)(**plain)["loss"].item()
    assert sum(loss.numel() for loss in keys.losses.values()) == 2 + 2 * 2
    assert net.parts["pointers"].item() == pytest.approx(keys.loss().item(), abs=1e-6)
    assert loss == pytest.approx(answers + 0.5 * keys.loss().item(), abs=1e-5)
    # A batch in which nothing is named has no such loss.
    with torch.no_grad():
        silent = pack([replace(one, pointers=()) for one in ones])
        assert net(**silent)["loss"].item() == pytest.approx(answers, abs=1e-6)
    assert "pointers" not in net.parts


def test_heads_that_there_are_not_are_refused(tiny: LlavaModel):
    with pytest.raises(ConfigError, match="the decoder has"):
        learner(tiny, answers=1, pointers=1, name_heads=((99, 0),))
    with pytest.raises(ConfigError, match="story_layer = 99"):
        learner(tiny, story=1, story_layer=99)
