"""A stage of preferences: it learns them, says so in its metrics, and goes on after a kill."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_runs import broken_off, train_in_two

from llava_video.config import from_mapping
from llava_video.errors import ExampleError
from llava_video.model.checkpoint import load_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config
from llava_video.model.spec import read_spec
from llava_video.train.forward import TrainingModel, pack
from llava_video.train.mixture import read_mixture
from llava_video.train.preference_loss import answer_log_probs
from llava_video.train.preference_trainer import PreferenceTrainer
from llava_video.train.preferences import PairMaker
from llava_video.train.run import check_stage, train
from llava_video.train.settings import StageSettings
from llava_video.world.dataset import write_world
from llava_video.world.preference import write_preferences
from llava_video.world.splits import split_settings

Stage = Callable[..., StageSettings]
PAIRS: list[dict[str, Any]] = [
    {"prompt": "What is it?", "chosen": "Bars.", "rejected": "A dog.", "video": "clip.mp4"},
    {"prompt": "Moving?", "chosen": "yes", "rejected": "no", "video": "clip.mp4"},
    {"prompt": "What is this?", "chosen": "Noise.", "rejected": "A cat", "image": "a.png"},
    {"prompt": "Two and two?", "chosen": "four", "rejected": "five"},
    {"prompt": "Is it noise?", "chosen": "yes", "rejected": "never", "image": "b.png"},
    {"prompt": "Say yes", "chosen": "yes", "rejected": "I will not say that."},
]


@pytest.fixture(scope="module")
def pairs_file(media: Path) -> Path:
    path = media / "preferences.json"
    path.write_text(json.dumps(PAIRS))
    return path


@pytest.fixture
def stage(tmp_path: Path, tiny_folder: Path, pairs_file: Path) -> Stage:
    """Return a maker of stages: six pairs, two a batch, two batches a step."""

    def made(**changes: Any) -> StageSettings:
        values = {
            "model": str(tiny_folder),
            "output": str(tmp_path / "run"),
            "learn": ["vision_tower", "language_model"],
            "learning_rate": 1e-3,
            "schedule": "linear",
            "warmup_ratio": 0.1,
            "batch_size": 2,
            "accumulate": 2,
            "epochs": 2,
            "save_every": 1,
            "log_every": 1,
            "dpo": {"beta": 0.1},
            **changes,
        }
        sources = {"sources": [{"path": str(pairs_file)}], "max_frames": 3, "num_workers": 0}
        return from_mapping(
            StageSettings, {**values, "data": {**sources, **values.pop("data", {})}}
        )

    return made


def loaded(folder: Path) -> LlavaModel:
    return load_model(folder, config=read_model_config(folder), device="cpu", dtype=torch.float32)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(loaded(folder).named_parameters())


def metrics(stage: StageSettings) -> list[dict[str, Any]]:
    lines = (Path(stage.output) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_chosen_answers_win(stage: Stage, tiny_folder: Path):
    settings = stage(epochs=8, layouts=["original", "hf"])
    done = train(settings)
    lines = metrics(settings)
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert (lines[0]["reward_chosen"], lines[0]["reward_accuracy"]) == (0.0, 0.0)
    assert [line["reward_accuracy"] for line in lines[-4:]] == [1.0] * 4
    assert lines[-1]["loss"] == done.loss < 0.3
    for line in lines:
        margin = line["reward_chosen"] - line["reward_rejected"]
        assert line["reward_margin"] == pytest.approx(margin, abs=1e-9)
    assert lines[-1]["reward_margin"] > 1
    before, after = weights(tiny_folder), weights(done.folders["original"])
    moved = {name.partition(".")[0] for name, p in before.items() if not p.equal(after[name])}
    assert moved == {"vision_tower", "language_model"}
    assert all(p.equal(after[name]) for name, p in weights(done.folders["hf"]).items())


def test_right_answers_about_made_clips_win(stage: Stage, tmp_path: Path):
    small = dataclasses.replace(
        split_settings("train"), sizes_px=((48, 48),), rates_hz=(2.0,), lengths_s=(4.0,)
    )
    path, num_pairs = write_preferences(write_world(tmp_path / "world", 1, settings=small))
    assert num_pairs > 8
    settings = stage(
        batch_size=4,
        accumulate=1,
        epochs=4,
        learn=["vision_tower", "projector", "language_model"],
        data={"sources": [{"path": str(path)}], "max_frames": 2},
    )
    train(settings)
    rewards = [(line["reward_accuracy"], line["reward_margin"]) for line in metrics(settings)]
    num_steps = -(-num_pairs // 4)
    first, last = (np.mean(own, axis=0) for own in (rewards[:num_steps], rewards[-num_steps:]))
    assert last[0] > 0.9 > first[0]
    assert last[1] > 1 > first[1]


def test_the_rewards_are_those_of_the_result(stage: Stage, tiny_folder: Path):
    """Two steps over one batch: the second's line is what the first one's weights say."""
    values = {"data": {"group_by": "none"}, "accumulate": 1, "batch_size": 6}
    first = stage(max_steps=1, schedule="constant", warmup_ratio=0.0, **values)
    done = train(first)
    both = stage(
        max_steps=2, schedule="constant", warmup_ratio=0.0, output=f"{first.output}-2", **values
    )
    train(both)
    maker = PairMaker(read_spec(tiny_folder), first.data)
    records = read_mixture(first.data.sources, first.seed)
    batch = pack([maker.example(record) for record in records])
    with torch.no_grad():
        now, before = (
            answer_log_probs(TrainingModel(loaded(folder)), **batch)[0]
            for folder in (done.folders["original"], tiny_folder)
        )
    rewards = 0.1 * (now - before).double().numpy()
    line = metrics(both)[1]
    assert line["reward_chosen"] == pytest.approx(rewards[:, 0].mean(), rel=1e-3)
    assert line["reward_rejected"] == pytest.approx(rewards[:, 1].mean(), rel=1e-3)
    assert line["reward_accuracy"] == pytest.approx((rewards[:, 0] > rewards[:, 1]).mean())
    margins = rewards[:, 0] - rewards[:, 1]
    assert line["loss"] == pytest.approx(np.log1p(np.exp(-margins)).mean(), rel=1e-3)


def test_a_step_is_one_mean_over_pairs_however_it_is_cut(stage: Stage, tmp_path: Path):
    """Six pairs as 6, and as 4 + 2: the mean of two means would be another."""
    lines = []
    for batch_size, accumulate in ((6, 1), (4, 2)):
        settings = stage(
            output=str(tmp_path / str(accumulate)),
            batch_size=batch_size,
            accumulate=accumulate,
            warmup_ratio=0.0,
            epochs=4,
            dpo={"chosen_weight": 0.1},
            data={"group_by": "none"},
        )
        train(settings)
        names = ("loss", "grad_norm", "reward_margin", "reward_accuracy")
        lines.append([[line[name] for name in names] for line in metrics(settings)])
    assert len(lines[0]) == 4
    assert np.allclose(*lines, rtol=2e-3, atol=1e-6)


def test_a_broken_run_goes_on_bit_for_bit(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What it is compared with is the model of the stage's beginning, not of the checkpoint."""
    whole = train(stage(output=str(tmp_path / "whole")))
    settings = stage(output=str(tmp_path / "broken"))
    broken_off(settings, monkeypatch, 4, PreferenceTrainer)
    done = train(settings)
    assert done.resumed_from == 2
    one, other = weights(whole.folders["original"]), weights(done.folders["original"])
    assert all(p.equal(other[name]) for name, p in one.items())
    unbroken = metrics(stage(output=str(tmp_path / "whole")))
    names = ("step", "loss", "reward_chosen", "reward_rejected", "reward_accuracy")
    assert [[line[name] for name in names] for line in metrics(settings)] == [
        [line[name] for name in names] for line in unbroken
    ]


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_low_rank_changes_learn_preferences_too(stage: Stage, quantize: str | None):
    pytest.importorskip("peft")
    low_rank = {"learn": [], "lora": {"r": 4, "alpha": 8, "dropout": 0.0}, "quantize": quantize}
    settings = stage(epochs=8, learning_rate=1e-2, **low_rank)
    done = train(settings)
    lines = metrics(settings)
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert lines[-1]["reward_accuracy"] == 1.0
    assert set(done.folders) == {"original", "adapter"}
    checkpoint = Path(settings.output) / f"checkpoint-{done.num_steps}" / "model.safetensors"
    from safetensors import safe_open

    with safe_open(checkpoint, "pt") as file:
        assert all(".lora_" in name and "reference" not in name for name in file.keys())  # noqa: SIM118  # no mapping


