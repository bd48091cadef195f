"""Names of tensors in checkpoint files ↔ names of our parameters, and the shape each must have.

One table per part of the model: our name, and its name in every spelling a file may use. Everything
else is made from the table by counting layers. Imports no torch and opens no file.

Spellings:
    original    lmms-lab files
    hf          llava-hf files, as transformers 4.45 writes them (what `save_model` writes)
    hf_native   the names of transformers 4.52 to 4.57 in memory
    hf_memory   the names of transformers 5.x in memory
    hf_files    files of transformers 5.x
"""

import math
import re
from collections.abc import Container, Iterator
from typing import Literal

from llava_video.model.dimensions import ModelDimensions, TextConfig, VisionConfig

Spelling = Literal["original", "hf", "hf_native", "hf_memory", "hf_files"]
SPELLINGS: tuple[Spelling, ...] = ("original", "hf", "hf_native", "hf_memory", "hf_files")

# Where each part stands, one column per spelling, in the order above.
_TEXT = ("model.", "language_model.model.", *["model.language_model."] * 2, "language_model.model.")
_HEAD = ("", "language_model.", "", "", "language_model.")
_TOWER = (
    "model.vision_tower.vision_tower.vision_model.",
    "vision_tower.vision_model.",
    "model.vision_tower.vision_model.",
    "model.vision_tower.",
    "vision_tower.",
)
_PROJECTOR = (
    "model.mm_projector.",
    "multi_modal_projector.",
    *["model.multi_modal_projector."] * 2,
    "multi_modal_projector.",
)
_ROOT = ("model.", "", "model.", "model.", "")

# Our name inside the part, and the file's name inside its part; {i} counts layers.
_TEXT_NAMES = (
    ("embed_tokens.weight", "embed_tokens.weight"),
    ("norm.weight", "norm.weight"),
)
_TEXT_LAYER_NAMES = (
    ("layers.{i}.input_norm.weight", "layers.{i}.input_layernorm.weight"),
    ("layers.{i}.post_norm.weight", "layers.{i}.post_attention_layernorm.weight"),
    ("layers.{i}.q_proj.weight", "layers.{i}.self_attn.q_proj.weight"),
    ("layers.{i}.q_proj.bias", "layers.{i}.self_attn.q_proj.bias"),
    ("layers.{i}.k_proj.weight", "layers.{i}.self_attn.k_proj.weight"),
    ("layers.{i}.k_proj.bias", "layers.{i}.self_attn.k_proj.bias"),
    ("layers.{i}.v_proj.weight", "layers.{i}.self_attn.v_proj.weight"),
    ("layers.{i}.v_proj.bias", "layers.{i}.self_attn.v_proj.bias"),
    ("layers.{i}.o_proj.weight", "layers.{i}.self_attn.o_proj.weight"),
    ("layers.{i}.gate_proj.weight", "layers.{i}.mlp.gate_proj.weight"),
    ("layers.{i}.up_proj.weight", "layers.{i}.mlp.up_proj.weight"),
    ("layers.{i}.down_proj.weight", "layers.{i}.mlp.down_proj.weight"),
)
_TOWER_NAMES = (
    ("patch_embedding.weight", "embeddings.patch_embedding.weight"),
    ("patch_embedding.bias", "embeddings.patch_embedding.bias"),
    ("position_embedding", "embeddings.position_embedding.weight"),
)
_TOWER_LAYER_NAMES = tuple(
    (f"layers.{{i}}.{ours}.{leaf}", f"encoder.layers.{{i}}.{theirs}.{leaf}")
    for ours, theirs in (
        ("norm1", "layer_norm1"),
        ("norm2", "layer_norm2"),
        ("q_proj", "self_attn.q_proj"),
        ("k_proj", "self_attn.k_proj"),
        ("v_proj", "self_attn.v_proj"),
        ("out_proj", "self_attn.out_proj"),
        ("fc1", "mlp.fc1"),
        ("fc2", "mlp.fc2"),
    )
    for leaf in ("weight", "bias")
)

# Tensors that files hold and nothing of ours needs. The tower's feature leaves before its last
# norm; the pooling head and the layers after the used ones are of the pretrained tower; the rest
# are buffers that old files stored.
_IGNORED = (
    r"(.*\.)?inv_freq",
    r"(.*\.)?position_ids",
    r"(model\.)?vision_tower\.(vision_tower\.)?(vision_model\.)?(head|post_layernorm)\..+",
)
_TOWER_LAYER = re.compile(
    r"(?:model\.)?vision_tower\.(?:vision_tower\.)?(?:vision_model\.)?encoder\.layers\.(\d+)\..+"
)
_HEADS = frozenset(f"{place}lm_head.weight" for place in _HEAD)
_NEWLINES = frozenset(f"{place}image_newline" for place in _ROOT)
_SEPARATORS = frozenset(f"{place}faster_token" for place in _ROOT)


