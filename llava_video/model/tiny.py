"""A seed → a complete checkpoint folder of a tiny random model: the real format at toy size.

For demonstrations and tests on machines without weights. The answers are printable gibberish: the
weights are drawn, not learned. The tokenizer has one token per byte and the template's three
special tokens. Knows no module: tensors are drawn by name and shape.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as BaseTokenizer
from torch import Tensor

from llava_video.config import check, setting
from llava_video.errors import ConfigError
from llava_video.model.dimensions import ModelDimensions
from llava_video.model.export import write_checkpoint
from llava_video.model.model_config import FileFormat, parse_model_config
from llava_video.model.names import parameter_shapes
from llava_video.model.tower_config import SO400M
from llava_video.values import PoolMode

_SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_NUM_BYTES = 256

# Ids the random head may choose: printable ASCII, so that answers can be read on a terminal.
_PRINTABLE = range(0x20, 0x7F)


@dataclass(frozen=True, slots=True, kw_only=True)
class TinySpec:
    """What a tiny checkpoint looks like; every default is as small as the format allows."""

    tile_px: int = setting(56, "Side of a tile; 56 gives 4 x 4 patches.", unit="px", at_least=14)
    patch_px: int = setting(14, "Side of a patch, as in the real models.", unit="px", at_least=1)
    max_tiles: int = setting(6, "Canvases go up to this many tiles each way.", at_least=1)
    vision_hidden_size: int = setting(32, "Channels of the vision tower.", at_least=1)
    vision_intermediate_size: int = setting(64, "Channels inside its MLP.", at_least=1)
    vision_num_layers: int = setting(2, "Layers of the vision tower.", at_least=1)
    vision_num_heads: int = setting(4, "Its attention heads.", at_least=1)
    hidden_size: int = setting(64, "Channels of the language model.", at_least=1)
    intermediate_size: int = setting(128, "Channels inside its MLP.", at_least=1)
    num_layers: int = setting(2, "Its layers.", at_least=1)
    num_heads: int = setting(4, "Its query heads.", at_least=1)
    num_kv_heads: int = setting(2, "Its key and value heads.", at_least=1)
    vocab_size: int = setting(320, "Rows of the embedding; 259 are used.", at_least=259)
    tie_embeddings: bool = setting(False, "Whether the head is the embedding matrix.")
    context_tokens: int = setting(
        32_768, "Positions, as the real models.", unit="tokens", at_least=1
    )
    newline_position: Literal["grid", "frame", "one_token", "no_token"] = setting(
        "grid", "Where newlines stand in a video, in the original's words; LLaVA-Video's."
    )
    pool_mode: PoolMode = setting("bilinear", "How maps are pooled.")
    time_instruction: bool = setting(True, "Whether videos come with a time sentence.")
    slow_every: int = setting(
        0, "Every k-th frame is slow (slow-fast layout); 0 for none.", at_least=0
    )
    repetition_penalty: float = setting(1.05, "As in the public checkpoints.", above=0)
    dtype: Literal["float32", "bfloat16", "float16"] = setting("float32", "Of the stored weights.")
    num_shards: int = setting(1, "Weight files at most, about equal in size.", at_least=1)

    def __post_init__(self) -> None:
        """Check every field."""
        check(self)


def write_tiny_checkpoint(
    folder: str | Path, *, seed: int = 0, layout: FileFormat = "original", **options: Any
) -> Path:
    """Write a seeded random checkpoint that loads like a real one.

    Args:
        folder: the target; must not exist, or be empty.
        seed: the same seed and options give the same bytes.
        layout: whose format: "original" or "hf".
        **options: fields of `TinySpec`.

    Returns:
        The folder.

    Raises:
        ConfigError: an option out of range.
        CheckpointError: the folder is not empty or cannot be written.
    """
    spec = TinySpec(**options)
    config = parse_model_config(_config_values(spec), _generation_values(spec))
    tensors = draw_tensors(config.dimensions, seed, getattr(torch, spec.dtype))
    # The format adds the two vectors of the tower's last norm to the last file.
    norm_bytes = spec.vision_hidden_size * tensors["projector.linear1.bias"].itemsize
    sizes_bytes = [tensor.nbytes for tensor in tensors.values()] + [norm_bytes, norm_bytes]
    tokenizer = byte_tokenizer().to_str(pretty=False)
    return write_checkpoint(
        folder,
        tensors=tensors,
        config=config,
        layout=layout,
        shard_bytes=_shard_bytes(sizes_bytes, spec.num_shards),
        files={"tokenizer.json": tokenizer.encode()},
    )


def draw_tensors(dimensions: ModelDimensions, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Draw every parameter from a seeded normal distribution, scaled to keep signals alive.

    Args:
        dimensions: the model's sizes.
        seed: of the draw.
        dtype: of the result; the numbers are drawn in float32.

    Returns:
        Our parameter name → tensor.
    """
    generator = torch.Generator().manual_seed(seed)
    is_tied = dimensions.text.tie_embeddings
    return {
        name: (_drawn(name, shape, generator) * _row_scales(name, shape, is_tied)).to(dtype)
        for name, shape in parameter_shapes(dimensions).items()
    }


