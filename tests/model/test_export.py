"""Checkpoint folders are written whole or not at all, in files of the asked size."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llava_video.errors import CheckpointError
from llava_video.model import export
from llava_video.model.export import config_values, generation_values, write_checkpoint
from llava_video.model.model_config import (
    GenerationDefaults,
    ModelConfig,
    parse_model_config,
    read_model_config,
)
from llava_video.model.names import file_names
from llava_video.model.shards import INDEX_FILE, find_shards
from llava_video.model.tiny import draw_tensors, write_tiny_checkpoint
from llava_video.model.tiny_spec import TinySpec, tiny_values


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return read_model_config(write_tiny_checkpoint(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def tensors(config: ModelConfig) -> dict[str, torch.Tensor]:
    return draw_tensors(config.dimensions, 0, torch.float32)


@pytest.mark.parametrize("layout", ["original", "hf"])
def test_every_tensor_is_written_under_its_name(tmp_path: Path, config, tensors, layout):
    folder = write_checkpoint(tmp_path / "out", tensors=tensors, config=config, layout=layout)
    stored = load_file(folder / "model.safetensors")
    names = file_names(config.dimensions, layout)
    for ours, tensor in tensors.items():
        assert torch.equal(stored.pop(names[ours]), tensor)
    # What is left is the tower's last norm, as the identity: other loaders want it.
    assert len(stored) == 2
    assert {float(tensor.sum()) for tensor in stored.values()} == {0.0, 32.0}
    assert all("post_layernorm" in name for name in stored)


def test_shards_are_of_the_asked_size_and_the_index_is_true(tmp_path: Path, config, tensors):
    folder = write_checkpoint(
        tmp_path / "out", tensors=tensors, config=config, layout="hf", shard_bytes=100_000
    )
    shards = find_shards(folder)
    assert len(shards) > 5
    index = json.loads((folder / INDEX_FILE).read_text())
    total_bytes = 0
    for shard in shards:
        held = load_file(shard.path)
        held_bytes = sum(tensor.nbytes for tensor in held.values())
        total_bytes += held_bytes
        assert held_bytes <= 100_000 or len(held) == 1
        assert all(index["weight_map"][name] == shard.path.name for name in held)
    assert index["metadata"]["total_size"] == total_bytes
    assert shards[0].path.name == f"model-00001-of-{len(shards):05}.safetensors"


def test_configurations_say_what_was_written(tmp_path: Path, config, tensors):
    halves = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    for layout in ("original", "hf"):
        folder = write_checkpoint(tmp_path / layout, tensors=halves, config=config, layout=layout)
        again = read_model_config(folder)
        assert again.stored_dtype == "bfloat16"
        assert again.layout == layout
        assert again.dimensions == config.dimensions
        assert again.visual == config.visual  # newlines per row too, which hf has no word for
        assert again.generation == config.generation


@pytest.mark.parametrize("layout", ["original", "hf"])
def test_what_only_a_name_told_is_written_down(tmp_path: Path, config, tensors, layout):
    """A judge in a folder of another name, with the template that was asked for."""
    judge = replace(config, member="LLaVA-Critic", template="qwen_2_5")
    folder = write_checkpoint(tmp_path / "mine", tensors=tensors, config=judge, layout=layout)
    values = json.loads((folder / "config.json").read_text())
    assert values["llava_video_member"] == "LLaVA-Critic"
    assert values["llava_video_template"] == "qwen_2_5"
    again = read_model_config(folder)
    assert (again.member, again.template) == ("LLaVA-Critic", "qwen_2_5")


@pytest.mark.parametrize("layout", ["original", "hf"])
def test_the_authors_code_is_told_that_a_tower_is_there(tmp_path: Path, config, tensors, layout):
    """It fills the tower from the files only then; transformers always does."""
    unsaid = replace(config, values={**config.values, "unfreeze_mm_vision_tower": False})
    folder = write_checkpoint(tmp_path / "out", tensors=tensors, config=unsaid, layout=layout)
    values = json.loads((folder / "config.json").read_text())
    told = {"original": True, "hf": None}
    assert values.get("unfreeze_mm_vision_tower") is told[layout]
    beside = {name: t for name, t in tensors.items() if not name.startswith("vision_tower.")}
    assert config_values(unsaid, "original", beside)["unfreeze_mm_vision_tower"] is False


def test_placeholders_are_never_written(tmp_path: Path, config, tensors):
    """Under ZeRO-3 a process that was not gathered holds tensors of no numbers."""
    shared_out = {name: tensor[:0] for name, tensor in tensors.items()}
    with pytest.raises(CheckpointError, match=r"is \(0.*more are unlike.*ZeRO-3"):
        write_checkpoint(tmp_path / "out", tensors=shared_out, config=config, layout="original")
    cut = {**tensors, "image_newline": tensors["image_newline"][:3]}
    with pytest.raises(CheckpointError, match=r"image_newline is \(3,\), not \(64,\)\."):
        write_checkpoint(tmp_path / "out", tensors=cut, config=config, layout="hf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["original", "hf"])
def test_the_frames_it_was_trained_with_are_kept(tmp_path: Path, config, tensors, layout):
    values = {**config.values, "llava_video_fps": 2.5, "llava_video_max_frames": 24}
    own = replace(config, values=values)
    folder = write_checkpoint(tmp_path / "mine", tensors=tensors, config=own, layout=layout)
    again = read_model_config(folder)
    assert (again.fps, again.max_frames) == (2.5, 24)


@pytest.mark.parametrize(
    ("member", "decoder", "stated"),
    [
        ("LLaVA-1.5", "LlamaForCausalLM", ("LlavaLlamaForCausalLM", "llava_llama")),
        ("LLaVA-Mini", "LlamaForCausalLM", ("LlavaMiniLlamaForCausalLM", "llava_mini_llama")),
        ("LLaVA-OneVision", "Qwen2ForCausalLM", ("LlavaQwenForCausalLM", "llava_qwen")),
    ],
)
def test_a_decoders_class_becomes_the_whole_models(member, decoder, stated):
    """Training leaves the decoder's class beside an adapter; what is written is a whole model."""
    values = tiny_values(TinySpec(member=member))
    values |= {"architectures": [decoder], "model_type": "llama"}
    written = config_values(parse_model_config(values), "original", {})
    assert (written["architectures"], written["model_type"]) == ([stated[0]], stated[1])


