"""A new model: its tokens by hand, its numbers by their spread, and that everybody loads it."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as BaseTokenizer

from llava_video.errors import CheckpointError
from llava_video.model.checkpoint import load_model
from llava_video.model.convert import convert_checkpoint
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config
from llava_video.model.names import parameter_shapes
from llava_video.model.spec import read_spec
from llava_video.model.tiny import byte_tokenizer
from llava_video.train.forward import Example, TrainingModel, pack
from llava_video.train.new_model import (
    check_new_model,
    draw_weights,
    learn_tokenizer,
    world_texts,
    write_new_model,
)
from llava_video.train.settings import NewModel

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def loaded(folder: Path) -> LlavaModel:
    return load_model(folder, config=read_model_config(folder), device="cpu", dtype=torch.float32)


def test_merges_by_hand():
    # "ab" stands six times, " ab" five times, " abc" three times.
    tokenizer = learn_tokenizer(["abc abc abc abc ab ab", "12 12 12 12 12 12"], 262)
    assert tokenizer.get_vocab_size() == 262
    vocab = tokenizer.get_vocab()
    assert [vocab[token] for token in SPECIAL] == [256, 257, 258]
    assert [tokenizer.id_to_token(idx) for idx in (259, 260, 261)] == ["ab", "Ġab", "Ġabc"]
    # A digit is a token of its own however often two stand together.
    ids = tokenizer.encode("abc 12").ids
    assert ids == [259, ord("c"), ord(" "), ord("1"), ord("2")]


@pytest.fixture(scope="module")
def tokenizer(new_folder: Path) -> BaseTokenizer:
    return BaseTokenizer.from_file(str(new_folder / "tokenizer.json"))


def test_bytes_come_first_and_every_text_comes_back(tokenizer: BaseTokenizer):
    ours, bytes_alone = tokenizer.get_vocab(), byte_tokenizer().get_vocab()
    assert len(bytes_alone) == 256 + len(SPECIAL)
    assert {token: ours[token] for token in bytes_alone} == bytes_alone
    assert sorted(ours.values()) == list(range(480))
    for text in ("Größe 50 €\n\tüber 3.75 s", "中文 🎬", "  What  does the red ring do?"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_digits_are_single_and_words_of_the_world_are_few_tokens(tokenizer: BaseTokenizer):
    merged = [token for token, id_ in tokenizer.get_vocab().items() if id_ > 258]
    assert len(merged) == 480 - 259
    assert not any(char.isdigit() for token in merged for char in token)
    assert tokenizer.encode("2049").tokens == ["2", "0", "4", "9"]
    assert tokenizer.encode("<|im_end|>").ids == [258]
    assert len(tokenizer.encode(" square").ids) == len(tokenizer.encode(" green").ids) == 1
    text = "What does the red ring do?"
    assert len(tokenizer.encode(text).ids) < len(text) / 2


def test_the_same_texts_give_the_same_tokens(new_folder: Path, new_model: NewModel):
    again = learn_tokenizer(world_texts(new_model.clips), new_model.vocab_size)
    assert again.to_str() == (new_folder / "tokenizer.json").read_text(encoding="utf-8")


def test_the_configuration_states_what_was_asked(new_folder: Path, new_model: NewModel):
    spec = read_spec(new_folder)
    vision, text = spec.config.dimensions.vision, spec.config.dimensions.text
    assert (vision.image_px, vision.patch_px, vision.hidden_size) == (56, 14, 32)
    assert (text.hidden_size, text.num_layers, text.num_kv_heads) == (32, 2, 2)
    assert text.vocab_size == new_model.vocab_size == spec.tokenizer.num_ids
    assert text.tie_embeddings
    assert spec.config.context_tokens == 32_768
    # An answer ends with <|im_end|>, as in LLaVA-Video; nothing is held against repeated words.
    assert spec.end_ids == (258, 256)
    assert spec.config.generation.repetition_penalty == 1.0
    assert spec.missing_tokens == ()


def test_weights_are_as_wide_as_stated(new_folder: Path):
    dimensions = read_model_config(new_folder).dimensions
    drawn = draw_weights(dimensions, 0)
    assert drawn.keys() == parameter_shapes(dimensions).keys()
    layer = "language_model.layers.1."
    # 0.6 / sqrt(inputs); writers into the stream of two layers are halved: 1 / sqrt(2 x 2).
    widths = {
        f"{layer}q_proj.weight": 0.6 / math.sqrt(32),
        f"{layer}up_proj.weight": 0.6 / math.sqrt(32),
        f"{layer}o_proj.weight": 0.3 / math.sqrt(32),
        f"{layer}down_proj.weight": 0.3 / math.sqrt(64),
        "language_model.embed_tokens.weight": 0.6 / math.sqrt(32),
        "vision_tower.patch_embedding.weight": 0.6 / math.sqrt(3 * 14 * 14),
        "projector.linear1.weight": 0.6 / math.sqrt(32),
    }
    for name, width in widths.items():
        own = drawn[name]
        # The spread of n numbers is uncertain by 1 / sqrt(2 n) of itself: six times that.
        assert own.std().item() == pytest.approx(width, rel=6 / math.sqrt(2 * own.numel())), name
        assert abs(own.mean().item()) < 6 * width / math.sqrt(own.numel()), name
    for name, tensor in drawn.items():
        if "norm" in name:
            assert torch.equal(tensor, torch.full_like(tensor, name.endswith("weight"))), name
        elif name.endswith("bias"):
            assert not tensor.any(), name
        else:
            assert tensor.any(), name


def test_a_seed_gives_the_same_numbers(new_folder: Path):
    config = read_model_config(new_folder)
    drawn = draw_weights(config.dimensions, 0)
    own = dict(loaded(new_folder).named_parameters())
    assert all(torch.equal(tensor, drawn[name]) for name, tensor in own.items())
    other = draw_weights(config.dimensions, 1)
    name = "language_model.layers.0.q_proj.weight"
    assert not torch.equal(drawn[name], other[name])


def test_transformers_loads_it_with_the_same_logits(new_folder: Path, tmp_path: Path):
    import transformers

    ids = read_spec(new_folder).tokenizer.encode("What does the red ring do in 12.5 s?")
    one = Example(ids=tuple(ids), labels=tuple(ids), plans=(), tiles=torch.zeros(0, 3, 56, 56))
    batch, net = pack([one]), TrainingModel(loaded(new_folder))
    with torch.no_grad():
        hidden = net.hidden_rows(net.spliced(batch["ids"], []), net.keys(batch["shares"]))
        ours = net.model.language_model.logits(hidden)
        peer = transformers.LlavaOnevisionForConditionalGeneration.from_pretrained(
            convert_checkpoint(new_folder, tmp_path / "hf", layout="hf").folder,
            dtype=torch.float32,
        )
        theirs = peer(input_ids=torch.tensor([ids])).logits[0]
    assert ours.isfinite().all()
    assert (ours - theirs[:, : ours.shape[1]]).abs().max() <= 1e-5
    # Nothing is known yet: no token is much likelier than another.
    assert 0.05 < ours.std() < 1


def test_sizes_of_no_model_are_refused_before_anything_is_written(new_model: NewModel):
    check_new_model(new_model)
    with pytest.raises(CheckpointError, match="patch_size"):
        check_new_model(replace(new_model, patch_px=99))


def test_a_folder_in_use_is_refused(new_folder: Path, new_model: NewModel):
    with pytest.raises(CheckpointError, match="not empty"):
        write_new_model(new_folder, new_model, ["a text"])
