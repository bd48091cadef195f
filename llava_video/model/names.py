"""Names of tensors in checkpoint files ↔ names of our parameters, and the shape each must have.

One table per part of the model: our name, and its name in every spelling a file may use. Everything
else is made from the table by counting layers. Imports no torch and opens no file.

Spellings:
    original    the authors' files
    hf          llava-hf files, as transformers 4.36 to 4.57 write them (what `save_model` writes)
    hf_native   the names of transformers 4.52 to 4.57 in memory
    hf_memory   the names of transformers 5.x in memory
    hf_files    files of transformers 5.x

A vision tower that lies in a folder of its own has names without any of these places in front, or
with `vision_model.`; LLaVA-Mini's compressor and pre-fusion have one spelling only.
"""

import math
import re
from collections.abc import Container, Iterator
from typing import Literal

from llava_video.model.dimensions import FusionConfig, ModelDimensions, TextConfig, VisionConfig

Spelling = Literal["original", "hf", "hf_native", "hf_memory", "hf_files"]
SPELLINGS: tuple[Spelling, ...] = ("original", "hf", "hf_native", "hf_memory", "hf_files")

_LEAVES = ("weight", "bias")

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
_OWN_TOWER = ("vision_model.", "")  # a tower's own folder
_FUSION = "model."

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
    ("class_embedding", "embeddings.class_embedding"),
    ("position_embedding", "embeddings.position_embedding.weight"),
    ("pre_norm.weight", "pre_layrnorm.weight"),  # the slip of the pen is the files'
    ("pre_norm.bias", "pre_layrnorm.bias"),
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
    for leaf in _LEAVES
)

_FUSION_NAMES = (
    ("query", "compressor.query"),
    ("position", "compressor.pos_embed"),
    ("norm_q.weight", "compressor.ln_q.weight"),
    ("norm_q.bias", "compressor.ln_q.bias"),
    ("norm_kv.weight", "compressor.ln_kv.weight"),
    ("norm_kv.bias", "compressor.ln_kv.bias"),
    ("attention.in_proj.weight", "compressor.attn.in_proj_weight"),
    ("attention.in_proj.bias", "compressor.attn.in_proj_bias"),
    ("attention.out_proj.weight", "compressor.attn.out_proj.weight"),
    ("attention.out_proj.bias", "compressor.attn.out_proj.bias"),
)

# Tensors that files hold and nothing of ours needs. The tower's feature leaves before its last
# norm; the pooling head and the layers after the used ones are of the pretrained tower; the rest
# are buffers that old files stored.
_PLACE = r"(?:(?:model\.)?vision_tower\.(?:vision_tower\.)?)?(?:vision_model\.)?"
_IGNORED = (
    r"(.*\.)?inv_freq",
    r"(.*\.)?position_ids",
    rf"{_PLACE}(post_layernorm\.(weight|bias)|head\.(probe|(attention|layernorm|mlp)\..+))",
)
# LLaVA-NeXT-Video's first code registered its projector twice.
_PROJECTOR_COPY = re.compile(r"model\.vision_resampler\.mm_projector\.(\d+\.)?(weight|bias)")
# What stands beside a tower in its own folder.
_BESIDE_TOWER = re.compile(r"text_model\..+|(text|visual)_projection\.weight|logit_(scale|bias)")
_TOWER_LAYER = re.compile(rf"{_PLACE}encoder\.layers\.(\d+)\..+")
_HEADS = frozenset(f"{place}lm_head.weight" for place in _HEAD)
_NEWLINES = frozenset(f"{place}image_newline" for place in _ROOT)
_SEPARATORS = frozenset(f"{place}faster_token" for place in _ROOT)


def parameter_shapes(dimensions: ModelDimensions) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter, by our name, in the order of the data path."""
    shapes = dict(_tower_shapes(dimensions.vision))
    wide, narrow = dimensions.text.hidden_size, dimensions.vision.hidden_size
    for idx in range(dimensions.projector_layers):
        shapes[f"projector.linear{idx + 1}.weight"] = (wide, wide if idx else narrow)
        shapes[f"projector.linear{idx + 1}.bias"] = (wide,)
    if dimensions.fusion:
        shapes.update(_fusion_shapes(dimensions.fusion, dimensions.vision, dimensions.text))
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
    column, text = SPELLINGS.index(spelling), dimensions.text
    pairs = list(_tower_pairs(dimensions.vision, _TOWER[column]))
    steps = _projector_steps(dimensions.projector_layers, spelling)
    pairs += [
        (f"projector.linear{idx + 1}.{leaf}", f"{_PROJECTOR[column]}{step}{leaf}")
        for idx, step in enumerate(steps)
        for leaf in _LEAVES
    ]
    if dimensions.fusion:
        layers = _expand(_TEXT_LAYER_NAMES, dimensions.fusion.num_layers)
        fused = (*_FUSION_NAMES, *((ours, f"prefusion_{theirs}") for ours, theirs in layers))
        pairs += [(f"fusion.{ours}", _FUSION + theirs) for ours, theirs in fused]
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

    No file name means two parameters in two spellings, so a file may even mix them. The names in a
    tower's own folder are among them.
    """
    names = {
        theirs: ours
        for spelling in SPELLINGS
        for ours, theirs in file_names(dimensions, spelling).items()
    }
    expected = parameter_shapes(dimensions)
    for place in _OWN_TOWER:
        pairs = _tower_pairs(dimensions.vision, place)
        names |= {theirs: ours for ours, theirs in pairs if ours in expected}
    if dimensions.projector_layers == 1:  # "mlp1x_gelu" counts its one layer, "linear" does not
        names |= {f"model.mm_projector.0.{leaf}": f"projector.linear1.{leaf}" for leaf in _LEAVES}
    return names


