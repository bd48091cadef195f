"""The lines of the family: what each is recognised by, and what is a fact of the line.

A released configuration says how pictures become rows, but not what its authors' code does with a
video, which frames it takes, or how a conversation is written down. Knows no file and no weight.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from llava_video.model.json_fields import JsonFields
from llava_video.model.prompt import TEMPLATES
from llava_video.model.tower_config import tower_kind, unsupported
from llava_video.planning.geometry import ReferenceRule

Backbone = Literal["qwen2", "llama", "mistral"]

# What this library writes into config.json: some of it is told by nothing but a folder's name.
MEMBER_KEY: Final = "llava_video_member"
TEMPLATE_KEY: Final = "llava_video_template"
# How a checkpoint was trained to look at a video, where that is not its line's way.
FPS_KEY: Final = "llava_video_fps"
MAX_FRAMES_KEY: Final = "llava_video_max_frames"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One line of the family.

    Attributes:
        name: as people write it, and as `ModelConfig.member` has it.
        about: what is special in it, for a table.
        is_video_trained: whether it was trained on videos; others get frames as pictures.
        max_frames: frames of a video when nothing else is asked for; None for what the context
            holds.
        fps: frames per second when nothing else is asked for; None spreads `max_frames`.
        reference_rule: which frames its authors' code takes.
        stretches: whether positions are scaled unasked where the context is too short.
        newline: where newline tokens stand in a video whose configuration does not say it.
        pool_stride: side reduction of a frame's map; None where the configuration's is obeyed.
        keeps_line: see `Geometry`.
        pads_several: see `Geometry`.
    """

    name: str
    about: str
    is_video_trained: bool = True
    max_frames: int | None = 32
    fps: float | None = None
    reference_rule: ReferenceRule = "steps"
    stretches: bool = False
    newline: Literal["one_token", "no_token", "frame"] = "one_token"
    pool_stride: int | None = 2
    keeps_line: bool = True
    pads_several: bool = True


def _of_pictures(name: str, about: str) -> Member:
    # Eight frames of 576 tokens are 4,608: the context of 4,096 stretched once.
    return Member(
        name=name,
        about=about,
        is_video_trained=False,
        max_frames=8,
        stretches=True,
        newline="frame",
        pool_stride=1,
        keeps_line=False,
        pads_several=False,
    )


LLAVA: Final = _of_pictures("LLaVA", "the first, with CLIP at 224 px and one linear layer")
LLAVA_15: Final = _of_pictures("LLaVA-1.5", "CLIP at 336 px, padded pictures, an MLP")
LLAVA_NEXT: Final = _of_pictures("LLaVA-NeXT", "pictures in up to four tiles (version 1.6)")
LLAVA_NEXT_VIDEO: Final = Member(
    name="LLaVA-NeXT-Video",
    about="LLaVA-NeXT trained on videos: 12 x 12 tokens a frame",
    reference_rule="spread",
    stretches=True,
    newline="no_token",
    pool_stride=None,
    keeps_line=False,
    pads_several=False,
)
LLAVA_MINI: Final = Member(
    name="LLaVA-Mini",
    about="a frame is fused with the prompt into one token, or a few",
    max_frames=None,
    fps=1.0,
    reference_rule="midpoints",
    newline="no_token",
    pool_stride=1,
)
LLAVA_CRITIC: Final = Member(name="LLaVA-Critic", about="LLaVA-OneVision trained to judge answers")
LLAVA_ONEVISION: Final = Member(
    name="LLaVA-OneVision", about="SigLIP, pictures in many tiles, 14 x 14 tokens a frame"
)
LLAVA_VIDEO: Final = Member(
    name="LLaVA-Video", about="LLaVA-OneVision trained on videos, with their times", max_frames=64
)

MEMBERS: Final[dict[str, Member]] = {
    member.name: member
    for member in (
        LLAVA,
        LLAVA_15,
        LLAVA_NEXT,
        LLAVA_NEXT_VIDEO,
        LLAVA_MINI,
        LLAVA_CRITIC,
        LLAVA_ONEVISION,
        LLAVA_VIDEO,
    )
}