def parameter_shapes(dimensions: ModelDimensions) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter, by our name, in the order of the data path."""
    shapes = dict(_tower_shapes(dimensions.vision))
    wide, narrow = dimensions.text.hidden_size, dimensions.vision.hidden_size
    shapes["projector.linear1.weight"] = (wide, narrow)
    shapes["projector.linear1.bias"] = (wide,)
    shapes["projector.linear2.weight"] = (wide, wide)
    shapes["projector.linear2.bias"] = (wide,)
    if dimensions.has_newline:
        shapes["image_newline"] = (wide,)
    if dimensions.has_separator:
        shapes["separator"] = (wide,)
    shapes.update(_text_shapes(dimensions.text))
    return shapes


def num_parameters(dimensions: ModelDimensions) -> int:
    """Count the numbers of all parameters; a tied head counts once."""
    return sum(math.prod(shape) for shape in parameter_shapes(dimensions).values())


def file_names(dimensions: ModelDimensions, spelling: Spelling) -> dict[str, str]:
    """Return our name → the file's name for every parameter, in one spelling."""
    column = SPELLINGS.index(spelling)
    text, tower, vision = dimensions.text, _TOWER[column], dimensions.vision
    pairs = [(f"vision_tower.{o}", tower + t) for o, t in _expand(_TOWER_NAMES, 1)]
    layers = _expand(_TOWER_LAYER_NAMES, vision.num_layers)
    pairs += [(f"vision_tower.{o}", tower + t) for o, t in layers]
    steps = ("0", "2") if spelling == "original" else ("linear_1", "linear_2")
    pairs += [
        (f"projector.{ours}.{leaf}", f"{_PROJECTOR[column]}{step}.{leaf}")
        for ours, step in zip(("linear1", "linear2"), steps, strict=True)
        for leaf in ("weight", "bias")
    ]
    pairs.append(("image_newline", f"{_ROOT[column]}image_newline"))
    pairs.append(("separator", f"{_ROOT[column]}faster_token"))
    inner = (*_TEXT_NAMES, *_expand(_TEXT_LAYER_NAMES, text.num_layers))
    pairs += [(f"language_model.{o}", _TEXT[column] + t) for o, t in inner]
    pairs.append(("language_model.lm_head.weight", f"{_HEAD[column]}lm_head.weight"))
    expected = parameter_shapes(dimensions)
    return {ours: theirs for ours, theirs in pairs if ours in expected}


def likeliest_names(dimensions: ModelDimensions, found: Container[str]) -> dict[str, str]:
    """Return `file_names` in the spelling that most of the names found in a file have."""
    spelled = [file_names(dimensions, spelling) for spelling in SPELLINGS]
    return max(spelled, key=lambda names: sum(theirs in found for theirs in names.values()))


def our_names(dimensions: ModelDimensions) -> dict[str, str]:
    """Return the file's name → our name, for every spelling at once.

    No file name means two parameters in two spellings, so a file may even mix them.
    """
    return {
        theirs: ours
        for spelling in SPELLINGS
        for ours, theirs in file_names(dimensions, spelling).items()
    }


def is_ignored(name: str, dimensions: ModelDimensions) -> bool:
    """Whether a tensor of a file is known and not needed.

    These are: rotary frequencies and position buffers, the tower's pooling head, last norm and
    layers after the used ones, a head that is tied to the embedding, and a newline or separator
    vector that the configuration does not use.
    """
    layer = _TOWER_LAYER.fullmatch(name)
    if layer:
        return int(layer[1]) >= dimensions.vision.num_layers
    if name in _HEADS:
        return dimensions.text.tie_embeddings
    if name in _NEWLINES:
        return not dimensions.has_newline
    if name in _SEPARATORS:
        return not dimensions.has_separator
    return any(re.fullmatch(pattern, name) for pattern in _IGNORED)


def is_head(name: str) -> bool:
    """Whether a tensor of a file is the language model's head, in any spelling."""
    return name in _HEADS


def unused_tower_shapes(dimensions: ModelDimensions, spelling: Spelling) -> dict[str, int]:
    """Return name → length of the tower's last norm, which transformers expects in a file."""
    place = f"{_TOWER[SPELLINGS.index(spelling)]}post_layernorm"
    return {f"{place}.{leaf}": dimensions.vision.hidden_size for leaf in ("weight", "bias")}


def _expand(names: tuple[tuple[str, str], ...], num_layers: int) -> Iterator[tuple[str, str]]:
    for idx in range(num_layers):
        for ours, theirs in names:
            yield ours.format(i=idx), theirs.format(i=idx)


def _tower_shapes(vision: VisionConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    wide, inner, patch_px = vision.hidden_size, vision.intermediate_size, vision.patch_px
    yield "vision_tower.patch_embedding.weight", (wide, 3, patch_px, patch_px)
    yield "vision_tower.patch_embedding.bias", (wide,)
    yield "vision_tower.position_embedding", (vision.patches_per_side**2, wide)
    weights = {"fc1": (inner, wide), "fc2": (wide, inner), "norm1": (wide,), "norm2": (wide,)}
    for ours, _ in _expand(_TOWER_LAYER_NAMES, vision.num_layers):
        _, _, part, leaf = ours.split(".")
        weight = weights.get(part, (wide, wide))
        yield f"vision_tower.{ours}", weight if leaf == "weight" else weight[:1]


def _text_shapes(text: TextConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    wide, inner = text.hidden_size, text.intermediate_size
    query, value = text.num_heads * text.head_dim, text.num_kv_heads * text.head_dim
    weights = {
        "q_proj": (query, wide),
        "k_proj": (value, wide),
        "v_proj": (value, wide),
        "o_proj": (wide, query),
        "gate_proj": (inner, wide),
        "up_proj": (inner, wide),
        "down_proj": (wide, inner),
    }
    yield "language_model.embed_tokens.weight", (text.vocab_size, wide)
    for ours, _ in _expand(_TEXT_LAYER_NAMES, text.num_layers):
        _, _, part, leaf = ours.split(".")
        if leaf == "bias" and not text.qkv_bias:
            continue
        weight = weights.get(part, (wide,))
        yield f"language_model.{ours}", weight if leaf == "weight" else weight[:1]
    yield "language_model.norm.weight", (wide,)
    if not text.tie_embeddings:
        yield "language_model.lm_head.weight", (text.vocab_size, wide)