def is_ignored(name: str, dimensions: ModelDimensions) -> bool:
    """Whether a tensor of a file is known and not needed.

    These are: rotary frequencies and position buffers; the tower's pooling head, last norm and
    layers after the used ones; a head that is tied to the embedding; a separator vector that the
    configuration does not use; and the `spares` of the dimensions.
    """
    layer = _TOWER_LAYER.fullmatch(name)
    if layer:
        return int(layer[1]) >= dimensions.vision.num_layers
    if name in _HEADS:
        return dimensions.text.tie_embeddings
    if name in _NEWLINES:
        return not dimensions.has_newline and "newline" in dimensions.spares
    if name in _SEPARATORS:
        return not dimensions.has_separator
    if _PROJECTOR_COPY.fullmatch(name):
        return "projector copy" in dimensions.spares
    return any(re.fullmatch(pattern, name) for pattern in _IGNORED)


def is_beside_tower(name: str) -> bool:
    """Whether a tensor in a tower's own folder is of the text model it was trained with."""
    return _BESIDE_TOWER.fullmatch(name) is not None


def is_head(name: str) -> bool:
    """Whether a tensor of a file is the language model's head, in any spelling."""
    return name in _HEADS


def final_norm_names() -> frozenset[str]:
    """Return what files may call the weight of the language model's last norm."""
    return frozenset(f"{place}norm.weight" for place in _TEXT)


def unused_tower_shapes(dimensions: ModelDimensions, spelling: Spelling) -> dict[str, int]:
    """Return name → length of the tower's last norm, which transformers expects in a file."""
    place = f"{_TOWER[SPELLINGS.index(spelling)]}post_layernorm"
    return {f"{place}.{leaf}": dimensions.vision.hidden_size for leaf in _LEAVES}


def _expand(names: tuple[tuple[str, str], ...], num_layers: int) -> Iterator[tuple[str, str]]:
    for idx in range(num_layers):
        for ours, theirs in names:
            yield ours.format(i=idx), theirs.format(i=idx)


def _tower_pairs(vision: VisionConfig, place: str) -> Iterator[tuple[str, str]]:
    for ours, theirs in (*_TOWER_NAMES, *_expand(_TOWER_LAYER_NAMES, vision.num_layers)):
        yield f"vision_tower.{ours}", place + theirs


def _projector_steps(num_layers: int, spelling: Spelling) -> list[str]:
    """Return where each linear layer stands; original files count the GELUs between them too."""
    if spelling != "original":
        return [f"linear_{idx + 1}." for idx in range(num_layers)]
    return [""] if num_layers == 1 else [f"{2 * idx}." for idx in range(num_layers)]


def _tower_shapes(vision: VisionConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    wide, inner, patch_px = vision.hidden_size, vision.intermediate_size, vision.patch_px
    is_clip = vision.kind == "clip"
    yield "vision_tower.patch_embedding.weight", (wide, 3, patch_px, patch_px)
    if is_clip:
        yield "vision_tower.class_embedding", (wide,)
    else:
        yield "vision_tower.patch_embedding.bias", (wide,)
    yield "vision_tower.position_embedding", (vision.patches_per_side**2 + is_clip, wide)
    if is_clip:
        yield from ((f"vision_tower.pre_norm.{leaf}", (wide,)) for leaf in _LEAVES)
    weights = {"fc1": (inner, wide), "fc2": (wide, inner), "norm1": (wide,), "norm2": (wide,)}
    for ours, _ in _expand(_TOWER_LAYER_NAMES, vision.num_layers):
        _, _, part, leaf = ours.split(".")
        weight = weights.get(part, (wide, wide))
        yield f"vision_tower.{ours}", weight if leaf == "weight" else weight[:1]


def _fusion_shapes(
    fusion: FusionConfig, vision: VisionConfig, text: TextConfig
) -> Iterator[tuple[str, tuple[int, ...]]]:
    narrow = vision.hidden_size
    weights = {"in_proj": (3 * narrow, narrow), "out_proj": (narrow, narrow)}
    for ours, _ in _FUSION_NAMES:
        *_, part, leaf = ("", *ours.split("."))
        if leaf in _LEAVES:
            weight = weights.get(part, (narrow,))
            yield f"fusion.{ours}", weight if leaf == "weight" else weight[:1]
        else:
            yield f"fusion.{ours}", (fusion.side**2, narrow)
    yield from _layer_shapes("fusion", text, fusion.num_layers)


def _text_shapes(text: TextConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    wide = text.hidden_size
    yield "language_model.embed_tokens.weight", (text.vocab_size, wide)
    yield from _layer_shapes("language_model", text, text.num_layers)
    yield "language_model.norm.weight", (wide,)
    if not text.tie_embeddings:
        yield "language_model.lm_head.weight", (text.vocab_size, wide)


def _layer_shapes(
    part: str, text: TextConfig, num_layers: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
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
    for ours, _ in _expand(_TEXT_LAYER_NAMES, num_layers):
        _, _, linear, leaf = ours.split(".")
        if leaf == "bias" and not text.qkv_bias:
            continue
        weight = weights.get(linear, (wide,))
        yield f"{part}.{ours}", weight if leaf == "weight" else weight[:1]
