"""The original config.json (LlavaQwenForCausalLM) → sizes and visual layout.

Every key may be missing; the defaults are the ones the original code falls back to. A configuration
in transformers' own style reaches this file after `hf_config` has spelled it in these keys. Opens
no file and knows no weights.
"""

import ast
import itertools
import re
from dataclasses import dataclass
from typing import cast

from llava_video.errors import CheckpointError
from llava_video.model.dimensions import ModelDimensions, TextConfig, VisionConfig
from llava_video.model.json_fields import JsonFields
from llava_video.planning.geometry import Aspect, Merge
from llava_video.values import Newline, PoolMode

SO400M = "google/siglip-so400m-patch14-384"

_NEWLINES = {
    "grid": Newline.ROW,
    "frame": Newline.FRAME,
    "one_token": Newline.CLIP,
    "no_token": Newline.NONE,
}
_OTHER_TOWERS = ("clip", "eva", "imagebind", "internvit", "mlcd", "dino", "hf:")


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualLayout:
    """How features become rows of the prompt.

    Attributes:
        canvases: (height_px, width_px) the checkpoint may lay a picture out on, in its own order.
        aspect: what happens to a picture that is not square.
        anyres_max: N of anyres_max_N: maps larger than N tiles are resized; None without a limit.
        merge: "spatial" arranges tiles as one map, "flat" concatenates them.
        unpad: whether the padding's features are cut off the map and newline tokens exist.
        newline: where newline tokens stand in a video.
        pool_mode: how a frame's map is pooled.
        pool_stride: side reduction of a frame's map.
        slow_every: 0, or k: every k-th frame is slow (LLaVA-Video's slow-fast layout).
    """

    canvases: tuple[tuple[int, int], ...]
    aspect: Aspect
    anyres_max: int | None
    merge: Merge
    unpad: bool
    newline: Newline
    pool_mode: PoolMode
    pool_stride: int
    slow_every: int


def check_supported(fields: JsonFields) -> None:
    """Refuse parts this library does not build.

    Raises:
        CheckpointError: what was found, what is expected, what to do.
    """
    tower = fields.text("mm_vision_tower", SO400M)
    is_other = any(word in tower.lower() for word in _OTHER_TOWERS)
    if "siglip" not in tower.lower() and is_other:
        raise _unsupported("mm_vision_tower", tower, "a SigLIP tower")
    expected: dict[str, tuple[object, ...]] = {
        "mm_projector_type": ("mlp2x_gelu",),
        "mm_resampler_type": (None, "none"),
        "hidden_act": (None, "silu"),
        "quantization_config": (None,),
        "mm_use_im_start_end": (None, False),
    }
    for key, allowed in expected.items():
        found = fields.values.get(key)
        if found not in allowed:
            words = " or ".join("nothing" if one is None else repr(one) for one in allowed)
            raise _unsupported(key, found, words)
    if fields.flag("use_sliding_window", False):
        window_starts = fields.integer("max_window_layers", 28, at_least=0)
        if window_starts < fields.integer("num_hidden_layers"):
            raise _unsupported("use_sliding_window", True, "full attention in every layer")


def dimensions_of(fields: JsonFields) -> ModelDimensions:
    """Read every size of the model.

    Raises:
        CheckpointError: on a missing or impossible value.
    """
    has_newline = "unpad" in fields.text("mm_patch_merge_type", "flat")
    return ModelDimensions(
        vision=_vision_config(fields.inner("vision_config")),
        text=_text_config(fields),
        has_newline=has_newline,
        has_separator=_is_slow_fast(fields),
    )


