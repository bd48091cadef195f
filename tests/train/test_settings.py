"""Settings of a stage: checked, and wrong names answered with the nearest."""

from typing import Any

import pytest

from llava_video.config import from_mapping, to_mapping
from llava_video.errors import ConfigError
from llava_video.train.settings import LoraSettings, SourceSettings, StageSettings

STAGE: dict[str, Any] = {
    "model": "m",
    "output": "o",
    "data": {"sources": [{"path": "data.json"}]},
}


def stage(**changes: Any) -> StageSettings:
    return from_mapping(StageSettings, {**STAGE, **changes})


def test_a_stage_comes_back_as_it_was():
    made = stage(
        learn=["vision_tower", "projector"],
        learning_rate=1e-5,
        part_rates={"vision_tower": 2e-6},
        lora={"r": 8, "modules": ["q_proj"]},
        data={"sources": [{"path": "a", "weight": 0.5}], "max_tokens": 9, "newline": "row"},
    )
    assert from_mapping(StageSettings, to_mapping(made)) == made
    assert made.rate_of("vision_tower") == 2e-6
    assert made.rate_of("projector") == 1e-5
    assert isinstance(made.lora, LoraSettings)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lerning_rate": 1.0}, "did you mean learning_rate"),
        ({"data": {"sorces": []}}, "did you mean sources"),
        ({"data": {"sources": [{"path": "a", "wieght": 1}]}}, "did you mean weight"),
        ({"learn": ["projecter"]}, "'projector'"),
        ({"learn": []}, "each once of"),
        ({"learn": ["projector", "projector"]}, "each once of"),
        ({"learn": ["projector"], "part_rates": {"vision_tower": 1e-6}}, "does not learn"),
        ({"lora": {}}, "one of them changes the decoder"),
        ({"learn": ["projector"], "lora": {"modules": ["q"]}}, "q_proj"),
        ({"model": ""}, "no model"),
        ({"output": ""}, "no output"),
        ({"data": {}}, "no sources"),
        ({"learning_rate": 0}, "above 0"),
        ({"warmup_ratio": 2}, "at most 1"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], words: str):
    with pytest.raises(ConfigError) as caught:
        stage(**changes)
    assert words in str(caught.value)


@pytest.mark.parametrize("strategy", ["all", "first:3", "end:10%", "random:2.5%"])
def test_strategies_are_known(strategy: str):
    assert SourceSettings(path="a", sampling_strategy=strategy).sampling_strategy == strategy


@pytest.mark.parametrize("strategy", ["", "some", "first", "first:", "first:-1", "last:3", "all:3"])
def test_other_strategies_are_refused(strategy: str):
    with pytest.raises(ConfigError, match="sampling_strategy"):
        SourceSettings(path="a", sampling_strategy=strategy)


def test_a_source_without_a_file_is_refused():
    with pytest.raises(ConfigError, match="names no file"):
        SourceSettings()
