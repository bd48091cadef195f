"""The tiny checkpoint: reproducible, complete, and as varied as a random model can be."""

import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from model_runs import greedy
from tokenizers import Tokenizer as BaseTokenizer

from llava_video.errors import CheckpointError, ConfigError
from llava_video.model.checkpoint import load_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import geometry_of, read_model_config
from llava_video.model.names import our_names, parameter_shapes
from llava_video.model.shards import find_shards
from llava_video.model.tiny import byte_tokenizer, write_tiny_checkpoint
from llava_video.model.tiny_spec import MemberName, TinySpec
from llava_video.model.tokenizer import Tokenizer
from llava_video.values import Newline


def load_tiny(folder: Path) -> LlavaModel:
    return load_model(folder, config=read_model_config(folder), device="cpu")


@pytest.mark.parametrize("layout", ["original", "hf"])
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, layout: str):
    first = write_tiny_checkpoint(tmp_path / "1", seed=3, layout=layout)
    second = write_tiny_checkpoint(tmp_path / "2", seed=3, layout=layout)
    other = write_tiny_checkpoint(tmp_path / "3", seed=4, layout=layout)
    names = sorted(path.name for path in first.iterdir())
    assert names == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    weights = "model.safetensors"
    assert (first / weights).read_bytes() != (other / weights).read_bytes()


@pytest.mark.parametrize("num_shards", [1, 2, 3, 5])
def test_so_many_files(tmp_path: Path, num_shards: int):
    folder = write_tiny_checkpoint(tmp_path / "tiny", num_shards=num_shards)
    assert len(find_shards(folder)) == num_shards
    assert load_tiny(folder).dtype == torch.float32


@pytest.mark.parametrize("layout", ["original", "hf"])
@pytest.mark.parametrize(
    ("options", "newline"),
    [
        ({}, Newline.ROW),
        ({"newline_position": "one_token", "time_instruction": False}, Newline.CLIP),
        ({"newline_position": "frame", "pool_mode": "average"}, Newline.FRAME),
        ({"newline_position": "no_token", "tie_embeddings": True}, Newline.NONE),
        ({"slow_every": 3, "dtype": "bfloat16", "vocab_size": 512}, Newline.ROW),
    ],
)
def test_options_reach_the_model(tmp_path: Path, layout: str, options, newline: Newline):
    folder = write_tiny_checkpoint(tmp_path / "tiny", layout=layout, **options)
    config = read_model_config(folder)
    spec = TinySpec(**options)
    model = load_model(folder, config=config, device="cpu")
    assert config.visual.newline is newline
    assert config.visual.pool_mode == options.get("pool_mode", "bilinear")
    assert config.visual.slow_every == spec.slow_every
    assert config.time_instruction == options.get("time_instruction", True)
    assert (model.separator is not None) == bool(spec.slow_every)
    assert (model.language_model.lm_head is None) == spec.tie_embeddings
    assert model.language_model.embed_tokens.weight.shape[0] == spec.vocab_size
    assert model.dtype == getattr(torch, spec.dtype)


def test_the_tile_flows_from_the_file_to_the_geometry(tmp_path: Path):
    folder = write_tiny_checkpoint(tmp_path / "tiny", tile_px=84, max_tiles=2)
    geometry = geometry_of(read_model_config(folder), str(folder), "float32")
    assert (geometry.tile_px, geometry.patches_per_side) == (84, 6)
    assert geometry.canvases == ((84, 84), (168, 84), (84, 168), (168, 168))
    assert geometry.vision_width == 32
    assert load_tiny(folder).encode(torch.zeros(2, 3, 84, 84)).shape == (2, 36, 64)


