"""The loss of pairs: transformers' log-probabilities in a formula by hand, and its gradient."""

import dataclasses
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
from llava_video.model.tiny import write_tiny_checkpoint
from llava_video.train.forward import Example, TrainingModel, pack
from llava_video.train.lora import add_lora
from llava_video.train.parts import set_learning
from llava_video.train.preference_loss import (
    PreferenceModel,
    answer_log_probs,
    frozen_copy,
    preference_losses,
)
from llava_video.train.settings import DpoSettings, LoraSettings, Part
from llava_video.values import Newline

MARK = -200
BETA = 0.1
PLAN = video_plan(2, 9, crop=(0, 4, 0, 4), map_size=(2, 2), newline=Newline.CLIP)
TILES = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(5))


@dataclasses.dataclass(frozen=True)
class Case:
    """A pair: a prompt, with or without a video, and two answers."""

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def visuals(self) -> dict[str, Any]:
        has_video = MARK in self.prompt
        return {"plans": (PLAN,) if has_video else (), "tiles": TILES if has_video else TILES[:0]}

    def pair(self) -> Example:
        *shared, last = self.prompt
        chosen, rejected = self.answers
        ids = (*shared, last, *chosen, last, *rejected)
        hidden = (-100,) * len(shared)
        labels = (*hidden, -100, *chosen, -100, *rejected)
        tails = (len(shared), len(shared) + 1 + len(chosen))
        return Example(ids=ids, labels=labels, tails=tails, **self.visuals)

    def alone(self, side: int) -> Example:
        answer = self.answers[side]
        labels = ((-100,) * len(self.prompt)) + answer
        return Example(ids=(*self.prompt, *answer), labels=labels, **self.visuals)


CASES = (
    Case((40, 41, MARK, 42, 43, 44), ((50, 51, 52, 53, 54, 55, 56), (60, 61))),
    Case((45, 46, 47), ((70, 71), (70, 72, 73))),
)
PAIRS = [case.pair() for case in CASES]


def loaded(folder: Path) -> LlavaModel:
    return load_model(folder, config=read_model_config(folder), device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return what a model was and what it is: two seeds."""
    root = tmp_path_factory.mktemp("models")
    options = {"layout": "hf", "member": "LLaVA-OneVision", "newline_position": "one_token"}
    return [write_tiny_checkpoint(root / str(seed), seed=seed, **options) for seed in (1, 2)]


@pytest.fixture(scope="module")
def peers(folders: list[Path]) -> np.ndarray:
    """Return transformers' log-probabilities of each token: (model, case, side) → an array."""
    import transformers

    transformers.logging.set_verbosity_error()
    found = np.empty((2, len(CASES), 2), dtype=object)
    for model_idx, folder in enumerate(folders):
        peer = transformers.LlavaOnevisionForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32
        )
        mark = [peer.config.video_token_id] * PLAN.num_tokens
        for case_idx, case in enumerate(CASES):
            for side, answer in enumerate(case.answers):
                own = (*case.prompt, *answer)
                ids = [one for id_ in own for one in (mark if id_ == MARK else [id_])]
                given = {"pixel_values_videos": TILES[None]} if MARK in own else {}
                with torch.no_grad():
                    logits = peer(input_ids=torch.tensor([ids]), **given).logits[0].double().numpy()
                rows = logits[-len(answer) - 1 : -1]
                odds = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
                found[model_idx, case_idx, side] = odds[np.arange(len(answer)), list(answer)]
    return found


def nets(folders: list[Path], **settings: float) -> PreferenceModel:
    before, now = (loaded(folder) for folder in folders)
    return PreferenceModel(now, before, DpoSettings(beta=BETA, **settings))


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.log1p(np.exp(-x))


def test_log_probabilities_are_those_of_transformers(folders: list[Path], peers: np.ndarray):
    batch = pack(PAIRS)
    for folder, theirs in zip(folders, peers, strict=True):
        with torch.no_grad():
            sums, counts = answer_log_probs(TrainingModel(loaded(folder)), **batch)
        assert counts.tolist() == [[7, 2], [2, 3]]
        expected = np.vectorize(np.sum)(theirs).astype(float)
        assert np.abs(sums.numpy() - expected).max() <= 1e-4
        assert np.abs(expected).min() > 1


def test_the_loss_is_the_formula(folders: list[Path], peers: np.ndarray):
    def margins_of(token_value: Any) -> np.ndarray:
        before, now = np.vectorize(token_value)(peers).astype(float)
        return BETA * ((now[:, 0] - now[:, 1]) - (before[:, 0] - before[:, 1]))

    margins = margins_of(np.sum)
    with torch.no_grad():
        made = nets(folders)(**pack(PAIRS))
    assert abs(made["loss"].item() - -log_sigmoid(margins).mean()) <= 1e-5
    rewards = made["rewards"].numpy()
    assert np.abs(rewards[:, 0] - rewards[:, 1] - margins).max() <= 1e-5
    sums = np.vectorize(np.sum)(peers).astype(float)
    without_reference = BETA * (sums[1, :, 0] - sums[1, :, 1])
    for wrong in (
        margins_of(np.mean),
        margins_of(lambda own: own[:-1].sum()),  # the end of an answer left out
        without_reference,
        -margins,
        margins / BETA,
    ):
        assert abs(made["loss"].item() - -log_sigmoid(wrong).mean()) > 1e-2


