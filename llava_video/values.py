"""Values that cross a floor: what a video is, what a clip is, what a plan says, what an answer is.

Frozen dataclasses that can count and print themselves, nothing more. Knows NumPy and nothing of
torch, decoders, models or settings.
"""

import enum
import json
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from llava_video.config import to_mapping
from llava_video.errors import ConfigError

PoolMode = Literal["bilinear", "average", "max"]
Fit = Literal["squeeze", "letterbox", "pad", "crop", "nearest"]
# Which rows pooling reads: what the projector made of the features, or the features themselves.
PoolOf = Literal["tokens", "features"]
FinishReason = Literal["stop", "length", "loop", "cancelled"]
# How keys and values are stored, and the weights of the decoder's linear layers: "plain" is the
# model's own dtype.
KvFormat = Literal["plain", "int8", "int4"]
WeightFormat = Literal["plain", "int8", "int4"]


class Newline(enum.StrEnum):
    """Where the learned newline token stands: after a map row, a frame, the clip, or nowhere."""

    ROW = "row"
    FRAME = "frame"
    CLIP = "clip"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows and columns of tiles laid over one frame; (1, 1) is a single tile."""

    rows: int
    cols: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A half-open span of time [start_s, end_s) of a video, in seconds from its first frame."""

    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VideoInfo:
    """What is known of a video before one frame is decoded.

    Equal only to itself: fields of arrays have no single truth value.

    Attributes:
        duration_s: from the first frame to the end of the last one, s; None when unknown.
        num_frames: frames in the PTS index.
        frame_rate_hz: the average rate the container states; None when it states none.
        height_px: height as shown, after rotation and sample aspect ratio.
        width_px: width as shown.
        rotation_deg: clockwise turn that makes the stored picture upright: 0, 90, 180 or 270.
        mirrored: whether the stored picture is reversed left to right before it is turned.
        sample_aspect: width of a stored pixel over its height.
        codec: the codec's name, "h264"; "raw" for arrays.
        container: the container's name, "mov,mp4,m4a,3gp,3g2,mj2"; "array" for arrays.
        pixel_format: the stored pixel format, "yuv420p"; None when unknown.
        bit_depth: bits of one stored sample; None when unknown.
        colour_range: what black and white are stored as: "limited" (16 and 235 of 8 bits) or
            "full" (0 and 255); None when the file does not say, which is read as limited.
        pts_s: (num_frames,) float64, ascending, seconds from the first frame.
        tick_s: one unit of the container's time base, s.
        keyframe_idxs: indices into `pts_s` of the frames decoding can start at.
        track_idx: the container's track that was chosen.
        is_indexed: whether the container lists where its keyframes lie; without, a seek searches
            for them. None of frames without a container.
        truncated_at_s: where the file ends before the end it states, s from the first frame; None
            when it is whole, as far as it tells.
        faults: what is odd or broken, one sentence each, () when nothing is.
    """

    duration_s: float | None
    num_frames: int
    frame_rate_hz: float | None
    height_px: int
    width_px: int
    rotation_deg: int = 0
    mirrored: bool = False
    sample_aspect: Fraction = Fraction(1)
    codec: str
    container: str
    pixel_format: str | None = None
    bit_depth: int | None = None
    colour_range: Literal["limited", "full"] | None = None
    pts_s: npt.NDArray[np.float64] = field(repr=False)
    tick_s: float
    keyframe_idxs: tuple[int, ...] = field(default=(), repr=False)
    track_idx: int = 0
    is_indexed: bool | None = None
    truncated_at_s: float | None = None
    faults: tuple[str, ...] = ()

    def frame_idxs_at(self, times_s: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Return the frames shown at these times: largest pts <= t + half a tick, else the first.

        Args:
            times_s: seconds from the first frame, any order.

        Returns:
            int64 indices into `pts_s`, one per time.
        """
        times = np.asarray(times_s, dtype=np.float64) + self.tick_s / 2
        return np.maximum(np.searchsorted(self.pts_s, times, side="right") - 1, 0).astype(np.int64)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Clip:
    """Frames that go into one prompt (or a bounded piece of them), in pts order.

    Equal only to itself: fields of arrays have no single truth value.

    Attributes:
        frames: (T, H, W, 3) uint8, RGB, upright, square pixels; T >= 1.
        pts_s: (T,) float64, seconds from the video's first frame.
        frame_idxs: (T,) int64, indices into `VideoInfo.pts_s`.
    """

    frames: npt.NDArray[np.uint8]
    pts_s: npt.NDArray[np.float64]
    frame_idxs: npt.NDArray[np.int64]

    def __repr__(self) -> str:
        shape, first_s, last_s = self.frames.shape, self.pts_s[0], self.pts_s[-1]
        return f"Clip(frames={shape} uint8, {first_s:.3f} s to {last_s:.3f} s)"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scan:
    """What was seen of a video by looking through it before the plan: numbers, no pixels.

    Equal only to itself: fields of arrays have no single truth value.

    Attributes:
        frame_idxs: (N,) int64, ascending: the frames that were looked at and could be decoded.
        changes: (N,) float64, grey levels: how far each is from an earlier one, by the measure of
            the rule that asked; of the first, infinity.
        num_asked: frames that were to be looked at.
    """

    frame_idxs: npt.NDArray[np.int64]
    changes: npt.NDArray[np.float64]
    num_asked: int


@dataclass(frozen=True, slots=True)
class FrameRef:
    """One frame that was seen: its index in the video and its presentation time in seconds."""

    frame_idx: int
    pts_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualPlan:
    """How one video or picture becomes visual tokens: the frozen answer of the planner.

    A frame gives, in this order: the overview tile's map (only with `overview`, pooled, no
    newline), then the merged map of the grid's tiles (cropped to `crop`, brought to `map_size`)
    with newlines. A map's sides are counted in patches.

    Attributes:
        kind: "video" or "image" (one picture, one frame).
        source: the path or URL as given; a short description for bytes and arrays.
        height_px: height of the frames as shown.
        width_px: width of the frames as shown.
        times_s: the presentation times the model is told of and the decoder is asked for, s.
        frame_idxs: the frames' indices, one per time. Equal neighbours only under
            compat="reference".
        fit: how a frame reaches its tiles: "squeeze" to one tile, "letterbox" on the canvas of the
            grid, "pad" to a square of the mean colour and then squeeze, "crop" the middle of the
            short side's resize, "nearest" to one tile without a filter.
        grid: tiles laid over each frame.
        overview: whether the squeezed whole frame goes before the grid's tiles.
        pool_mode: how maps are pooled.
        pool_stride: side reduction of a map; 1 leaves it as it is.
        pool_of: what is pooled: "tokens" of the language model's width (as a linear layer permits),
            or the tower's "features", which the projector sees afterwards.
        newline: where newline tokens stand.
        crop: (top, bottom, left, right) half-open window of the merged map left after unpadding.
        map_size: (rows, cols) of the merged map after cropping and pooling.
        overview_side: rows and columns of the pooled overview map; 0 without overview.
        slow_every: 0, or k: frames i with i % k != 0 use twice the pool stride (`fast_side`), and a
            separator token follows every frame (LLaVA-Video's slow-fast layout).
        fast_side: rows and columns of a fast frame's map; 0 without slow-fast.
        num_tokens: visual tokens of the whole item, newlines and separators included.
        duration_s: how long the model is told that the video lasts, s; None for a picture.
        end_s: where the span that was looked at ends, s; None for a picture.
        note_every: 0 without a time sentence, or k: the sentence lists every k-th time.
        is_fused: LLaVA-Mini: `map_size` queries read all of a frame's tiles, and are then fused
            with the prompt, so the rows are another prompt's no longer. Nothing is pooled.
    """

    kind: Literal["video", "image"]
    source: str
    height_px: int
    width_px: int
    times_s: tuple[float, ...]
    frame_idxs: tuple[int, ...]
    fit: Fit
    grid: Grid
    overview: bool
    pool_mode: PoolMode
    pool_stride: int
    newline: Newline
    crop: tuple[int, int, int, int]
    map_size: tuple[int, int]
    overview_side: int = 0
    slow_every: int = 0
    fast_side: int = 0
    num_tokens: int
    duration_s: float | None = None
    end_s: float | None = None
    note_every: int = 0
    pool_of: PoolOf = "tokens"
    is_fused: bool = False

    @property
    def num_frames(self) -> int:
        """Frames the model is given."""
        return len(self.times_s)

    @property
    def tiles_per_frame(self) -> int:
        """Squares the vision tower sees of one frame."""
        return self.grid.rows * self.grid.cols + int(self.overview)


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes a plan takes, predicted from shapes.

    Attributes:
        weights_bytes: all weights, as they are stored.
        kv_bytes: keys and values of every token of the request.
        activation_bytes: the largest that is alive at once beside them.
        workspace_bytes: what libraries and the allocator keep for themselves.
    """

    weights_bytes: int
    kv_bytes: int
    activation_bytes: int
    workspace_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """Sum of the parts."""
        return self.weights_bytes + self.kv_bytes + self.activation_bytes + self.workspace_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be done, before any frame is decoded; `LlavaVideo.run(plan)` does exactly this.

    Attributes:
        model: the checkpoint's name or path.
        prompt: the whole prompt text, template and time sentence included, with one `<image>` mark
            per visual.
        visuals: one plan per mark, in the order of the marks.
        text_tokens: tokens of the prompt text, marks not counted.
        max_new_tokens: tokens kept free for the answer.
        context_tokens: positions the model accepts.
        budget_tokens: visual tokens that were allowed.
        position_scale: positions are index / position_scale.
        kv_format: how keys and values are stored.
        weight_format: how the decoder's linear weights are stored.
        memory: predicted bytes.
        reusable_prefix: whether another question about the same visuals may begin with their cache;
            not where visuals are fused with the prompt.
        reasons: what was chosen or given up, and why, one sentence each.
        warnings: what the user should know before believing the answer.
    """

    model: str
    prompt: str
    visuals: tuple[VisualPlan, ...]
    text_tokens: int
    max_new_tokens: int
    context_tokens: int
    budget_tokens: int
    position_scale: float = 1.0
    kv_format: KvFormat = "plain"
    weight_format: WeightFormat = "plain"
    memory: MemoryEstimate
    reusable_prefix: bool = True
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of all visuals."""
        return sum(visual.num_tokens for visual in self.visuals)

    @property
    def tokens(self) -> int:
        """Tokens the model is given: text and visual."""
        return self.text_tokens + self.visual_tokens

    def __str__(self) -> str:
        """The short table a person reads."""
        # values.py is what plan_table.py is made of, so it can only be asked when it is needed.
        from llava_video.plan_table import plan_table

        return plan_table(self)

    def to_json(self) -> str:
        """Return the plan as JSON text; `planning.plan_json.plan_from_json` reads it back equal."""
        return json.dumps(to_mapping(self), indent=1, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one answer."""

    text_tokens: int
    visual_tokens: int
    new_tokens: int
    reused_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """An answer, with everything needed to judge it.

    Attributes:
        text: the answer.
        parsed: the typed answer when `response_format` was given, else None.
        confidence: probability of the chosen answer among the choices, 0..1; None without choices.
        plan: what the model was given.
        frames: the frames it saw.
        usage: tokens.
        finish_reason: "stop", "length", "loop" (an n-gram repeated) or "cancelled".
        coverage: spans of the video that the frames cover, s.
        warnings: what the reader should know before believing the text.
        timings: seconds per stage. "vision" includes "decode"; "total" includes all.
        provenance: checkpoint, revision, seed, library versions, and of each video its reader and
            the reason for it.
        thumbnails: (N, h, w, 3) uint8, small pictures of at most 64 of the frames; not in the JSON.
        thumbnail_times_s: their times.
    """

    text: str
    plan: Plan
    frames: tuple[FrameRef, ...]
    usage: TokenUsage
    finish_reason: FinishReason
    parsed: Any = None
    confidence: float | None = None
    coverage: tuple[Segment, ...] = ()
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    thumbnails: npt.NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    thumbnail_times_s: tuple[float, ...] = field(default=(), repr=False, compare=False)

    def __repr__(self) -> str:
        return (
            f"Description({self.text[:60]!r}, {len(self.frames)} frames, "
            f"{self.usage.visual_tokens} visual tokens, {self.finish_reason})"
        )

    def to_json(self) -> str:
        """Return everything but the thumbnails as JSON text."""
        values = to_mapping(self)
        del values["thumbnails"], values["thumbnail_times_s"]
        return json.dumps(values, indent=1, ensure_ascii=False)

    def contact_sheet(self, path: str | Path) -> None:
        """Write the frames the model saw, each with its time, as one picture.

        Raises:
            ConfigError: when no frame was seen, or the suffix is no picture format.
        """
        # Pillow costs 30 ms to import, and most answers want no picture.
        from llava_video.contact_sheet import write_contact_sheet

        if self.thumbnails is None:
            raise ConfigError("no frame was seen, so there is no contact sheet.")
        write_contact_sheet(self.thumbnails, self.thumbnail_times_s, path)
