"""A seed → a complete checkpoint folder of a tiny random model: the real format at toy size.

For demonstrations and tests on machines without weights. The answers are printable gibberish: the
weights are drawn, not learned. The tokenizer has one token per byte and the special tokens of the
member's template. Knows no module: tensors are drawn by name and shape.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as BaseTokenizer
from torch import Tensor

from llava_video.model.dimensions import ModelDimensions
from llava_video.model.export import write_checkpoint
from llava_video.model.model_config import FileFormat, parse_model_config
from llava_video.model.names import parameter_shapes
from llava_video.model.tiny_spec import (
    NUM_BYTES,
    TinySpec,
    front_token,
    special_tokens,
    tiny_generation,
    tiny_values,
)

# Ids the random head may choose: printable ASCII, so that answers can be read on a terminal.
_PRINTABLE = range(0x20, 0x7F)


def write_tiny_checkpoint(
    folder: str | Path, *, seed: int = 0, layout: FileFormat = "original", **options: Any
) -> Path:
    """Write a seeded random checkpoint that loads like a real one.

    Args:
        folder: the target; must not exist, or be empty.
        seed: the same seed and options give the same bytes.
        layout: whose format: "original" or "hf".
        **options: fields of `TinySpec`: `member="LLaVA-1.5"`, and sizes.

    Returns:
        The folder.

    Raises:
        ConfigError: an option out of range.
        CheckpointError: the folder is not empty or cannot be written, or transformers has no class
            for the member (LLaVA, LLaVA-Mini).
    """
    spec = TinySpec(**options)
    config = parse_model_config(tiny_values(spec), tiny_generation(spec))
    tensors = draw_tensors(config.dimensions, seed, getattr(torch, spec.dtype))
    # The format adds the two vectors of the tower's last norm to the last file.
    norm_bytes = spec.vision_hidden_size * tensors["projector.linear1.bias"].itemsize
    sizes_bytes = [tensor.nbytes for tensor in tensors.values()] + [norm_bytes, norm_bytes]
    tokenizer = byte_tokenizer(special_tokens(spec), front_token(spec)).to_str(pretty=False)
    return write_checkpoint(
        folder,
        tensors=tensors,
        config=config,
        layout=layout,
        shard_bytes=_shard_bytes(sizes_bytes, spec.num_shards),
        files={"tokenizer.json": tokenizer.encode()},
    )


def draw_tensors(
    dimensions: ModelDimensions, seed: int, dtype: torch.dtype, device: str = "cpu"
) -> dict[str, Tensor]:
    """Draw every parameter from a seeded normal distribution, scaled to keep signals alive.

    Args:
        dimensions: the model's sizes.
        seed: of the draw.
        dtype: of the result; the numbers are drawn in float32.
        device: where they are drawn; another kind of device draws other numbers.

    Returns:
        Our parameter name → tensor.
    """
    generator = torch.Generator(device).manual_seed(seed)
    is_tied = dimensions.text.tie_embeddings
    return {
        name: _drawn(name, shape, generator)
        .mul_(_row_scales(name, shape, is_tied).to(device))
        .to(dtype)
        for name, shape in parameter_shapes(dimensions).items()
    }


def byte_tokenizer(
    special: Sequence[str] = special_tokens(TinySpec()), front: str = ""
) -> BaseTokenizer:
    """Build a tokenizer with one token per byte (ids 0 to 255) and special tokens behind them.

    Args:
        special: the special tokens, by default of Qwen's template.
        front: the one of them that stands in front of every text; "" for none.
    """
    letters = _byte_letters()
    vocab = {letters[byte]: byte for byte in range(NUM_BYTES)}
    tokenizer = BaseTokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special]
    )
    if front:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{front} $A",
            special_tokens=[(front, NUM_BYTES + list(special).index(front))],
        )
    return tokenizer


def _shard_bytes(sizes_bytes: list[int], num_shards: int) -> int:
    """Return about the least file size with which tensors, in order, fill at most so many files."""
    limit_bytes = max(*sizes_bytes, -(-sum(sizes_bytes) // num_shards))
    while _num_files(sizes_bytes, limit_bytes) > num_shards:
        limit_bytes += limit_bytes // 50 + 1
    return limit_bytes


def _num_files(sizes_bytes: list[int], limit_bytes: int) -> int:
    num_files, filled_bytes = 1, 0
    for size_bytes in sizes_bytes:
        if filled_bytes and filled_bytes + size_bytes > limit_bytes:
            num_files, filled_bytes = num_files + 1, 0
        filled_bytes += size_bytes
    return num_files


def _drawn(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator, device=generator.device)
    part, leaf = name.split(".")[-2:] if "." in name else ("", name)
    if "norm" in part:
        return 1 + 0.1 * noise if leaf == "weight" else 0.1 * noise
    if leaf == "bias":
        return 0.1 * noise
    if len(shape) < 2 or "position" in leaf:  # newline, separator, class, positions
        return noise
    # More than keeps variance: sharp attention, so that every token and picture matters and greedy
    # answers do not settle on one letter. Measured: beyond 2, float32 rounding reaches 1e-4 logits.
    gain = 2.0 if name.startswith(("language_model.layers", "fusion.layers")) else 1.5
    return noise * gain / math.sqrt(math.prod(shape[1:]))


def _row_scales(name: str, shape: tuple[int, ...], is_tied: bool) -> Tensor:
    """Return what the rows are multiplied by: a head's are small for ids that must not win."""
    is_head = name.endswith("lm_head.weight") or (is_tied and name.endswith("embed_tokens.weight"))
    if not is_head:
        return torch.ones(1)
    scales = torch.full((shape[0], 1), 0.05)
    scales[_PRINTABLE.start : _PRINTABLE.stop] = 1.5 if is_tied else 3.0
    return scales


def _byte_letters() -> dict[int, str]:
    """Return the letter that byte-level tokenizers write for each byte (GPT-2's table).

    Printable bytes stand for themselves; the others take the letters from 256 upwards, in order.
    """
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(NUM_BYTES) if byte not in kept]
    letters = {byte: chr(byte) for byte in kept}
    return letters | {byte: chr(NUM_BYTES + idx) for idx, byte in enumerate(rest)}
