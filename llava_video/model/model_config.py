"""A checkpoint's config.json and generation_config.json → one `ModelConfig`.

Original configurations (LlavaLlamaForCausalLM and its kin) and transformers' own (Llava, LlavaNext,
LlavaNextVideo, LlavaOnevision, 4.36 to 5.x) are read alike. Imports neither torch nor transformers;
reads no weight.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from llava_video.errors import CheckpointError, ConfigError
from llava_video.model.config_schema import schema_of
from llava_video.model.dimensions import ModelDimensions, Spare, TextConfig, VisionConfig
from llava_video.model.hf_config import original_from_hf
from llava_video.model.json_fields import JsonFields, read_json_object
from llava_video.model.known_files import find_record
from llava_video.model.members import (
    FPS_KEY,
    MAX_FRAMES_KEY,
    MEMBERS,
    Member,
    member_of,
    trained_template,
)
from llava_video.model.names import num_parameters
from llava_video.model.original_config import (
    READ_KEYS,
    check_supported,
    context_of,
    dimensions_of,
)
from llava_video.model.sources import find_local, look_up, name_of
from llava_video.model.tower_config import (
    check_same_picture,
    known_tower,
    tower_to_find,
    tower_values,
)
from llava_video.model.visual_layout import VisualLayout, visual_layout_of
from llava_video.planning.geometry import Geometry
from llava_video.values import Fit

# How a checkpoint's files are spelled: lmms-lab's own, or transformers'.
FileFormat = Literal["original", "hf"]

_MOST_FPS = 1000  # as a user may ask for
_VALUE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationDefaults:
    """How the checkpoint wants to be generated from; None where it says nothing.

    Attributes:
        eos_ids: ids that end an answer.
        bos_id: first id of a text; Qwen2 uses none.
        pad_id: id of padding, unused here.
        repetition_penalty: divides the logits of what was generated already; 1 is none. The
            reference applies it in greedy decoding too.
        do_sample: whether its own code samples by default; informative, the default here is greedy.
        temperature: its sampling temperature.
        top_p: its nucleus.
        top_k: its candidate count.
    """

    eos_ids: tuple[int, ...] = ()
    bos_id: int | None = None
    pad_id: int | None = None
    repetition_penalty: float = 1.0
    do_sample: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Everything a checkpoint's configuration says.

    Attributes:
        layout: whose config.json it is.
        name: the checkpoint's, as far as it is known.
        member: which line of the family it belongs to, and so its conversation template and what it
            does with a video.
        template: of its conversations, unless the user names another.
        has_mark_ends: whether `<im_start>` and `<im_end>` stand around every visual.
        dimensions: every size of the model.
        visual: how features become rows of the prompt.
        context_tokens: positions the model accepts: `max_position_embeddings` x linear position
            scaling, with SigLIP at most `tokenizer_model_max_length`.
        time_instruction: whether videos come with a time sentence.
        max_frames: frames of a video when nothing else is asked for; None where it does not say.
        fps: frames per second when nothing else is asked for; None where it does not say.
        padding_side: where the reference pads a batch; nothing is padded here.
        stored_dtype: dtype of the weights as the file states it, "bfloat16".
        generation: generation defaults.
        values: the configuration in the original keys, as `save_model` writes it.
    """

    layout: FileFormat
    name: str = ""
    member: str = "LLaVA-OneVision"
    template: str = "qwen_1_5"
    has_mark_ends: bool = False
    dimensions: ModelDimensions
    visual: VisualLayout
    context_tokens: int
    time_instruction: bool
    max_frames: int | None = None
    fps: float | None = None
    padding_side: Literal["left", "right"]
    stored_dtype: str
    generation: GenerationDefaults
    values: Mapping[str, Any] = field(repr=False, hash=False)

    @property
    def vision(self) -> VisionConfig:
        """Sizes of the vision tower."""
        return self.dimensions.vision

    @property
    def text(self) -> TextConfig:
        """Sizes of the language model."""
        return self.dimensions.text


def read_model_config(
    folder: str | Path,
    *,
    tower: str | Path | None = None,
    generation_folder: str | Path | None = None,
) -> ModelConfig:
    """Read config.json and, where it is there, generation_config.json of a checkpoint folder.

    Args:
        folder: the checkpoint's.
        tower: a folder or hub id of the vision tower, instead of the one an original config.json
            names.
        generation_folder: where generation_config.json is, when not in the same folder.

    Raises:
        CheckpointError: missing, damaged, of a model this version does not build, or of a vision
            tower that is neither here nor can be fetched.
    """
    folder = Path(folder)
    path = folder / "config.json"
    if not path.is_file():
        hint = "point to a folder with config.json, a tokenizer and weights, or a hub id."
        raise CheckpointError(f"no config.json in {folder}.", hint)
    values = read_json_object(path)
    generation_path = Path(generation_folder or folder) / "generation_config.json"
    generation = read_json_object(generation_path) if generation_path.is_file() else {}
    if schema_of(values) == "original":
        values = _with_tower(values, folder, tower)
    config = parse_model_config(values, generation, name=name_of(folder))
    is_first_stage = config.values.get("tune_mm_mlp_adapter") is True
    if is_first_stage and (folder / "mm_projector.bin").is_file():
        return replace(config, template="plain")
    return config