def test_smoothing_and_the_chosen_answers_own_loss(folders: list[Path], peers: np.ndarray):
    before, now = np.vectorize(np.sum)(peers).astype(float)
    margins = BETA * ((now[:, 0] - now[:, 1]) - (before[:, 0] - before[:, 1]))
    own = np.array([peers[1, idx, 0].mean() for idx in range(2)])
    expected = -0.9 * log_sigmoid(margins) - 0.1 * log_sigmoid(-margins) - 0.25 * own
    with torch.no_grad():
        loss = nets(folders, label_smoothing=0.1, chosen_weight=0.25)(**pack(PAIRS))["loss"]
    assert abs(loss.item() - expected.mean()) <= 1e-5


def gradient(model: LlavaModel, loss: torch.Tensor) -> torch.Tensor:
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    pairs = zip(found, model.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def test_the_gradient_is_the_weighted_difference_of_the_answers(folders: list[Path]):
    """-beta sigmoid(-margin) (d log p(chosen) - d log p(rejected)), of answers learned apart."""
    net = nets(folders)
    net.model.requires_grad_(True)
    made = net(**pack(PAIRS))
    found = gradient(net.model, made["loss"])
    plain = TrainingModel(net.model)
    expected = torch.zeros_like(found)
    for case, (chosen, rejected) in zip(CASES, made["rewards"], strict=True):
        weight = BETA * torch.sigmoid(rejected - chosen) / len(CASES)
        for side, sign in ((0, -1), (1, 1)):
            loss = plain(**pack([case.alone(side)]), num_items_in_batch=1)["loss"]
            expected += sign * weight * -gradient(net.model, loss)
    assert (found - expected).norm() <= 1e-4 * expected.norm()
    assert not any(p.requires_grad for p in net.reference.parameters())


def test_a_step_makes_the_chosen_answer_likelier(folders: list[Path]):
    net = PreferenceModel(loaded(folders[0]), loaded(folders[0]), DpoSettings(beta=BETA))
    net.model.requires_grad_(True)
    batch = pack(PAIRS)
    before = net(**batch)
    assert before["loss"].item() == pytest.approx(np.log(2), abs=1e-7)
    assert not before["rewards"].any()
    before["loss"].backward()
    with torch.no_grad():
        for parameter in net.model.parameters():
            if parameter.grad is not None:
                parameter -= 1e-4 * parameter.grad
        rewards = net(**batch)["rewards"]
    assert (rewards[:, 0] > rewards[:, 1]).all()


def test_packing_changes_nothing_and_a_step_is_a_mean_over_pairs(folders: list[Path]):
    net = nets(folders)
    with torch.no_grad():
        together = net(**pack(PAIRS))
        apart = [net(**pack([pair]), num_items_in_batch=2) for pair in PAIRS]
    assert torch.allclose(together["loss"], apart[0]["loss"] + apart[1]["loss"], atol=1e-6)
    rewards = torch.cat([one["rewards"] for one in apart])
    assert torch.allclose(together["rewards"], rewards, atol=1e-5)


def test_examples_that_are_no_pairs_are_refused(folders: list[Path]):
    with pytest.raises(ConfigError, match="no pairs"):
        nets(folders)(**pack([CASES[0].alone(0)]))


def pointers(model: LlavaModel) -> dict[str, int]:
    return {name: p.data_ptr() for name, p in model.named_parameters()}


@pytest.mark.parametrize("learn", [("language_model",), ("vision_tower", "projector")])
def test_a_frozen_copy_copies_what_learns(folders: list[Path], learn: tuple[Part, ...]):
    model = loaded(folders[0])
    set_learning(model, learn)
    was = frozen_copy(model)
    alike, own = pointers(was), pointers(model)
    assert alike.keys() == own.keys()
    copied = {name.partition(".")[0] for name in own if own[name] != alike[name]}
    assert copied == set(learn)
    assert (was.vision_tower is model.vision_tower) is ("vision_tower" not in learn)
    one, other = (own.language_model.layers[0] for own in (was, model))
    assert one is not other
    assert (one.q_proj is other.q_proj) is ("language_model" not in learn)
    before, _ = answer_log_probs(TrainingModel(was), **pack(PAIRS))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1
    after, _ = answer_log_probs(TrainingModel(was), **pack(PAIRS))
    moved, _ = answer_log_probs(TrainingModel(model), **pack(PAIRS))
    assert torch.equal(before, after)
    assert not torch.equal(moved, after)
    assert not before.requires_grad
    assert moved.requires_grad


def test_low_rank_changes_begin_as_a_reference_of_its_own_and_leave_theirs_alone(
    folders: list[Path],
):
    pytest.importorskip("peft")
    model = loaded(folders[0])
    set_learning(model, ())
    was = frozen_copy(model)
    assert pointers(was) == pointers(model)  # no memory of its own
    add_lora(model, LoraSettings(r=4, alpha=8, dropout=0.0), seed=0)
    net = PreferenceModel(model, was, DpoSettings(beta=BETA))
    apart = PreferenceModel(loaded(folders[0]), loaded(folders[0]), DpoSettings(beta=BETA))
    batch = pack(PAIRS)
    first, other = net(**batch), apart(**batch)
    assert torch.equal(first["loss"], other["loss"])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05
        expected, _ = answer_log_probs(apart.reference, **batch)
        found, _ = answer_log_probs(net.reference, **batch)
        moved = net(**batch)["rewards"]
    assert torch.equal(found, expected)
    assert moved.abs().max() > 0.1


def test_rewards_by_hand():
    now, before = torch.tensor([[-3.0, -8.0]]), torch.tensor([[-5.0, -6.0]])
    losses, rewards = preference_losses(now, before, DpoSettings(beta=0.5))
    assert rewards.tolist() == [[1.0, -1.0]]
    assert losses.item() == pytest.approx(0.126928)  # log(1 + exp(-2))