def visual_layout_of(fields: JsonFields, tile_px: int) -> VisualLayout:
    """Read how pictures and videos are laid out.

    Args:
        fields: the configuration.
        tile_px: side of a tile, px; canvases are whole tiles.

    Raises:
        CheckpointError: on a value this library does not build, or canvases not of whole tiles.
    """
    merge = fields.text("mm_patch_merge_type", "flat")
    if merge not in ("flat", "spatial", "spatial_unpad"):
        raise _unsupported("mm_patch_merge_type", merge, "'flat', 'spatial' or 'spatial_unpad'")
    aspect, anyres_max = _aspect(fields.text("image_aspect_ratio", "square"))
    canvases = _canvases(fields, tile_px)
    if aspect == "anyres" and not canvases:
        raise fields.wrong("image_grid_pinpoints", None, "canvases, because pictures are tiled")
    mode = fields.text("mm_spatial_pool_mode", "bilinear")
    if mode not in ("bilinear", "average", "max"):
        raise _unsupported("mm_spatial_pool_mode", mode, "'bilinear', 'average' or 'max'")
    is_slow_fast = _is_slow_fast(fields)
    # The reference pools by 2 whatever mm_spatial_pool_stride says; only slow-fast reads it.
    stride = fields.integer("mm_spatial_pool_stride", 2) if is_slow_fast else 2
    return VisualLayout(
        canvases=canvases,
        aspect=aspect,
        anyres_max=anyres_max,
        merge="flat" if merge == "flat" else "spatial",
        unpad="unpad" in merge,
        newline=_newline(fields, merge),
        pool_mode=cast(PoolMode, mode),
        pool_stride=stride,
        slow_every=fields.integer("faster_token_stride", 10) if is_slow_fast else 0,
    )


def context_of(fields: JsonFields, text: TextConfig) -> int:
    """Return the positions the model accepts, in tokens.

    The smaller of `tokenizer_model_max_length` (where the original code cuts) and the positions the
    decoder was made for, the latter stretched by linear position scaling.
    """
    positions = int(text.max_positions * text.rope_scale)
    return min(positions, fields.integer("tokenizer_model_max_length", positions))