def parse_model_config(
    values: Mapping[str, Any], generation: Mapping[str, Any] | None = None, *, name: str = ""
) -> ModelConfig:
    """Turn the objects of config.json and generation_config.json into a `ModelConfig`.

    Raises:
        CheckpointError: as `read_model_config`; a tower that is only named must be a known one.
    """
    layout = schema_of(values)
    original = original_from_hf(values) if layout == "hf" else values
    config = _parse(original, layout, name)
    return replace(config, generation=_generation(generation or {}, original))


def with_overrides(config: ModelConfig, overrides: Mapping[str, Any]) -> ModelConfig:
    """Return the configuration with some keys of config.json set to other values.

    Args:
        config: what was read.
        overrides: original keys (`mm_newline_position`, `rope_scaling`, …) and JSON values,
            also where the checkpoint is in transformers' layout.

    Raises:
        ConfigError: a key that nothing reads; the nearest one is named.
        CheckpointError: a value that is not supported.
    """
    for key in overrides:
        if key not in READ_KEYS:
            near = difflib.get_close_matches(key, READ_KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(READ_KEYS))}."
            raise ConfigError(f"config.json key {key!r} changes nothing.", hint)
    changed = _parse({**config.values, **overrides}, config.layout, config.name)
    if changed.member == config.member:
        changed = replace(changed, template=config.template)
    held, dimensions = config.dimensions, changed.dimensions
    if (held.has_newline or "newline" in held.spares) and not dimensions.has_newline:
        # The files hold it, whether the new layout uses it or not.
        spares: frozenset[Spare] = dimensions.spares | {"newline"}
        changed = replace(changed, dimensions=replace(dimensions, spares=spares))
    ids = {"eos_token_id", "bos_token_id", "pad_token_id"} & set(overrides)
    generation = _generation({}, changed.values) if ids else config.generation
    return replace(changed, generation=generation)


def geometry_of(config: ModelConfig, model_name: str, dtype: str) -> Geometry:
    """Return what the planner must know of a model.

    The frame limit is the one config.json states, else the one of the known checkpoint of this
    name, else that of the member.

    Args:
        config: what was read.
        model_name: hub id or path, for messages and to find a known checkpoint.
        dtype: "float32", "bfloat16" or "float16": what weights and cache are kept in.

    Raises:
        ConfigError: an unknown dtype.
    """
    value_bytes = _VALUE_BYTES.get(dtype.removeprefix("torch."))
    if value_bytes is None:
        raise ConfigError(f"dtype = {dtype!r}.", f"allowed: {', '.join(_VALUE_BYTES)}.")
    vision, text, visual = config.vision, config.text, config.visual
    known, member, fusion = (
        find_record(model_name),
        MEMBERS[config.member],
        config.dimensions.fusion,
    )
    usual_frames = known.max_frames if known else member.max_frames
    square_fit: Fit = "crop" if vision.kind == "clip" else "squeeze"
    return Geometry(
        model=model_name,
        tile_px=vision.image_px,
        patch_px=vision.patch_px,
        canvases=visual.canvases,
        aspect=visual.aspect,
        square_fit=square_fit,
        video_fit="nearest" if fusion else _frame_fit(config, member, square_fit),
        keeps_line=member.keeps_line,
        pads_several=member.pads_several,
        anyres_max=visual.anyres_max,
        unpad=visual.unpad,
        merge=visual.merge,
        newline=visual.newline,
        has_newline=config.dimensions.has_newline,
        pool_mode=visual.pool_mode,
        pool_stride=visual.pool_stride,
        pool_of=visual.pool_of,
        slow_every=visual.slow_every,
        context_tokens=config.context_tokens,
        rope_scale=text.rope_scale,
        max_frames=config.max_frames or usual_frames or config.context_tokens,
        fps=config.fps or member.fps,
        reference_rule=member.reference_rule,
        is_video_trained=member.is_video_trained,
        stretches=member.stretches,
        is_qwen=text.qkv_bias,  # of the family's decoders it alone has these
        compressed_side=fusion.side if fusion else 0,
        split=fusion.split if fusion else 1,
        fusion_layers=fusion.num_layers if fusion else 0,
        time_instruction=config.time_instruction,
        num_layers=text.num_layers,
        num_heads=text.num_heads,
        num_kv_heads=text.num_kv_heads,
        head_dim=text.head_dim,
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        vocab_size=text.vocab_size,
        vision_width=vision.hidden_size,
        vision_intermediate_size=vision.intermediate_size,
        projector_layers=config.dimensions.projector_layers,
        value_bytes=value_bytes,
        weights_bytes=num_parameters(config.dimensions) * value_bytes,
    )


