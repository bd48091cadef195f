"""What a tiny checkpoint is to look like → its config.json, generation_config.json and tokens.

One recipe per member of the family, in the original keys, as small as the format allows. Draws no
weight and writes no file.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal

from llava_video.config import check, setting
from llava_video.errors import ConfigError
from llava_video.model.tower_config import CLIP_L, CLIP_L_336, SO400M
from llava_video.values import PoolMode

NUM_BYTES = 256

MemberName = Literal[
    "LLaVA",
    "LLaVA-1.5",
    "LLaVA-NeXT",
    "LLaVA-NeXT-Video",
    "LLaVA-Mini",
    "LLaVA-Critic",
    "LLaVA-OneVision",
    "LLaVA-Video",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TinySpec:
    """What a tiny checkpoint looks like; every default is as small as the format allows.

    None means what is usual in the member: its place of newlines, its pooling, its context.
    """

    member: MemberName = setting("LLaVA-Video", "Whose configuration, tokens and modules it has.")
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
    vocab_size: int = setting(320, "Rows of the embedding; 259 to 262 are used.", at_least=259)
    tie_embeddings: bool = setting(False, "Whether the head is the embedding matrix.")
    context_tokens: int | None = setting(
        None, "Positions; None for the real models' number.", unit="tokens", at_least=1
    )
    newline_position: Literal["grid", "frame", "one_token", "no_token"] | None = setting(
        None, "Where newlines stand in a video, in the original's words."
    )
    pool_mode: PoolMode | None = setting(None, "How maps are pooled.")
    time_instruction: bool | None = setting(None, "Whether videos come with a time sentence.")
    slow_every: int = setting(
        0, "Every k-th frame is slow (slow-fast layout); 0 for none.", at_least=0
    )
    repetition_penalty: float | None = setting(
        None, "As in the public checkpoints: 1.05 with Qwen2, else none.", above=0
    )
    fused_side: int = setting(1, "LLaVA-Mini's tokens of a frame, each way.", at_least=1)
    fused_split: int = setting(1, "LLaVA-Mini's tiles of a frame, each way.", at_least=1)
    dtype: Literal["float32", "bfloat16", "float16"] = setting("float32", "Of the stored weights.")
    num_shards: int = setting(1, "Weight files at most, about equal in size.", at_least=1)

    def __post_init__(self) -> None:
        """Check every field."""
        check(self)
        tokens = special_tokens(self)
        if self.vocab_size < NUM_BYTES + len(tokens):
            used = f"at least {NUM_BYTES + len(tokens)}: one per byte, and {', '.join(tokens)}."
            raise ConfigError(f"vocab_size = {self.vocab_size} of a {self.member}.", used)
        position = self.newline_position or _RECIPES[self.member].values.get("mm_newline_position")
        if self.slow_every and position != "grid":
            found = f"slow_every = {self.slow_every}, newline_position = {position!r}"
            raise ConfigError(f"{found}.", "the slow-fast layout needs newline_position='grid'.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recipe:
    """What a member's tiny configuration has beside the sizes."""

    architecture: str
    tower: str
    tokens: tuple[str, ...]
    front: str
    ends: tuple[str, ...]
    context_tokens: int
    values: dict[str, Any]


_QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LLAMA_TOKENS = ("<unk>", "<s>", "</s>")
_LLAMA_3_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
_MLP = {"mm_projector_type": "mlp2x_gelu"}
_MAPS = {**_MLP, "mm_patch_merge_type": "spatial_unpad"}


def _with_clip(**facts: Any) -> _Recipe:
    usual = {
        "architecture": "LlavaLlamaForCausalLM",
        "tower": CLIP_L_336,
        "tokens": _LLAMA_TOKENS,
        "front": "<s>",
        "ends": ("</s>",),
        "context_tokens": 4096,
    }
    return _Recipe(**{**usual, **facts})


def _with_siglip(**values: Any) -> _Recipe:
    return _Recipe(
        architecture="LlavaQwenForCausalLM",
        tower=SO400M,
        tokens=_QWEN_TOKENS,
        front="",
        ends=("<|im_end|>", "<|endoftext|>"),
        context_tokens=32_768,
        values={
            **_MAPS,
            "image_aspect_ratio": "anyres_max_9",
            "mm_newline_position": "one_token",
            "mm_spatial_pool_mode": "bilinear",
            "add_time_instruction": False,
            **values,
        },
    )