def _text_config(fields: JsonFields) -> TextConfig:
    hidden_size = fields.integer("hidden_size")
    num_heads = fields.integer("num_attention_heads")
    num_kv_heads = fields.integer("num_key_value_heads", num_heads)
    if not fields.has("head_dim") and hidden_size % num_heads:
        raise fields.wrong("num_attention_heads", num_heads, f"a divisor of {hidden_size}")
    if num_heads % num_kv_heads:
        raise fields.wrong("num_key_value_heads", num_kv_heads, f"a divisor of {num_heads}")
    return TextConfig(
        hidden_size=hidden_size,
        intermediate_size=fields.integer("intermediate_size"),
        num_layers=fields.integer("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=fields.integer("head_dim", hidden_size // num_heads),
        vocab_size=fields.integer("vocab_size"),
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope_theta=fields.number("rope_theta", 10_000.0),
        rope_scale=_rope_scale(fields.inner("rope_scaling")),
        max_positions=fields.integer("max_position_embeddings", 32_768),
        tie_embeddings=fields.flag("tie_word_embeddings", False),
    )


def _rope_scale(scaling: JsonFields) -> float:
    kind = scaling.values.get("rope_type", scaling.values.get("type", "default"))
    if kind == "default":
        return 1.0
    if kind != "linear":
        raise _unsupported("rope_scaling", kind, "'linear' or none")
    return scaling.number("factor")


def _vision_config(fields: JsonFields) -> VisionConfig:
    usual = VisionConfig()
    activation = fields.text("hidden_act", "gelu_pytorch_tanh")
    if activation != "gelu_pytorch_tanh":
        raise _unsupported("vision_config hidden_act", activation, "'gelu_pytorch_tanh'")
    if fields.integer("num_channels", 3) != 3:
        raise _unsupported("vision_config num_channels", fields.values["num_channels"], "3")
    vision = VisionConfig(
        hidden_size=fields.integer("hidden_size", usual.hidden_size),
        intermediate_size=fields.integer("intermediate_size", usual.intermediate_size),
        num_layers=fields.integer("num_hidden_layers", usual.num_layers),
        num_heads=fields.integer("num_attention_heads", usual.num_heads),
        image_px=fields.integer("image_size", usual.image_px),
        patch_px=fields.integer("patch_size", usual.patch_px),
        layer_norm_eps=fields.number("layer_norm_eps", usual.layer_norm_eps),
    )
    if vision.hidden_size % vision.num_heads:
        divided = f"a divisor of {vision.hidden_size}"
        raise fields.wrong("num_attention_heads", vision.num_heads, divided)
    if vision.patch_px > vision.image_px:
        raise fields.wrong("patch_size", vision.patch_px, f"at most {vision.image_px}")
    return vision


def _is_slow_fast(fields: JsonFields) -> bool:
    # The reference reads add_faster_video only in the branch of newlines per row.
    is_grid = fields.text("mm_newline_position", "one_token") == "grid"
    return is_grid and fields.flag("add_faster_video", False)


def _newline(fields: JsonFields, merge: str) -> Newline:
    position = fields.text("mm_newline_position", "one_token")
    if position not in _NEWLINES:
        raise _unsupported("mm_newline_position", position, " or ".join(map(repr, _NEWLINES)))
    newline = _NEWLINES[position]
    if "unpad" in merge:
        return newline
    if merge == "spatial" and newline in (Newline.ROW, Newline.FRAME):
        raise fields.wrong("mm_newline_position", position, "'one_token': newlines need 'unpad'")
    return Newline.NONE  # "flat" reads no newline position; "spatial" has no newline to put there


def _aspect(ratio: str) -> tuple[Aspect, int | None]:
    limit = re.fullmatch(r"anyres_max_(\d+)", ratio)
    if limit and int(limit[1]) > 0:
        return "anyres", int(limit[1])
    if ratio in ("anyres", "pad"):
        return cast(Aspect, ratio), None
    if ratio in ("highres", "crop_split") or ratio.startswith("anyres"):
        raise _unsupported("image_aspect_ratio", ratio, "anyres, anyres_max_N, pad or square")
    return "square", None  # every other word means a plain squeeze in the reference


def _canvases(fields: JsonFields, tile_px: int) -> tuple[tuple[int, int], ...]:
    pinpoints = fields.values.get("image_grid_pinpoints")
    if pinpoints is None:
        return ()
    if isinstance(pinpoints, str):
        pinpoints = _spelled_out(fields, pinpoints, tile_px)
    canvases = []
    for pair in pinpoints if isinstance(pinpoints, list | tuple) else (pinpoints,):
        if not _is_canvas(pair, tile_px):
            raise fields.wrong("image_grid_pinpoints", pair, f"pairs of multiples of {tile_px} px")
        width_px, height_px = pair
        canvases.append((height_px, width_px))
    return tuple(canvases)


def _is_canvas(pair: object, tile_px: int) -> bool:
    return (
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and all(isinstance(px, int) and px > 0 and px % tile_px == 0 for px in pair)
    )


def _spelled_out(fields: JsonFields, text: str, tile_px: int) -> object:
    """Expand "(1x1),...,(6x6)", which names the first and last pair in tiles, or a list as text."""
    pairs = [(int(a), int(b)) for a, b in re.findall(r"\((\d+)x(\d+)\)", text)]
    if pairs:
        (a_first, b_first), (a_last, b_last) = pairs[0], pairs[-1]
        sides = itertools.product(range(a_first, a_last + 1), range(b_first, b_last + 1))
        return [[a * tile_px, b * tile_px] for a, b in sides]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as cause:
        raise fields.wrong("image_grid_pinpoints", text, "'(1x1),...,(6x6)' or pairs") from cause


def _unsupported(key: str, found: object, expected: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint has {key} = {found!r}, this version reads {expected}.",
        "use a LLaVA-OneVision or LLaVA-Video checkpoint; `llava-video models` lists some.",
    )
