"""The public checkpoints as a table shows them before anything is downloaded.

Every number comes from the code that reads a checkpoint: a record's values are parsed like a
config.json, and the geometry of that is what plans are made with. Imports no torch, fetches
nothing.
"""

import functools
from dataclasses import dataclass, replace

from llava_video.model.known_files import KnownRecord, find_record, known_records
from llava_video.model.model_config import ModelConfig, geometry_of, parse_model_config
from llava_video.planning.geometry import Geometry
from llava_video.planning.grid import pooled_side
from llava_video.values import Newline


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """One public checkpoint.

    Attributes:
        name: its hub id.
        family: its line, "LLaVA-NeXT".
        size: parameters of its language model in words, "7B".
        layout: "original" or "hf", whose files it has.
        context_tokens: positions it accepts.
        max_frames: frames of a video, unless another number is asked for.
        tokens_per_frame: visual tokens of one frame, the newlines in it included.
        newline: where newline tokens stand in a video.
        time_instruction: whether videos come with a time sentence.
        video_trained: whether it was trained on videos at all.
        template: of its conversations.
        licence: of the weights, as its model card states it, or where to read it.
        base: the weights that a delta, an adapter or a projector is added to; "" for a whole model.
    """

    name: str
    family: str
    size: str
    layout: str
    context_tokens: int
    max_frames: int
    tokens_per_frame: int
    newline: Newline
    time_instruction: bool
    video_trained: bool
    template: str
    licence: str
    base: str

    @property
    def tokens_per_video(self) -> int:
        """Visual tokens of a video of `max_frames` frames."""
        return self.tokens_per_frame * self.max_frames + int(self.newline is Newline.CLIP)


@functools.cache
def known_models() -> tuple[KnownModel, ...]:
    """Return every known checkpoint, family by family, small to large."""
    return tuple(map(_model, known_records()))


def find_known(name: str) -> KnownModel | None:
    """Return the known checkpoint of a hub id, or of a folder whose last part is its name."""
    record = find_record(name)
    return None if record is None else _model(record)


@functools.cache
def known_config(name: str) -> ModelConfig | None:
    """Return the configuration of a known checkpoint, as far as the table holds it."""
    record = find_record(name)
    return None if record is None else _config(record)


def known_geometry(name: str, dtype: str = "bfloat16") -> Geometry | None:
    """Return what a plan needs of a known checkpoint: sizes, tokens, bytes of its weights.

    Args:
        name: a hub id, or a folder whose last part is a known name.
        dtype: "float32", "bfloat16" or "float16".

    Raises:
        ConfigError: an unknown dtype.
    """
    config = known_config(name)
    return None if config is None else geometry_of(config, config.name, dtype)


def frame_tokens(geometry: Geometry) -> int:
    """Count the visual tokens of one frame of a video, laid out as the model was trained.

    >>> frame_tokens(known_geometry("lmms-lab/LLaVA-Video-7B-Qwen2"))  # 14 rows of 14 + a newline
    210
    """
    if geometry.compressed_side:
        return geometry.compressed_side**2
    side = pooled_side(geometry.patches_per_side, geometry.pool_stride, geometry.pool_mode)
    newlines = {Newline.ROW: side, Newline.FRAME: 1}.get(geometry.newline, 0)
    return side**2 + newlines


def _config(record: KnownRecord) -> ModelConfig:
    return replace(parse_model_config(record.values, name=record.name), layout=record.layout)


def _model(record: KnownRecord) -> KnownModel:
    config = _config(record)
    return KnownModel(
        name=record.name,
        family=record.family,
        size=record.size,
        layout=record.layout,
        context_tokens=config.context_tokens,
        max_frames=record.max_frames,
        tokens_per_frame=frame_tokens(geometry_of(config, record.name, "bfloat16")),
        newline=config.visual.newline,
        time_instruction=config.time_instruction,
        video_trained=record.video_trained,
        template=config.template,
        licence=record.licence,
        base=record.base,
    )
