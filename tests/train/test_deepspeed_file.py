"""A DeepSpeed file is checked before a model is read; its sizes are those of the stage's model."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accelerate.utils.deepspeed import HfDeepSpeedConfig
from training_runs import train_in_two
from transformers import TrainingArguments
from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

from llava_video import backends
from llava_video.config import from_mapping, to_mapping
from llava_video.errors import CheckpointError, ConfigError
from llava_video.model.checkpoint import load_model
from llava_video.model.model_config import read_model_config
from llava_video.train import trainer
from llava_video.train.deepspeed_file import read_deepspeed, with_sizes
from llava_video.train.forward import TrainingModel
from llava_video.train.run import train
from llava_video.train.settings import NewModel, StageSettings

FILES = ("zero2", "zero3", "zero3_offload")


class Filled(HfDeepSpeedConfig):
    """What transformers makes of a file, without the package that its own class asks for."""

    is_auto = HfTrainerDeepSpeedConfig.is_auto
    fill_match = HfTrainerDeepSpeedConfig.fill_match
    fill_only = HfTrainerDeepSpeedConfig.__dict__["fill_only"]
    trainer_config_process = HfTrainerDeepSpeedConfig.trainer_config_process
    trainer_config_finalize = HfTrainerDeepSpeedConfig.trainer_config_finalize

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.mismatches: list[str] = []


class HandedOverError(Exception):
    """What a run ends with that has made its arguments."""


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what `training_arguments` gave the `Trainer` last; there a run ends."""
    found: dict[str, Any] = {}

    def kept(**given: Any) -> TrainingArguments:
        found.update(given)
        raise HandedOverError

    monkeypatch.setattr(trainer, "TrainingArguments", kept)
    monkeypatch.setattr(backends, "require", lambda name: None)
    return found


def stage(folder: Path, path: Path | str, **changes: Any) -> StageSettings:
    values = {"data": {"sources": [{"path": "data.json"}]}, "batch_size": 2, **changes}
    return from_mapping(
        StageSettings, {"output": str(folder / "run"), "deepspeed": str(path), **values}
    )


@pytest.mark.parametrize("name", FILES)
def test_transformers_finds_every_size_in_what_a_stage_hands_over(
    tmp_path: Path, project: Path, tiny_folder: Path, handed_over: dict[str, Any], name: str
):
    path = project / "configs" / "train" / f"{name}.json"
    with pytest.raises(HandedOverError):
        train(stage(tmp_path, path, model=str(tiny_folder)))
    model = load_model(tiny_folder, config=read_model_config(tiny_folder))
    values = handed_over.pop("deepspeed")
    arguments: Any = TrainingArguments(**handed_over)
    filled = Filled(values)
    filled.trainer_config_process(arguments)
    filled.trainer_config_finalize(arguments, TrainingModel(model), 10)
    assert filled.mismatches == []
    assert "auto" not in json.dumps(filled.config)
    zero, width = filled.config["zero_optimization"], model.dimensions.text.hidden_size
    assert zero["reduce_bucket_size"] == width * width
    # The file as it is cannot be filled in: our model has no `config`.
    untouched = Filled(json.loads(path.read_text()))
    with pytest.raises(ValueError, match="reduce_bucket_size"):
        untouched.trainer_config_finalize(arguments, TrainingModel(model), 10)


def test_a_new_models_sizes_are_those_it_will_have(
    tmp_path: Path, project: Path, handed_over: dict[str, Any], new_model: NewModel
):
    path = project / "configs" / "train" / "zero3.json"
    with pytest.raises(HandedOverError):
        train(stage(tmp_path, path, new=to_mapping(new_model)))
    # 32 channels: 32 x 32, nine tenths of it, and ten times 32.
    zero = handed_over["deepspeed"]["zero_optimization"]
    assert zero["reduce_bucket_size"] == 1024
    assert zero["stage3_prefetch_bucket_size"] == 921
    assert zero["stage3_param_persistence_threshold"] == 320
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(backends.version("deepspeed") is None, reason="DeepSpeed is not installed")
def test_what_is_shared_out_learns_what_whole_parameters_do(
    tmp_path: Path,
    project: Path,
    tiny_folder: Path,
    data_file: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    data = {"sources": [{"path": str(data_file)}], "max_frames": 3, "num_workers": 0}
    often = {"save_every": 1, "log_every": 1, "keep": 9, "epochs": 2, "batch_size": 1}
    values = {"model": str(tiny_folder), "data": data, "learning_rate": 1e-3, **often}
    path = project / "configs" / "train" / "zero2.json"
    shared = stage(tmp_path, path, **values)
    whole = replace(shared, deepspeed=None, output=str(tmp_path / "whole"))
    train_in_two(whole, tmp_path)
    train_in_two(shared, tmp_path)
    assert losses_of(shared) == pytest.approx(losses_of(whole), rel=1e-4)
    # It goes on too: from the fourth of six steps, in the second epoch.
    unbroken = losses_of(shared)
    shutil.rmtree(tmp_path / "run" / "original")
    for step in (5, 6):
        shutil.rmtree(tmp_path / "run" / f"checkpoint-{step}")
    train_in_two(shared, tmp_path)
    assert losses_of(shared) == unbroken


def losses_of(one: StageSettings) -> list[float]:
    lines = (Path(one.output) / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == 6
    return losses


@pytest.mark.parametrize("name", FILES)
def test_only_sizes_that_are_auto_are_filled_in(project: Path, name: str):
    values = read_deepspeed(str(project / "configs" / "train" / f"{name}.json"))
    values["zero_optimization"]["reduce_bucket_size"] = 5
    made = with_sizes(values, 896)
    assert made["zero_optimization"].pop("reduce_bucket_size") == 5
    own = {"stage3_prefetch_bucket_size": 722_534, "stage3_param_persistence_threshold": 8960}
    for key, size in own.items():
        found = made["zero_optimization"].pop(key, None)
        assert found == (None if name == "zero2" else size)
    rest = {key: one for key, one in values["zero_optimization"].items() if one not in (5, "auto")}
    assert made == {**values, "zero_optimization": rest}


@pytest.mark.parametrize("values", [{}, {"zero_optimization": None}])
def test_a_file_that_shares_nothing_out_stays_as_it_is(values: dict[str, Any]):
    assert with_sizes(values, 896) == values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("{", "cannot be read"),
        ("\xff", "cannot be read"),
        ("[]", "no JSON object"),
        ('{"optimizer": {}}', "has optimizer of its own.  hint: take it out: rates, decay"),
        ('{"scheduler": {}, "optimizer": {}}', "has optimizer and scheduler of its own"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_before_a_model_is_looked_for(
    tmp_path: Path, handed_over: dict[str, Any], text: str | None, words: str
):
    path = tmp_path / "own.json"
    if text is not None:
        path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError) as caught:
        train(stage(tmp_path, path, model=str(tmp_path / "none")))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert not (tmp_path / "run").exists()
    path.write_text("{}")
    with pytest.raises(CheckpointError):
        train(stage(tmp_path, path, model=str(tmp_path / "none")))
    assert not handed_over