def test_generation_defaults_round_trip():
    one = GenerationDefaults(eos_ids=(5,), repetition_penalty=1.1)
    assert generation_values(one) == {"eos_token_id": 5, "repetition_penalty": 1.1}
    several = GenerationDefaults(eos_ids=(5, 6), do_sample=True, temperature=0.7)
    assert generation_values(several)["eos_token_id"] == [5, 6]
    assert "eos_token_id" not in generation_values(GenerationDefaults())


def test_further_files_are_written(tmp_path: Path, config, tensors):
    folder = write_checkpoint(
        tmp_path / "out", tensors=tensors, config=config, layout="original", files={"a.txt": b"x"}
    )
    assert (folder / "a.txt").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("kind", "said"), [("file", "out is a file"), ("full folder", "out exists and is not empty")]
)
def test_nothing_is_overwritten(tmp_path: Path, config, tensors, kind: str, said: str):
    target = tmp_path / "out"
    if kind == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=said):
        write_checkpoint(target, tensors=tensors, config=config, layout="original")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no disk space is left"),
        (OSError(errno.EACCES, "denied"), "cannot be written"),
    ],
)
def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch, config, tensors, cause, message):
    written: list[Path] = []

    def write_json(path: Path, _: object) -> None:
        written.extend(path.parent.iterdir())
        raise cause

    monkeypatch.setattr(export, "write_json", write_json)
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(
            tmp_path / "new" / "out",
            tensors=tensors,
            config=config,
            layout="hf",
            shard_bytes=100_000,
        )
    assert len(written) > 5
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path, config, tensors):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_checkpoint(tmp_path / "file" / "out", tensors=tensors, config=config, layout="hf")


def test_weights_may_be_read_by_whoever_may_read_the_config(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "model")
    modes = {file.name: file.stat().st_mode for file in folder.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]
