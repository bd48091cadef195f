"""A checkpoint's facts without its weights."""

import json
from dataclasses import replace
from pathlib import Path

import overlay_cases as cases
import pytest

from llava_video.errors import CheckpointError, ConfigError
from llava_video.model.model_config import GenerationDefaults
from llava_video.model.spec import read_spec


def test_the_weights_need_not_be_there(tiny_folder: Path, tmp_path: Path) -> None:
    for file in tiny_folder.iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    spec = read_spec(tmp_path)
    assert spec.geometry.tile_px == read_spec(tiny_folder).geometry.tile_px
    assert spec.geometry.context_tokens > 0


def test_memory_is_counted_in_the_asked_dtype(tiny_folder: Path) -> None:
    half, full = (read_spec(tiny_folder, dtype=d).geometry for d in ("bfloat16", "float32"))
    assert full.weights_bytes == 2 * half.weights_bytes > 0
    assert full.value_bytes == 2 * half.value_bytes


def test_facts_alone_have_no_limit(tiny_folder: Path) -> None:
    setup = read_spec(tiny_folder).setup
    assert (setup.weight_format, setup.limit_bytes, setup.reasons) == ("plain", None, ())


def test_a_folder_without_a_tokenizer_says_so(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_folder / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        read_spec(tmp_path)


def test_what_an_overlay_lacks_comes_from_its_base(tiny_folder: Path, tmp_path: Path) -> None:
    """Its own configuration, its base's tokenizer and generation defaults."""
    base = cases.write_model(tiny_folder, tmp_path / "base", cases.stored(tiny_folder))
    (base / "generation_config.json").write_text(json.dumps({"repetition_penalty": 1.25}))
    overlay = cases.write_projector(base, tmp_path / "overlay", {}, image_aspect_ratio="pad")
    spec = read_spec(overlay)
    assert (spec.folder, spec.sources.base) == (overlay, base)
    assert spec.geometry.aspect == "pad" != read_spec(base).geometry.aspect
    assert spec.tokenizer.to_json() == read_spec(base).tokenizer.to_json()
    assert spec.config.generation.repetition_penalty == 1.25
    # Another base by hand, and its own defaults where it has some.
    (overlay / "generation_config.json").write_text(json.dumps({"repetition_penalty": 1.5}))
    again = read_spec(overlay, base=tiny_folder)
    assert again.sources.base == tiny_folder
    assert again.config.generation.repetition_penalty == 1.5


def test_an_answer_ends_where_the_template_ends_it(tiny_folder: Path) -> None:
    spec = read_spec(tiny_folder)
    end_id = spec.tokenizer.token_id("<|im_end|>")
    assert end_id in spec.end_ids
    assert spec.end_texts == ()
    silent = replace(spec, config=replace(spec.config, generation=GenerationDefaults()))
    assert silent.end_ids == (end_id,)  # of a checkpoint that says nothing of it
    v0 = silent.with_template("llava_v0")
    assert (v0.end_ids, v0.end_texts) == ((), ("###",))
    # This tokenizer has no such token, so the end has to be read in the text.
    vicuna = spec.with_template("vicuna_v1")
    assert (vicuna.end_ids, vicuna.end_texts) == (spec.config.generation.eos_ids, ("</s>",))


def test_tokens_of_a_template_that_the_tokenizer_lacks(tiny_folder: Path) -> None:
    spec = read_spec(tiny_folder)
    assert spec.missing_tokens == spec.with_template("llava_v0").missing_tokens == ()
    assert spec.with_template("llava_llama_2").missing_tokens == ("<s>", "</s>")


def test_every_checkpoint_has_the_tokens_of_its_own_template(shared: Path) -> None:
    golden = shared / "golden" / "family"
    for name in ("llava-v1-tiny", "llava-v1.5-tiny", "LLaVA-NeXT-Video-tiny", "llava-mini-tiny"):
        spec = read_spec(golden / name)
        assert spec.missing_tokens == ()
        assert spec.with_template("mpt").missing_tokens == ("<|im_start|>", "<|im_end|>")


def test_another_template_may_be_asked_for(tiny_folder: Path) -> None:
    spec = read_spec(tiny_folder)
    assert spec.with_template(None) is spec
    assert spec.with_template("mpt").config.template == "mpt"
    with pytest.raises(ConfigError, match="template = 'qwen2'") as caught:
        spec.with_template("qwen2")
    assert "did you mean 'qwen_2" in caught.value.hint