def test_broken_pairs_are_counted_or_the_end(stage: Stage, media: Path):
    path = media / "some_broken_pairs.jsonl"
    broken = [{**PAIRS[0], "rejected": "Bars."}, {**PAIRS[1], "video": "none.mp4"}]
    path.write_text("\n".join(json.dumps(one) for one in [*PAIRS, *broken]))
    data = {"sources": [{"path": str(path)}]}
    report = check_stage(stage(data=data))
    assert (report.num_examples, report.num_broken) == (8, 2)
    assert [one.kind for one in report.broken] == ["same answers", "missing file"]
    settings = stage(epochs=1, data=data)
    train(settings)
    # The first of them leads to the second, and on to a good one.
    assert metrics(settings)[-1]["broken"] == {"same answers": 1, "missing file": 2}
    with pytest.raises(ExampleError, match=r"none\.mp4|the same chosen"):
        train(stage(output=f"{settings.output}-strict", data={**data, "broken": "error"}))


@pytest.mark.slow
def test_two_processes_learn_what_one_does(stage: Stage, tmp_path: Path):
    values = {"accumulate": 1, "data": {"group_by": "none"}, "warmup_ratio": 0.0}
    train(stage(output=str(tmp_path / "one"), **values))
    settings = stage(output=str(tmp_path / "two"), batch_size=1, **values)
    train_in_two(settings, tmp_path)
    names = ("loss", "grad_norm", "reward_margin", "reward_accuracy")
    lines = [
        [[line[name] for name in names] for line in metrics(stage(output=str(tmp_path / run)))]
        for run in ("one", "two")
    ]
    assert len(lines[0]) == 6
    assert np.allclose(*lines, rtol=1e-3, atol=1e-6)
