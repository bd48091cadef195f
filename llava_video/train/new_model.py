"""Sizes and texts → a checkpoint that has learned nothing: what a first stage begins with.

Weights are drawn as for training, not as `model/tiny.py` draws them for tests: narrow, norms at
one, and the layers that write into the residual stream narrower the deeper the model is (source:
GPT-2).
The tokenizer is byte-level BPE learned from the texts; every digit is a token of its own, so that a
number never seen is read like any other.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as BaseTokenizer

from llava_video.model.dimensions import ModelDimensions
from llava_video.model.export import write_checkpoint
from llava_video.model.model_config import ModelConfig, parse_model_config
from llava_video.model.names import parameter_shapes
from llava_video.model.tiny import byte_tokenizer
from llava_video.model.tiny_spec import (
    TinySpec,
    special_tokens,
    tiny_generation,
    tiny_values,
)
from llava_video.planning.time_note import TimeNote
from llava_video.train.settings import NewModel
from llava_video.world.example import PROMPTS, make_example
from llava_video.world.splits import split_settings

_WRITERS = ("out_proj.weight", "fc2.weight", "o_proj.weight", "down_proj.weight")
_SHARE = 0.6  # of 1 / sqrt(inputs), so that sums begin small


def write_new_model(folder: str | Path, new: NewModel, texts: Iterable[str]) -> Path:
    """Write the checkpoint.

    Args:
        folder: must not exist, or be empty.
        new: its sizes.
        texts: what its tokenizer is made for.

    Raises:
        CheckpointError: the folder is not empty or cannot be written, or no model has such sizes.
    """
    tokenizer = learn_tokenizer(texts, new.vocab_size)
    config = _config_of(new, tokenizer.get_vocab_size())
    return write_checkpoint(
        folder,
        tensors=draw_weights(config.dimensions, new.seed),
        config=config,
        layout="original",
        files={"tokenizer.json": tokenizer.to_str(pretty=False).encode()},
    )


def check_new_model(new: NewModel) -> None:
    """See that a model may have these sizes.

    Args:
        new: the sizes.

    Raises:
        CheckpointError: none has.
    """
    _config_of(new, new.vocab_size)


def _config_of(new: NewModel, vocab_size: int) -> ModelConfig:
    sizes = {
        name: getattr(new, name)
        for name in (field.name for field in fields(NewModel))
        if name not in ("seed", "vocab_size", "clips")
    }
    spec = TinySpec(
        **sizes,
        member="LLaVA-Video",
        vocab_size=vocab_size,
        tie_embeddings=True,
        repetition_penalty=1.0,  # a caption names an object as often as something happens to it
        max_tiles=2,
    )
    return parse_model_config(tiny_values(spec), tiny_generation(spec))


def world_texts(num_clips: int) -> Iterator[str]:
    """Yield what is said of clips of the small world, and what is said of their times."""
    for prompts in PROMPTS.values():
        yield from prompts
    for idx in range(num_clips):
        made = make_example(split_settings("train"), "vocabulary", 0, idx)
        yield from made.captions.values()
        for question in made.questions:
            yield from (question.text, question.answer)
        times_s = tuple(k / 2 for k in range(4 + idx % 20))
        note = TimeNote(duration_s=len(times_s) / 2, num_frames=len(times_s), times_s=times_s)
        yield note.sentence()
        yield "system\nYou are a helpful assistant."
        yield "user\n"
        yield "assistant\n"


def learn_tokenizer(texts: Iterable[str], vocab_size: int) -> BaseTokenizer:
    """Learn byte-level BPE from texts.

    Args:
        texts: any number.
        vocab_size: ids at most. The bytes come first, then the special tokens, then what was
            merged: the ids that `tiny_values` states.
    """
    special = special_tokens(TinySpec())
    learned = _tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learned.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learned.to_str())["model"]["merges"]]
    vocab: dict[str, int] = dict(byte_tokenizer().get_vocab())
    for pair in merges:
        vocab.setdefault("".join(pair), len(vocab))
    tokenizer = _tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special]
    )
    return tokenizer


def draw_weights(dimensions: ModelDimensions, seed: int) -> dict[str, torch.Tensor]:
    """Draw every parameter.

    Args:
        dimensions: the model's sizes.
        seed: the same one gives the same numbers on every machine.

    Returns:
        Our parameter name → float32 tensor.
    """
    generator = torch.Generator().manual_seed(seed)
    return dict(_drawn(dimensions, generator))


def _drawn(
    dimensions: ModelDimensions, generator: torch.Generator
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, shape in parameter_shapes(dimensions).items():
        *modules, leaf = name.split(".")
        if modules and "norm" in modules[-1]:
            yield name, torch.full(shape, 1.0 if leaf == "weight" else 0.0)
        elif leaf == "bias":
            yield name, torch.zeros(shape)
        else:
            # A lookup has no inputs to sum: its width stands in their place.
            fan_in = math.prod(shape[1:]) if len(shape) > 1 else shape[0]
            scale = _SHARE / math.sqrt(fan_in)
            if name.endswith(_WRITERS):
                part = dimensions.vision if name.startswith("vision") else dimensions.text
                scale /= math.sqrt(2 * part.num_layers)
            yield name, torch.randn(shape, generator=generator) * scale


def _tokenizer(model: Any) -> BaseTokenizer:
    tokenizer = BaseTokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