_RECIPES: dict[str, _Recipe] = {
    "LLaVA": _with_clip(
        tower=CLIP_L,
        tokens=(*_LLAMA_TOKENS, "<im_patch>", "<im_start>", "<im_end>"),
        context_tokens=2048,
        values={"mm_use_im_start_end": True},
    ),
    "LLaVA-1.5": _with_clip(values={**_MLP, "image_aspect_ratio": "pad"}),
    "LLaVA-NeXT": _with_clip(values={**_MAPS, "image_aspect_ratio": "anyres"}),
    "LLaVA-NeXT-Video": _with_clip(
        values={
            **_MAPS,
            "image_aspect_ratio": "anyres",
            "mm_resampler_type": "spatial_pool",
            "mm_spatial_pool_mode": "average",
            "mm_spatial_pool_stride": 2,
        }
    ),
    "LLaVA-Mini": _with_clip(
        architecture="LlavaMiniLlamaForCausalLM",
        tokens=_LLAMA_3_TOKENS,
        front="<|begin_of_text|>",
        ends=("<|eot_id|>", "<|end_of_text|>"),
        context_tokens=131_072,
        values={
            **_MLP,
            "image_aspect_ratio": "pad",
            "prefusion_layer_num": 2,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 256,
            },
        },
    ),
    "LLaVA-Critic": _with_siglip(_name_or_path="llava-critic-tiny"),
    "LLaVA-OneVision": _with_siglip(),
    "LLaVA-Video": _with_siglip(
        mm_newline_position="grid", add_time_instruction=True, force_sample=True
    ),
}


def special_tokens(spec: TinySpec) -> tuple[str, ...]:
    """Return the member's special tokens; their ids follow those of the bytes."""
    return _RECIPES[spec.member].tokens


def front_token(spec: TinySpec) -> str:
    """Return the token that the member's tokenizer puts in front of every text; "" for none."""
    return _RECIPES[spec.member].front


def tiny_values(spec: TinySpec) -> dict[str, Any]:
    """Return the config.json, in the original keys."""
    recipe = _RECIPES[spec.member]
    is_clip = recipe.tower != SO400M
    context_tokens = spec.context_tokens or recipe.context_tokens
    values = {
        "architectures": [recipe.architecture],
        "model_type": "llava",
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "vocab_size": spec.vocab_size,
        "rms_norm_eps": 1e-5 if is_clip else 1e-6,
        "rope_theta": 1e4 if is_clip else 1e6,
        "max_position_embeddings": context_tokens,
        "tie_word_embeddings": spec.tie_embeddings,
        "bos_token_id": _id_of(recipe, recipe.front or "<|endoftext|>"),
        "eos_token_id": _id_of(recipe, recipe.ends[0]),
        "mm_hidden_size": spec.vision_hidden_size,
        "mm_vision_tower": recipe.tower,
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "tokenizer_model_max_length": context_tokens,
        "tokenizer_padding_side": "right",
        "torch_dtype": spec.dtype,
        "vision_config": _tower_values(spec, is_clip),
        **recipe.values,
        **_pictures(spec, recipe),
        **_asked(spec),
    }
    if spec.member == "LLaVA-Mini":
        values |= {"compressor_size": spec.fused_side, "resolution_ratio": spec.fused_split}
    if is_clip:
        values["mm_vision_select_layer"] = -2
    else:
        values |= {
            "add_faster_video": spec.slow_every > 0,
            "faster_token_stride": spec.slow_every or 10,
        }
    return values


def tiny_generation(spec: TinySpec) -> dict[str, Any]:
    """Return the generation_config.json."""
    recipe = _RECIPES[spec.member]
    penalty = spec.repetition_penalty or (1.05 if recipe.tower == SO400M else 1.0)
    first = _id_of(recipe, recipe.front or "<|endoftext|>")
    return {
        "bos_token_id": first,
        "eos_token_id": [_id_of(recipe, token) for token in recipe.ends],
        "pad_token_id": NUM_BYTES,
        "repetition_penalty": penalty,
    }


def _id_of(recipe: _Recipe, token: str) -> int:
    return NUM_BYTES + recipe.tokens.index(token)


def _tower_values(spec: TinySpec, is_clip: bool) -> dict[str, Any]:
    # Of a CLIP tower one more layer is told: hidden state -2 leaves the last one out.
    sizes = {
        "hidden_size": spec.vision_hidden_size,
        "intermediate_size": spec.vision_intermediate_size,
        "num_hidden_layers": spec.vision_num_layers + is_clip,
        "num_attention_heads": spec.vision_num_heads,
        "image_size": spec.tile_px,
        "patch_size": spec.patch_px,
    }
    return {**sizes, "model_type": "clip_vision_model"} if is_clip else sizes


def _pictures(spec: TinySpec, recipe: _Recipe) -> dict[str, Any]:
    """Return the canvases as (width, height) px: NeXT's five, the later members' square of them."""
    aspect = recipe.values.get("image_aspect_ratio", "square")
    px, counts = spec.tile_px, range(1, spec.max_tiles + 1)
    if aspect == "anyres":
        tiles = [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3)]
        return {"image_grid_pinpoints": [[px * across, px * down] for across, down in tiles]}
    if aspect.startswith("anyres"):
        return {"image_grid_pinpoints": [[px * a, px * b] for a in counts for b in counts]}
    return {}


def _asked(spec: TinySpec) -> dict[str, Any]:
    words = {
        "newline_position": "mm_newline_position",
        "pool_mode": "mm_spatial_pool_mode",
        "time_instruction": "add_time_instruction",
    }
    given = {field.name: getattr(spec, field.name) for field in fields(spec)}
    asked = {key: given[name] for name, key in words.items() if given[name] is not None}
    if spec.time_instruction is not None:
        asked["force_sample"] = spec.time_instruction
    return asked
