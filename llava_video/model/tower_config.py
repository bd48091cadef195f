"""What a configuration says of its vision tower → the tower's sizes.

A configuration may hold the sizes, or only name the tower: the three towers of the family are known
by name, every other one has a config.json of its own. Opens no file and knows no weights.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from llava_video.errors import CheckpointError
from llava_video.model.dimensions import TowerActivation, TowerKind, VisionConfig
from llava_video.model.json_fields import JsonFields

SO400M: Final = "google/siglip-so400m-patch14-384"
CLIP_L: Final = "openai/clip-vit-large-patch14"
CLIP_L_336: Final = "openai/clip-vit-large-patch14-336"

# What CLIP's processor subtracts and divides by.
CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)

# Names are made layer by layer: a file that says a billion would keep a reader busy for hours.
MOST_LAYERS: Final = 1000

# The words of transformers for what stands inside the MLP of each tower.
_ACTIVATIONS: dict[TowerKind, dict[str, TowerActivation]] = {
    "siglip": {"gelu_pytorch_tanh": "gelu_tanh"},
    "clip": {"quick_gelu": "quick_gelu", "gelu": "gelu"},
}
_KINDS: dict[str, TowerKind] = {"clip_vision_model": "clip", "siglip_vision_model": "siglip"}

# `model_type` of a folder that holds a tower, beside its text model or alone.
TOWER_TYPES: Final = frozenset({"clip", "siglip", *_KINDS})

# How towers are named after the pictures they see: 336 px in patches of 14 px.
_NAMED_SIZE = re.compile(r"patch(\d+)-(\d+)")

# What transformers' classes assume of a key that a file leaves out.
_CLASS_DEFAULTS: dict[TowerKind, dict[str, Any]] = {
    "siglip": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_channels": 3,
        "image_size": 224,
        "patch_size": 16,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-6,
    },
    "clip": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_channels": 3,
        "image_size": 224,
        "patch_size": 32,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    },
}
_CLIP_L_SIZES: dict[str, Any] = {
    **_CLASS_DEFAULTS["clip"],
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
}
_KNOWN_CLIP: dict[str, dict[str, Any]] = {
    CLIP_L: _CLIP_L_SIZES,
    CLIP_L_336: {**_CLIP_L_SIZES, "image_size": 336},
}

# What the original keys mean where a tower's sizes are left out.
_USUAL: dict[TowerKind, VisionConfig] = {
    "siglip": VisionConfig(),
    "clip": VisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_layers=12,
        num_heads=12,
        image_px=224,
        patch_px=32,
        layer_norm_eps=1e-5,
        kind="clip",
        activation="quick_gelu",
        pixel_mean=CLIP_MEAN,
        pixel_std=CLIP_STD,
    ),
}


def tower_kind(fields: JsonFields) -> TowerKind:
    """Say which tower a configuration in the original keys has; SigLIP where it names none.

    Raises:
        CheckpointError: a tower that is neither SigLIP nor CLIP.
    """
    stated = fields.inner("vision_config").values.get("model_type")
    if stated is not None:
        if str(stated) not in _KINDS:
            raise unsupported("vision_config model_type", stated, " or ".join(map(repr, _KINDS)))
        return _KINDS[str(stated)]
    name = fields.text("mm_vision_tower", SO400M).lower()
    if "siglip" in name:
        return "siglip"
    others = ("eva", "imagebind", "internvit", "mlcd", "dino", "hf:", "open_clip", "openclip")
    if any(word in name for word in others):
        raise unsupported("mm_vision_tower", name, "a SigLIP or a CLIP tower")
    return "clip" if "clip" in name else "siglip"


def known_tower(name: str) -> dict[str, Any] | None:
    """Return the sizes of a tower of the family by its hub id, or a path that ends in its name."""
    if _last_part(name) == _last_part(SO400M):
        return {**vision_values(_USUAL["siglip"]), "model_type": "siglip_vision_model"}
    for known, sizes in _KNOWN_CLIP.items():
        if _last_part(name) == _last_part(known):
            return dict(sizes)
    return None


def tower_to_find(values: Mapping[str, Any]) -> str | None:
    """Return the tower that a configuration only names and nobody knows; None when all is said."""
    fields = JsonFields(values, "config.json")
    name = fields.text("mm_vision_tower", SO400M)
    return None if known_tower(name) or fields.has("vision_config") else name


def check_same_picture(fields: JsonFields, given: Mapping[str, Any], tower: str) -> None:
    """See that a tower the user gives sees pictures as the checkpoint's own, where that is known.

    Args:
        fields: the checkpoint's configuration, with the sizes of its own tower if they are here.
        given: sizes of the other one, from `tower_values`.
        tower: its name.

    Raises:
        CheckpointError: it is for pictures or patches of another size.
    """
    if not fields.has("mm_vision_tower") and not fields.has("vision_config"):
        return
    name = fields.text("mm_vision_tower", "")
    own = fields.inner("vision_config").values or known_tower(name) or {}
    told = _NAMED_SIZE.search(_last_part(name))
    if not own and told:
        own = {"patch_size": int(told[1]), "image_size": int(told[2])}
    for key, what in (("image_size", "pictures"), ("patch_size", "patches")):
        if key in own and own[key] != given.get(key):
            raise CheckpointError(
                f"vision_tower = {tower!r} is for {what} of {given.get(key)} px, the checkpoint's "
                f"tower {name or 'in config.json'} for {own[key]} px.",
                "pass the tower it was trained with.",
            )


def tower_values(values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Read a tower's own config.json: the `vision_config` object that config.json lacks.

    Args:
        values: of a CLIPModel or SiglipModel (the tower beside a text model), or of the tower.
        place: the file, for messages.

    Raises:
        CheckpointError: a model of another kind.
    """
    fields = JsonFields(values, place)
    inner = {**fields.inner("vision_config").values, **fields.inner("vision_config_dict").values}
    named = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}
    stated = str(values.get("model_type"))
    kind = named.get(stated, stated)
    if kind not in _KINDS:
        raise fields.wrong("model_type", stated, "a CLIP or SigLIP tower's")
    sizes = completed({**(inner if stated in named else values), "model_type": kind})
    if kind == "siglip_vision_model":  # the original code deletes its last layer
        sizes["num_hidden_layers"] = JsonFields(sizes, place).integer("num_hidden_layers") - 1
    return sizes | {"model_type": kind}


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tower's sizes with transformers' defaults for the keys that are left out."""
    kind = _KINDS.get(str(values.get("model_type")), "siglip")
    defaults = _CLASS_DEFAULTS[kind]
    kept = {"model_type": "clip_vision_model"} if kind == "clip" else {}
    return kept | {key: values.get(key, usual) for key, usual in defaults.items()}


def vision_config_of(fields: JsonFields) -> VisionConfig:
    """Read the tower's sizes from a configuration in the original keys.

    SigLIP's `num_hidden_layers` counts the layers that run: the original code deletes the last. A
    CLIP tower runs up to the hidden state that `mm_vision_select_layer` names: -2 of 24 layers is
    the output of the 23rd.

    Raises:
        CheckpointError: impossible sizes, or a tower that is only named and not known.
    """
    kind, given = tower_kind(fields), fields.inner("vision_config")
    name = fields.text("mm_vision_tower", SO400M)
    if not given.values:
        given = JsonFields(known_tower(name) or {}, f"the table entry of {name}")
    if not given.values:
        raise CheckpointError(
            f"config.json only names its vision tower, {name!r}, whose sizes are not known: "
            f"neither does it hold them (vision_config), nor is it {CLIP_L}, {CLIP_L_336} or "
            f"{SO400M}.",
            f"fetch {name} (its config.json is enough for a plan) into a folder of that name "
            "beside the checkpoint, or pass vision_tower=FOLDER.",
        )
    tower = _sizes(given, _USUAL[kind])
    width = fields.integer("mm_hidden_size", tower.hidden_size)
    if width != tower.hidden_size:
        if not fields.has("mm_vision_tower"):
            raise CheckpointError(
                f"config.json names no vision tower, and its mm_hidden_size = {width} "
                f"is not the width of the usual one, {tower.hidden_size}.",
                "pass vision_tower= with the one it was trained with.",
            )
        raise fields.wrong("mm_hidden_size", width, f"{tower.hidden_size}, the width of {name}")
    return replace(tower, num_layers=_num_run(fields, tower)) if kind == "clip" else tower


def vision_values(vision: VisionConfig) -> dict[str, Any]:
    """Spell the tower's sizes as a `vision_config` object; all its layers run."""
    words = {activation: word for word, activation in _ACTIVATIONS[vision.kind].items()}
    values = {
        "hidden_size": vision.hidden_size,
        "intermediate_size": vision.intermediate_size,
        "num_hidden_layers": vision.num_layers,
        "num_attention_heads": vision.num_heads,
        "image_size": vision.image_px,
        "patch_size": vision.patch_px,
        "num_channels": 3,
        "hidden_act": words[vision.activation],
        "layer_norm_eps": vision.layer_norm_eps,
    }
    return values | ({"model_type": "clip_vision_model"} if vision.kind == "clip" else {})