def _frame_fit(config: ModelConfig, member: Member, square_fit: Fit) -> Fit:
    """Return how a frame reaches its one tile.

    With a model of pictures, as a whole picture does: padded, or as the overview of a tiled one.
    """
    if member.is_video_trained or config.visual.aspect == "square":
        return square_fit
    return "pad" if config.visual.aspect == "pad" else "squeeze"


def _with_tower(values: dict[str, Any], folder: Path, tower: str | Path | None) -> dict[str, Any]:
    """Return an original configuration with the sizes of a tower that it only names."""
    name = tower_to_find(values) if tower is None else str(tower)
    if name is None:
        return values
    sizes = known_tower(name)
    if sizes is None:
        what = "sizes of the vision tower"
        found = look_up(folder, name, what=what, keyword="vision_tower", files="config")
        sizes = _sizes_of(found)
    if tower is not None:
        own = JsonFields(_with_own_tower(values, folder), "config.json")
        check_same_picture(own, sizes, name)
    return {"mm_vision_tower": name, **values, "vision_config": sizes}


def _with_own_tower(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a configuration with the sizes of the tower it names, where that is here."""
    name = tower_to_find(values)
    found = None if name is None else find_local(folder, name)
    return {**values, "vision_config": _sizes_of(found)} if found else dict(values)


def _sizes_of(tower: Path) -> dict[str, Any]:
    path = tower / "config.json"
    return tower_values(read_json_object(path), str(path))


def _parse(original: Mapping[str, Any], layout: FileFormat, name: str) -> ModelConfig:
    fields = JsonFields(original, "config.json")
    check_supported(fields)
    dimensions = dimensions_of(fields)
    member, _ = member_of(original, name)
    side = fields.text("tokenizer_padding_side", "right")
    if side not in ("left", "right"):
        raise fields.wrong("tokenizer_padding_side", side, "'left' or 'right'")
    stored = str(original.get("torch_dtype") or original.get("dtype") or "float32")
    return ModelConfig(
        layout=layout,
        name=name,
        member=member.name,
        template=trained_template(member, fields, name),
        has_mark_ends=fields.flag("mm_use_im_start_end", False),
        dimensions=dimensions,
        visual=visual_layout_of(fields, dimensions.vision.image_px, member),
        context_tokens=context_of(fields, dimensions.text),
        time_instruction=fields.flag("add_time_instruction", False),
        max_frames=fields.integer(MAX_FRAMES_KEY) if fields.has(MAX_FRAMES_KEY) else None,
        fps=_stated_rate(fields),
        padding_side="left" if side == "left" else "right",
        stored_dtype=stored.removeprefix("torch."),
        generation=GenerationDefaults(),
        values=dict(original),
    )


def _stated_rate(fields: JsonFields) -> float | None:
    if not fields.has(FPS_KEY):
        return None
    rate = fields.number(FPS_KEY)
    if rate > _MOST_FPS:
        raise fields.wrong(FPS_KEY, rate, f"at most {_MOST_FPS} frames a second")
    return rate


def _generation(values: Mapping[str, Any], original: Mapping[str, Any]) -> GenerationDefaults:
    """Read generation_config.json; token ids it leaves out come from config.json."""
    fields = JsonFields(values, "generation_config.json")
    fallback = JsonFields(original, "config.json")

    def first_id(key: str) -> int | None:
        return next(iter(fields.ids(key) or fallback.ids(key)), None)

    return GenerationDefaults(
        eos_ids=fields.ids("eos_token_id") or fallback.ids("eos_token_id"),
        bos_id=first_id("bos_token_id"),
        pad_id=first_id("pad_token_id"),
        repetition_penalty=fields.number("repetition_penalty", 1.0),
        do_sample=fields.flag("do_sample", False),
        temperature=fields.number("temperature") if values.get("temperature") else None,
        top_p=fields.number("top_p") if values.get("top_p") else None,
        top_k=fields.integer("top_k") if values.get("top_k") else None,
    )