def member_of(values: Mapping[str, Any], name: str = "") -> tuple[Member, str]:
    """Say which line a configuration belongs to.

    Args:
        values: the configuration in the original keys.
        name: the checkpoint's, which alone tells LLaVA-Critic from LLaVA-OneVision, where this
            library has not written down what it is.

    Returns:
        The member and why, in words: "anyres pictures and a CLIP tower".

    Raises:
        CheckpointError: a tower that is neither SigLIP nor CLIP, a value of a wrong type, or a
            member that is none.
    """
    fields = JsonFields(values, "config.json")
    if fields.has(MEMBER_KEY):
        stated = fields.one_of(MEMBER_KEY, "", MEMBERS)
        return MEMBERS[stated], f"config.json says so ({MEMBER_KEY})"
    if fields.has("compressor_size"):
        return LLAVA_MINI, f"a compressor (compressor_size = {values['compressor_size']})"
    if values.get("mm_resampler_type") == "spatial_pool":
        return LLAVA_NEXT_VIDEO, "maps of videos are pooled (mm_resampler_type = 'spatial_pool')"
    if tower_kind(fields) == "siglip":
        return _of_siglip(fields, name)
    aspect = fields.text("image_aspect_ratio", "square")
    if aspect.startswith("anyres"):
        return LLAVA_NEXT, f"{aspect} pictures and a CLIP tower"
    projector = fields.text("mm_projector_type", "linear")
    if projector == "linear":
        return LLAVA, "a linear projector and a CLIP tower"
    pictures = "padded" if aspect == "pad" else "square"
    said = f"{pictures} pictures (image_aspect_ratio = {aspect!r})"
    return LLAVA_15, f"{said}, a projector {projector!r} and a CLIP tower"


def backbone_of(fields: JsonFields) -> Backbone:
    """Say which decoder an original configuration has.

    `architectures` decides, then `model_type`; "llava" there, which many originals have, means the
    decoder that went with the tower: Llama with CLIP, Qwen with SigLIP.

    Raises:
        CheckpointError: MPT, which this library does not build.
    """
    stated = " ".join(fields.texts("architectures")) or str(fields.values.get("model_type"))
    names = stated.lower()
    if "mpt" in names:
        raise unsupported("architectures", stated, "Llama, Mistral and Qwen decoders, no MPT")
    if "qwen" in names:
        return "qwen2"
    if "mistral" in names or "mixtral" in names:
        return "mistral"
    if "llama" in names or tower_kind(fields) == "clip":
        return "llama"
    return "qwen2"


def trained_template(member: Member, fields: JsonFields, name: str = "") -> str:
    """Return the conversation template a checkpoint was trained with.

    Args:
        member: its line.
        fields: its configuration in the original keys.
        name: the checkpoint's: LLaVA of the first months differs by nothing else, where this
            library has not written down which it is.

    Raises:
        CheckpointError: a template that is none.
    """
    if fields.has(TEMPLATE_KEY):
        return fields.one_of(TEMPLATE_KEY, "", TEMPLATES)
    if fields.flag("tune_mm_mlp_adapter", False) and "pretrain" in name.lower():
        return "plain"  # the first stage: a picture, then its caption
    backbone = backbone_of(fields)
    if member is LLAVA and backbone == "llama":
        if re.search(r"llama-?2", f"{name} {fields.values.get('_name_or_path')}".lower()):
            return "llava_llama_2"
        return "llava_v0" if re.search(r"-v0(?!\d)", name.lower()) else "llava_v1"
    if member is LLAVA_MINI:
        return "llava_llama_3_1"
    if backbone == "llama":
        return _llama_template(fields.integer("vocab_size", 32_000))
    return {"qwen2": "qwen_1_5", "mistral": "mistral_instruct"}[backbone]


def _of_siglip(fields: JsonFields, name: str) -> tuple[Member, str]:
    if fields.flag("add_time_instruction", False):
        return LLAVA_VIDEO, "a SigLIP tower, and videos come with their times"
    is_row = fields.text("mm_newline_position", "one_token") == "grid"
    if is_row and "unpad" in fields.text("mm_patch_merge_type", "flat"):
        return LLAVA_VIDEO, "a SigLIP tower, and a newline after each row of a frame"
    for told in (name, str(fields.values.get("_name_or_path") or "")):
        if "critic" in told.lower():
            return LLAVA_CRITIC, f"a SigLIP tower, and its name: {told}"
    return LLAVA_ONEVISION, "a SigLIP tower, and no marks of LLaVA-Video"


def _llama_template(vocab_size: int) -> str:
    """Tell the Llama decoders apart: Llama 1 and 2 have 32,000 ids, Yi 64,000, Llama 3 128,000."""
    if vocab_size >= 128_000:
        return "llava_llama_3"
    return "chatml_direct" if vocab_size >= 64_000 else "vicuna_v1"