def unsupported(key: str, found: object, expected: str) -> CheckpointError:
    """Build the error of a part that this library does not build."""
    return CheckpointError(
        f"the checkpoint has {key} = {found!r}, this version reads {expected}.",
        "use a checkpoint of the LLaVA family; `llava-video models` lists them.",
    )


def _last_part(name: str) -> str:
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()


def _sizes(fields: JsonFields, usual: VisionConfig) -> VisionConfig:
    words = _ACTIVATIONS[usual.kind]
    word = fields.text("hidden_act", next(iter(words)))
    if word not in words:
        raise unsupported("vision_config hidden_act", word, " or ".join(map(repr, words)))
    if fields.integer("num_channels", 3) != 3:
        raise unsupported("vision_config num_channels", fields.values["num_channels"], "3")
    vision = replace(
        usual,
        hidden_size=fields.integer("hidden_size", usual.hidden_size),
        intermediate_size=fields.integer("intermediate_size", usual.intermediate_size),
        num_layers=fields.integer("num_hidden_layers", usual.num_layers, at_most=MOST_LAYERS),
        num_heads=fields.integer("num_attention_heads", usual.num_heads),
        image_px=fields.integer("image_size", usual.image_px),
        patch_px=fields.integer("patch_size", usual.patch_px),
        layer_norm_eps=fields.number("layer_norm_eps", usual.layer_norm_eps),
        activation=words[word],
    )
    if vision.hidden_size % vision.num_heads:
        divided = f"a divisor of {vision.hidden_size}"
        raise fields.wrong("num_attention_heads", vision.num_heads, divided)
    if vision.patch_px > vision.image_px:
        raise fields.wrong("patch_size", vision.patch_px, f"at most {vision.image_px}")
    return vision


def _num_run(fields: JsonFields, tower: VisionConfig) -> int:
    """Count the layers of a CLIP tower that run before its feature leaves."""
    feature = fields.text("mm_vision_select_feature", "patch")
    if feature != "patch":
        raise unsupported(
            "mm_vision_select_feature", feature, "'patch': no released model sees the class token"
        )
    given = fields.values.get("mm_vision_select_layer")
    layer, total = -2 if given is None else given, tower.num_layers
    if isinstance(layer, int) and not isinstance(layer, bool):
        used = layer if layer > 0 else total + 1 + layer if layer else 0
        if 0 < used <= total:
            return used
    raise fields.wrong("mm_vision_select_layer", layer, f"a hidden state of {total} layers")