def byte_tokenizer() -> BaseTokenizer:
    """Build a tokenizer with one token per byte (ids 0 to 255) and the three special tokens."""
    letters = _byte_letters()
    vocab = {letters[byte]: byte for byte in range(_NUM_BYTES)}
    tokenizer = BaseTokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in _SPECIAL_TOKENS]
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
    noise = torch.randn(shape, generator=generator)
    part, leaf = name.split(".")[-2:] if "." in name else ("", name)
    if "norm" in part:
        return 1 + 0.1 * noise if leaf == "weight" else 0.1 * noise
    if leaf == "bias":
        return 0.1 * noise
    if len(shape) < 2 or leaf == "position_embedding":  # newline, separator, positions
        return noise
    # More than keeps variance: sharp attention, so that every token and picture matters and greedy
    # answers do not settle on one letter. Measured: beyond 2, float32 rounding reaches 1e-4 logits.
    gain = 2.0 if name.startswith("language_model.layers") else 1.5
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
    rest = [byte for byte in range(_NUM_BYTES) if byte not in kept]
    letters = {byte: chr(byte) for byte in kept}
    return letters | {byte: chr(_NUM_BYTES + idx) for idx, byte in enumerate(rest)}


def _config_values(spec: TinySpec) -> dict[str, Any]:
    if spec.slow_every and spec.newline_position != "grid":
        found = f"slow_every = {spec.slow_every}, newline_position = {spec.newline_position!r}"
        raise ConfigError(f"{found}.", "the slow-fast layout needs newline_position='grid'.")
    sides_px = [spec.tile_px * count for count in range(1, spec.max_tiles + 1)]
    end_id, _, turn_end_id = range(_NUM_BYTES, _NUM_BYTES + len(_SPECIAL_TOKENS))
    return {
        "architectures": ["LlavaQwenForCausalLM"],
        "model_type": "llava",
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "vocab_size": spec.vocab_size,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "max_position_embeddings": spec.context_tokens,
        "tie_word_embeddings": spec.tie_embeddings,
        "bos_token_id": end_id,
        "eos_token_id": turn_end_id,
        "image_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": [[a_px, b_px] for a_px in sides_px for b_px in sides_px],
        "mm_hidden_size": spec.vision_hidden_size,
        "mm_vision_tower": SO400M,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_newline_position": spec.newline_position,
        "mm_spatial_pool_mode": spec.pool_mode,
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "add_time_instruction": spec.time_instruction,
        "force_sample": spec.time_instruction,
        "add_faster_video": spec.slow_every > 0,
        "faster_token_stride": spec.slow_every or 10,
        "tokenizer_model_max_length": spec.context_tokens,
        "tokenizer_padding_side": "right",
        "torch_dtype": spec.dtype,
        "vision_config": {
            "hidden_size": spec.vision_hidden_size,
            "intermediate_size": spec.vision_intermediate_size,
            "num_hidden_layers": spec.vision_num_layers,
            "num_attention_heads": spec.vision_num_heads,
            "image_size": spec.tile_px,
            "patch_size": spec.patch_px,
        },
    }


def _generation_values(spec: TinySpec) -> dict[str, Any]:
    return {
        "bos_token_id": _NUM_BYTES,
        "eos_token_id": [_NUM_BYTES + 2, _NUM_BYTES],
        "pad_token_id": _NUM_BYTES,
        "repetition_penalty": spec.repetition_penalty,
    }