@pytest.mark.parametrize("layout", ["original", "hf"])
@pytest.mark.parametrize("member", get_args(MemberName))
def test_every_member_has_one_with_its_tower_inside(tmp_path: Path, member: str, layout: str):
    folder = tmp_path / "tiny"
    if layout == "hf" and member in ("LLaVA", "LLaVA-Mini"):
        with pytest.raises(CheckpointError, match=f"no class for {member} "):
            write_tiny_checkpoint(folder, member=member, layout=layout)
        assert not folder.exists()
        return
    write_tiny_checkpoint(folder, member=member, layout=layout)
    config = read_model_config(folder)
    assert (config.member, config.layout) == (member, layout)
    stored = {name: shape for one in find_shards(folder) for name, shape in one.shapes.items()}
    ours = our_names(config.dimensions)
    found = {ours[name]: shape for name, shape in stored.items() if name in ours}
    assert found == parameter_shapes(config.dimensions)
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in stored if name not in ours} == {
        "post_layernorm"
    }


def test_the_tokenizer_of_a_llama_begins_every_text(tmp_path: Path):
    folder = write_tiny_checkpoint(tmp_path / "tiny", member="LLaVA-1.5")
    tokenizer = BaseTokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode("ab").ids == [257, ord("a"), ord("b")]
    assert tokenizer.encode("ab</s>", add_special_tokens=False).ids == [ord("a"), ord("b"), 258]
    generation = read_model_config(folder).generation
    assert (generation.bos_id, generation.eos_ids) == (257, (258,))
    assert generation.repetition_penalty == 1.0


@pytest.mark.parametrize("tie_embeddings", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_answers_are_printable_varied_and_depend_on_what_is_seen(
    tmp_path: Path, seed: int, tie_embeddings: bool
):
    folder = write_tiny_checkpoint(tmp_path / "tiny", seed=seed, tie_embeddings=tie_embeddings)
    model, tokenizer = load_tiny(folder), Tokenizer(folder)
    generator = torch.Generator().manual_seed(seed)
    tiles = torch.rand(4, 3, 56, 56, generator=generator) * 2 - 1
    answers = set()
    for scene in (tiles, -tiles):
        for question in ("What is shown?", "How many people are there?"):
            visual = model.encode(scene).flatten(0, 1)
            text = model.language_model.embed(torch.tensor(tokenizer.encode(question)))
            ids = greedy(model, torch.cat([visual, text]), 24)
            assert len(set(ids)) >= 6
            answer = tokenizer.decode(ids)
            assert answer.isascii()
            assert answer.isprintable()
            assert len(answer) == 24  # no end of the answer, nothing undecodable
            answers.add(answer)
    assert len(answers) == 4


def test_the_tokenizer_has_one_token_per_byte():
    tokenizer = byte_tokenizer()
    assert tokenizer.get_vocab_size() == 259
    every = bytes(range(256))
    for byte in every:
        spelled = tokenizer.id_to_token(byte)
        assert tokenizer.token_to_id(spelled) == byte
    assert tokenizer.encode("é\n").ids == [0xC3, 0xA9, 0x0A]
    assert tokenizer.decode([0xC3, 0xA9, 0x0A]) == "é\n"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"vocab_size": 258}, "vocab_size = 258"),
        ({"tile_px": 0}, "tile_px = 0"),
        ({"pool_mode": "conv"}, "pool_mode = 'conv'"),
        ({"slow_every": 2, "newline_position": "frame"}, "newline_position='grid'"),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, options, match: str):
    with pytest.raises(ConfigError, match=match):
        write_tiny_checkpoint(tmp_path / "tiny", **options)


def test_an_unknown_option_is_a_type_error_and_nothing_is_overwritten(tmp_path: Path):
    with pytest.raises(TypeError, match="tile_size"):
        write_tiny_checkpoint(tmp_path / "tiny", tile_size=56)
    write_tiny_checkpoint(tmp_path / "tiny")
    with pytest.raises(CheckpointError, match="not empty"):
        write_tiny_checkpoint(tmp_path / "tiny")


def test_config_is_in_the_original_style(tmp_path: Path):
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    values = json.loads((folder / "config.json").read_text())
    assert values["architectures"] == ["LlavaQwenForCausalLM"]
    assert values["mm_newline_position"] == "grid"
    assert values["vision_config"]["image_size"] == 56
    assert values["image_grid_pinpoints"][:2] == [[56, 56], [56, 112]]
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [258, 256]
    assert generation["repetition_penalty"] == 1.05
