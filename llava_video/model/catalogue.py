"""The known checkpoints → the facts a person chooses one by: size, memory, what a video becomes.

Every number is a plan's: a video of ten minutes is planned for each model, with the code that plans
real ones. The table of `llava-video models` and the one of docs/models.md are made of this. Imports
no torch, fetches nothing.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from llava_video.model.known_models import KnownModel, frame_tokens, known_geometry, known_models
from llava_video.model.members import MEMBERS, Member
from llava_video.planning.geometry import Geometry
from llava_video.planning.memory import Setup, weights_bytes
from llava_video.planning.planner import VideoItem, plan_request
from llava_video.planning.settings import PlanningSettings, SamplingSettings
from llava_video.planning.time_note import TimeNote
from llava_video.values import Fit, Newline, Plan, VideoInfo

# A template, a question and the answer's beginning: the words of a usual prompt.
_TEXT_TOKENS: Final = 64
VIDEO_MINUTES: Final = 10
_NEWLINES: Final = {
    Newline.ROW: "a newline after each row of a frame",
    Newline.FRAME: "a newline after each frame",
    Newline.CLIP: "one newline after the last frame",
    Newline.NONE: "no newlines",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """One known checkpoint, as it would run.

    Attributes:
        known: what is written down of it.
        int8_bytes: its weights with the decoder's linear layers in int8.
        int4_bytes: the same in int4.
        bf16_bytes: its weights in bfloat16.
        num_frames: of a video of ten minutes, when nothing is asked for.
        frame_tokens: visual tokens of one frame, the newlines in it included.
        num_tokens: visual tokens of that video.
        position_scale: positions are divided by it then; 1 where the context is long enough.
        video_bytes: what that video takes beside the weights: cache, activations.
        reusable_prefix: whether a second question begins with the cache of the first.
    """

    known: KnownModel
    bf16_bytes: int
    int8_bytes: int
    int4_bytes: int
    num_frames: int
    frame_tokens: int
    num_tokens: int
    position_scale: float
    video_bytes: int
    reusable_prefix: bool


@functools.cache
def catalogue() -> tuple[CatalogueEntry, ...]:
    """Return every known checkpoint, family by family, small to large."""
    return tuple(map(_entry, known_models()))


def by_member() -> list[tuple[Member, list[CatalogueEntry]]]:
    """Return the known checkpoints of every member, in the members' own order."""
    return [
        (member, [entry for entry in catalogue() if entry.known.family == name])
        for name, member in MEMBERS.items()
    ]


def usual_video(geometry: Geometry) -> Plan:
    """Plan ten minutes of 1080p at 30 frames per second, as nothing else is asked for.

    Args:
        geometry: the model.
    """
    pts_s = np.arange(VIDEO_MINUTES * 60 * 30) / 30
    info = VideoInfo(
        duration_s=VIDEO_MINUTES * 60.0,
        num_frames=len(pts_s),
        frame_rate_hz=30.0,
        height_px=1080,
        width_px=1920,
        codec="h264",
        container="mp4",
        pts_s=pts_s,
        tick_s=1 / 90_000,
    )

    def text_of(notes: Sequence[TimeNote | None]) -> tuple[str, int]:
        del notes
        return "<image>", _TEXT_TOKENS

    return plan_request(
        [VideoItem(info=info, name="ten minutes")],
        geometry=geometry,
        planning=PlanningSettings(),
        sampling=SamplingSettings(),
        text_of=text_of,
        setup=Setup(prefill_chunk_tokens=2048, tile_chunk=16),  # a GPU's
    )


def video_words(geometry: Geometry) -> str:
    """Say what a video becomes when nothing is asked for."""
    side = geometry.compressed_side
    if side:
        rate = f"{geometry.fps:g} a second, " if geometry.fps else ""
        return f"frames, {rate}of {side} x {side} tokens, fused with the prompt"
    rate = f"{geometry.fps:g} frames a second, at most " if geometry.fps else ""
    trained = "" if geometry.is_video_trained else "not trained on video: frames as pictures; "
    pooled = f"{geometry.pool_mode} pooling of {geometry.pool_of}, stride {geometry.pool_stride}"
    return (
        f"{trained}{rate}{geometry.max_frames} frames unless asked for more; "
        f"{pooled if geometry.pool_stride > 1 else 'not pooled'}; "
        f"{_NEWLINES[geometry.newline]}; "
        f"{'told' if geometry.time_instruction else 'not told'} the times"
    )


def picture_words(geometry: Geometry) -> str:
    """Say how a picture reaches the vision tower."""
    if geometry.aspect != "anyres":
        fit: Fit = "pad" if geometry.aspect == "pad" else geometry.square_fit
        words = {"crop": "cropped to a square", "squeeze": "squeezed to a square"}
        return words.get(fit, "padded to a square")
    most = "" if geometry.anyres_max is None else f", shrunk to about {geometry.anyres_max} tiles"
    return f"tiles on one of {len(geometry.canvases)} canvases{most}"


def _entry(known: KnownModel) -> CatalogueEntry:
    geometry = known_geometry(known.name)
    assert geometry is not None  # it is in the list
    plan = usual_video(geometry)
    return CatalogueEntry(
        known=known,
        bf16_bytes=weights_bytes(geometry, "plain"),
        int8_bytes=weights_bytes(geometry, "int8"),
        int4_bytes=weights_bytes(geometry, "int4"),
        num_frames=plan.visuals[0].num_frames,
        frame_tokens=frame_tokens(geometry),
        num_tokens=plan.visual_tokens,
        position_scale=plan.position_scale,
        video_bytes=plan.memory.kv_bytes + plan.memory.activation_bytes,
        reusable_prefix=plan.reusable_prefix,
    )
