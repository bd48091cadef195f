"""Settings of a stage: checked, and wrong names answered with the nearest."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from llava_video.config import from_mapping, read_yaml, to_mapping
from llava_video.errors import ConfigError
from llava_video.train.settings import DpoSettings, LoraSettings, SourceSettings, StageSettings
from llava_video.world.splits import split_settings

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
        ({"learn": ["projector"], "quantize": "int4"}, "integers do not learn"),
        ({"learn": ["projector"], "lora": {}, "quantize": "nf4"}, "'int4'"),
        ({"learn": ["projector"], "fresh": ["learned_tokens"]}, "fresh names learned_tokens"),
        ({"fresh": ["language_model"]}, "fresh names language_model"),
        ({"learn": ["vision_tower"], "keep_features_mb": 1}, "and vision_tower learns"),
        ({"model": ""}, "no model"),
        ({"output": ""}, "no output"),
        ({"data": {}}, "no sources"),
        ({"learning_rate": 0}, "above 0"),
        ({"warmup_ratio": 2}, "at most 0.99"),
        ({"dpo": {"betta": 1}}, "did you mean beta"),
        ({"dpo": {"beta": 0}}, "above 0"),
        ({"dpo": {"label_smoothing": 0.5}}, "at most 0.49"),
        ({"dpo": {}, "fresh": ["projector"]}, "dpo and fresh"),
        ({"dpo": {}, "template": "plain"}, "dpo and template: plain"),
        ({"dpo": {}, "data": {"sources": [{"path": "a"}], "share_visuals": True}}, "share_visuals"),
        ({"dpo": {}, "data": {"world": {}}}, "dpo and data.world"),
        ({"new": {}}, "no model, or two"),
        ({"data": {"sources": [{"path": "a"}], "world": {}}}, "both files and the small world"),
        ({"dense": {}}, "dense losses are of the small world"),
        (
            {"data": {"world": {}}, "dense": {"looks": 0, "story": 0, "answers": 0}},
            "no loss counts",
        ),
        ({"data": {"world": {"question": 3}}}, "did you mean questions"),
        ({"data": {"world": {"captions": 4}}}, "at most 3"),
        ({"data": {"world": {"settings": {"sizes": []}}}}, "did you mean sizes_px"),
        (
            {
                "data": {"world": {"captions": 0}},
                "dense": {"pointers": 1, "answer_heads": [[0, 0]], "captions": True},
            },
            "dense.captions: true, and data.world.captions = 0",
        ),
        ({"data": {"sources": [{"path": "a", "weight": math.inf}]}}, "weight = inf"),
        ({"data": {"sources": [{"path": "a", "weight": math.nan}]}}, "weight = nan"),
        ({"data": {"world": {}}, "template": "plain"}, "template: plain and data.world"),
        ({"data": {"world": {}, "newline": "frame"}, "dense": {}}, "newline is not row"),
        ({"new": {"vocab_size": 258}}, "at least 259"),
        ({"new": {"num_heads": 3}}, "new.num_heads = 3.  hint: a divisor of hidden_size"),
        ({"new": {"vision_num_heads": 5}}, "a divisor of vision_hidden_size, which is 192"),
        ({"new": {"num_kv_heads": 3}}, "a divisor of num_heads, which is 4"),
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


EVERYTHING = ("vision_tower", "projector", "learned_tokens", "language_model")

# What the authors' scripts say: parts, rate, tower's rate, examples of a step on 8 GPUs, tokens.
PUBLISHED = {
    "llava_1_5_1_projector": (("projector",), 1e-3, None, 256, 2048),
    "llava_1_5_2_instructions": (("projector", "language_model"), 2e-5, None, 128, 2048),
    "llava_1_5_2_lora": (("projector",), 2e-4, None, 128, 2048),
    "onevision_1_projector": (("projector",), 1e-3, None, 512, 8192),
    "onevision_15_knowledge": (EVERYTHING, 1e-5, 2e-6, 512, 32_768),
    "onevision_2_single_image": (EVERYTHING, 1e-5, 2e-6, 16, 32_768),
    "onevision_3_video": (EVERYTHING, 1e-5, 2e-6, 16, 32_768),
    "llava_video": (EVERYTHING, 1e-5, 2e-6, 16, 32_768),
}


@pytest.fixture(scope="module")
def stages(project: Path) -> dict[str, StageSettings]:
    folder = project / "configs" / "train"
    return {path.stem: read_yaml(StageSettings, path) for path in sorted(folder.glob("*.yaml"))}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_real_stages_are_the_published_ones(stages: dict[str, StageSettings], name: str):
    made = stages[name]
    tower = made.part_rates.vision_tower
    batch = made.batch_size * made.accumulate * 8
    own = (made.learn, made.learning_rate, tower, batch, made.data.max_tokens)
    assert own == PUBLISHED[name]
    assert (made.schedule, made.warmup_ratio, made.weight_decay) == ("cosine", 0.03, 0.0)
    assert made.checkpointing


# Parts, schedule, pairs of a step on 8 GPUs, epochs, frames and their stride.
PREFERENCES = {
    "llava_next_video_dpo": (("vision_tower", "language_model"), "linear", 128, 3, 10, 2),
    "onevision_critic_dpo": (EVERYTHING, "cosine", 64, 1, None, None),
}


@pytest.mark.parametrize("name", PREFERENCES)
def test_the_stages_of_preferences_are_the_published_ones(
    stages: dict[str, StageSettings], name: str
):
    made = stages[name]
    batch = made.batch_size * made.accumulate * 8
    frames = (made.data.max_frames, made.data.pool_stride)
    assert (made.learn, made.schedule, batch, made.epochs, *frames) == PREFERENCES[name]
    assert made.dpo == DpoSettings(beta=0.1, label_smoothing=0.0, chosen_weight=0.0)
    assert (made.learning_rate, made.warmup_ratio, made.weight_decay) == (5e-7, 0.1, 0.0)
    assert made.part_rates.vision_tower is None
    assert made.data.max_tokens == 32_768
    assert made.checkpointing


def test_low_rank_changes_may_learn_alone():
    assert stage(learn=[], lora={}).learn == ()


def test_the_demo_model_is_made_of_the_small_world(stages: dict[str, StageSettings]):
    names = (
        "1_tower", "2_questions", "3_pointers", "4_trails", "5_places", "6_patches", "7_tellings"
    )  # fmt: skip
    every = [stages[f"demo_{name}"] for name in names]
    first, second, third, fourth, fifth, sixth, seventh = every
    assert first.new is not None
    for before, after in itertools.pairwise(every):
        assert after.model == f"{before.output}/original"
    assert first.learn == second.learn == EVERYTHING
    assert third.learn == fourth.learn == fifth.learn == seventh.learn == EVERYTHING[1:]
    assert sixth.learn == EVERYTHING[:1]
    worlds = [made.data.world for made in every]
    assert len({world.seed for world in worlds if world is not None}) == len(every)  # other clips
    for made in every:
        assert made.dense is not None
        world = made.data.world
        assert world is not None
        assert made.max_steps is not None
        assert world.clips >= made.max_steps * made.batch_size  # no clip comes twice
        assert made.data.share_visuals
        # Sizes, rates and lengths that the held-out clips have are never trained on.
        held_out = split_settings("heldout")
        assert world.settings is not None
        for name in ("sizes_px", "rates_hz", "lengths_s", "palette"):
            assert not {*getattr(world.settings, name)} & {*getattr(held_out, name)}, name
    # The decoder is not run where only what a cell shows is learned.
    for made in (first, sixth):
        assert made.dense is not None
        assert (made.dense.story, made.dense.answers) == (0, 0)
    # What the heads of answers are to find is asked for below the first of their layers.
    dense = fourth.dense
    assert dense is not None
    assert dense.story_layer is not None
    assert dense.story_layer < min(layer for layer, _ in dense.first_heads + dense.second_heads)


def test_stages_follow_one_another(stages: dict[str, StageSettings]):
    made_here = {f"{stage.output}/original" for stage in stages.values()}
    begun = {stage.model for stage in stages.values() if stage.model.startswith("runs/")}
    assert begun
    assert begun <= made_here
    assert {name for name in stages if name.startswith("small")} == {
        "small_1_projector",
        "small_15_knowledge",
        "small_2_single_image",
        "small_3_video",
        "small_4_preferences",
    }


def test_the_deepspeed_files(project: Path, stages: dict[str, StageSettings]):
    for name, number in (("zero2", 2), ("zero3", 3), ("zero3_offload", 3)):
        values = json.loads((project / "configs" / "train" / f"{name}.json").read_text())
        assert values["zero_optimization"]["stage"] == number
        assert values["train_micro_batch_size_per_gpu"] == "auto"
    named = {stage.deepspeed for stage in stages.values()} - {None}
    assert named
    assert all((project / name).is_file() for name in named if name)


def test_the_stage_of_the_docs(project: Path, tmp_path: Path):
    text = (project / "docs" / "training.md").read_text(encoding="utf-8")
    path = tmp_path / "stage.yaml"
    path.write_text(text.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    made = read_yaml(StageSettings, path)
    assert made.learn == EVERYTHING
    assert [source.weight for source in made.data.sources] == [1.0, 0.5]
