"""What a user may ask of sampling and planning; every field None means "as the checkpoint".

Checks ranges and contradictions that need no video. Knows no video and no model.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from llava_video.config import check, setting
from llava_video.errors import ConfigError
from llava_video.planning.amount import parse_bytes
from llava_video.planning.geometry import Aspect
from llava_video.values import Grid, Newline, PoolMode, Segment, VideoInfo, WeightFormat

# Larger wishes are typing errors: a million frames are nine hours at 30 per second.
_MOST_FRAMES = 1_000_000
_MOST_TILES_PER_SIDE = 12
MOST_POSITION_SCALE = 64

# How positions may be scaled: a factor, the smallest that suffices, or by the demo's rule.
PositionScale = float | Literal["auto", "reference"]

Rule = Literal["uniform", "keyframe", "scene", "dedupe"]

# Twice a second: a shot of a second is looked at twice. More seldom would hardly be cheaper while
# looks lie closer than keyframes. The limit bounds the looks of a long video, not its decoding.
DEFAULT_SCAN_FPS = 2.0
DEFAULT_SCAN_FRAMES = 3600
# Tried on a still picture of 640 x 480 px, encoded (x264, crf 23) with noise of 0, 2 and 4 levels:
# its blocks differ by up to 6.6, 7.6 and 9.6 levels in 5 s, those of moving animals by over 100.
DEFAULT_DEDUPE_THRESHOLD = 10.0


class Sampler(Protocol):
    """A user's own rule: any function or object that is called like this.

    Called once per plan. The frames are those on screen at the times it returns.
    """

    def __call__(self, info: VideoInfo, *, span: Segment, max_frames: int) -> Sequence[float]:
        """Return the moments to look at.

        Args:
            info: the probed video: its times, keyframes and size.
            span: the part that is looked at, s; half open.
            max_frames: the limit; of more moments, evenly numbered ones are kept.

        Returns:
            Seconds from the first frame, inside the span; in any order, repeats are dropped.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """Which frames of a video are looked at; all knobs combine: rate, then cap, then budget."""

    num_frames: int | None = setting(
        None,
        "frames wanted, evenly spread; lifts the model's own cap. None: the cap decides",
        unit="frames",
        at_least=1,
        at_most=_MOST_FRAMES,
    )
    max_frames: int | None = setting(
        None,
        "most frames of any choice. None: the model's own, 64 for LLaVA-Video, 32 for OneVision, 8 "
        "for a model of pictures",
        unit="frames",
        at_least=1,
        at_most=_MOST_FRAMES,
    )
    fps: float | None = setting(
        None,
        "frames per second of video; over the cap they are spread evenly instead. None: what "
        "the checkpoint states, 1 for LLaVA-Mini, evenly spread for the others",
        unit="frames/s",
        above=0,
        at_most=1000,
    )
    start_s: float | None = setting(
        None,
        "first moment, inclusive. None: the first frame",
        unit="s",
        at_least=0,
        keyword="start",
    )
    end_s: float | None = setting(
        None,
        "end of the span, exclusive. None: the end of the video",
        unit="s",
        above=0,
        keyword="end",
    )
    times_s: tuple[float, ...] | None = setting(
        None,
        "explicit moments; each shows the frame on screen then",
        unit="s",
        at_least=0,
        keyword="times",
    )
    compat: Literal["pts", "reference"] = setting(
        "pts",
        "'reference' repeats the original code's index / rate times and duplicate frames",
    )
    rule: Rule | Sampler = setting(
        "uniform",
        "which moments: 'uniform' spreads them evenly, 'keyframe' moves them to the nearest "
        "keyframe (fast), 'scene' gives every shot one at least, 'dedupe' drops frames like the "
        "one before; the last two look through the video first",
        keyword="sampling",
    )
    scan_fps: float | None = setting(
        None,
        "how often 'scene' and 'dedupe' look, in frames per second. None: 2, so that a shot of a "
        "second is seen twice",
        unit="frames/s",
        above=0,
        at_most=1000,
    )
    max_scan_frames: int | None = setting(
        None,
        "most frames they look at; of a longer video evenly spread ones. None: 3600, half an hour "
        "at 2 per second",
        unit="frames",
        at_least=2,
        at_most=_MOST_FRAMES,
    )
    dedupe_threshold: float | None = setting(
        None,
        "'dedupe' drops a frame when no block of 8 x 8 px changed by more than this, in grey "
        "levels; 0 drops equal pixels alone. None: 10, above the noise of common encodings",
        unit="grey levels",
        at_least=0,
        at_most=255,
    )

    def __post_init__(self) -> None:
        """Check ranges, and that the knobs do not contradict one another."""
        check(self)
        self._check_rule()
        for name, time_s in (("start", self.start_s), ("end", self.end_s)):
            if time_s is not None and not math.isfinite(time_s):
                raise ConfigError(f"{name} = {time_s!r}.", "give seconds from the first frame.")
        if self.start_s is not None and self.end_s is not None and self.start_s >= self.end_s:
            raise ConfigError(
                f"start = {self.start_s} is not before end = {self.end_s}.",
                "give a span with start= before end=.",
            )
        if self.times_s is not None:
            self._check_times(self.times_s)

    @property
    def needs_scan(self) -> bool:
        """Whether the rule looks at pixels before the plan."""
        return self.rule in ("scene", "dedupe")

    @property
    def rule_words(self) -> str:
        """What a person calls the rule."""
        if isinstance(self.rule, str):
            return self.rule
        return str(getattr(self.rule, "__name__", type(self.rule).__name__))

    def _check_rule(self) -> None:
        if isinstance(self.rule, str):
            is_known = self.rule in get_args(Rule)
        else:
            is_known = callable(self.rule)
        if not is_known:
            allowed = ", ".join(repr(name) for name in get_args(Rule))
            raise ConfigError(
                f"sampling = {self.rule!r}.", f"allowed: {allowed}, or a function that chooses."
            )
        for name in self._senseless():
            raise ConfigError(
                f"sampling = {self.rule_words!r} makes nothing of {name} = {getattr(self, name)}.",
                f"leave {name} out, or choose another sampling.",
            )
        if self.rule != "uniform" and self.times_s is not None:
            raise ConfigError(
                f"explicit times and sampling = {self.rule_words!r} ask for different frames.",
                "give times= or sampling=, not both.",
            )
        if self.rule != "uniform" and self.compat == "reference":
            raise ConfigError(
                f"compat = 'reference' with sampling = {self.rule_words!r}: the reference has "
                "only one rule.",
                "leave compat at 'pts', or sampling at 'uniform'.",
            )
        if self.rule == "dedupe" and self.fps is not None and self.scan_fps is not None:
            raise ConfigError(
                f"fps = {self.fps:g} and scan_fps = {self.scan_fps:g} both say how often "
                "sampling = 'dedupe' looks.",
                "give one of them.",
            )

    def _senseless(self) -> Iterator[str]:
        """Yield given knobs that the rule does not read."""
        unread: tuple[str, ...] = ()
        if not self.needs_scan:
            unread = ("scan_fps", "max_scan_frames", "dedupe_threshold")
        elif self.rule == "scene":
            unread = ("dedupe_threshold",)
        if not isinstance(self.rule, str):
            unread = (*unread, "fps")
        yield from (name for name in unread if getattr(self, name) is not None)

    def _check_times(self, times_s: tuple[float, ...]) -> None:
        if not times_s:
            raise ConfigError("times = () names no moment.", "name at least one, or leave it out.")
        if not all(math.isfinite(time_s) for time_s in times_s):
            raise ConfigError(f"times = {times_s}.", "give seconds from the first frame.")
        for name in ("num_frames", "fps"):
            if getattr(self, name) is not None:
                raise ConfigError(
                    f"explicit times and {name} = {getattr(self, name)} ask for different frames.",
                    f"give times= or {name}=, not both; max_frames may cap either.",
                )
        if self.compat == "reference":
            raise ConfigError(
                "explicit times with compat = 'reference': the reference takes none.",
                "leave compat at 'pts'.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningSettings:
    """How the frames become visual tokens, and how many tokens there may be.

    `grid=Grid(…)` and `pool_stride=` are pinned: they are kept or the request is refused. What is
    left None may be sacrificed to the budget: grid, then pool stride up to 4, then frames. Where it
    is memory that is short, the cache becomes coarser before any of them, unless `kv_cache=` is
    pinned.
    """

    grid: Literal["auto", "off"] | Grid | None = setting(
        None,
        "tiles per frame of a video: 'auto' by least waste, 'off' for one, or rows and cols",
    )
    pool_stride: int | None = setting(
        None, "side reduction of a frame's map, kept as given", unit="patches", at_least=1
    )
    pool_mode: PoolMode | None = setting(
        None, "how maps are pooled; published LLaVA-Video scores used 'average' (13 x 13)"
    )
    newline: Newline | None = setting(None, "where newline tokens stand in a video")
    detail: Literal["low", "medium", "high"] | None = setting(
        None, "'low' is pool stride 4, 'medium' the trained layout, 'high' grid='auto'"
    )
    max_video_tokens: int | None = setting(
        None, "most visual tokens of all videos together", unit="tokens", at_least=1
    )
    max_new_tokens: int = setting(
        512, "kept free for the answer; 512 holds a page of text", unit="tokens", at_least=1
    )
    position_scale: PositionScale | None = setting(
        None,
        "position = index / scale: more context at some loss of quality; 'auto' is the smallest "
        "that holds what was asked, 'reference' the rule of LLaVA-NeXT-Video's demo. None: 1, or "
        "'auto' up to 4 where the model's context is short and its positions bear it",
        at_least=1,
        at_most=MOST_POSITION_SCALE,
    )
    kv_cache: Literal["auto", "plain", "int8", "int4"] = setting(
        "auto",
        "how keys and values are kept: 'plain' in the model's dtype, 'int8' and 'int4' in half and "
        "under a third of it; 'auto' is the finest that memory has room for",
    )
    time_share: float = setting(
        0.05,
        "most of the budget the time sentence may take before it lists every k-th time only",
        at_least=0,
        at_most=1,
    )
    image_aspect: Aspect | None = setting(
        None,
        "what becomes of still pictures; None: the checkpoint's for one, and for several what they "
        "are trained as: 'pad' with a SigLIP tower",
    )
    time_instruction: bool | None = setting(
        None, "whether a video's length and times stand in the prompt; None: as trained"
    )

    def __post_init__(self) -> None:
        """Check ranges, and that the knobs do not contradict one another."""
        check(self)
        if isinstance(self.grid, Grid):
            self._check_grid(self.grid)
        clashes = {"low": ("grid", "pool_stride"), "medium": ("grid", "pool_stride")}
        for name in clashes.get(self.detail or "", ("grid",) if self.detail else ()):
            if getattr(self, name) is not None:
                raise ConfigError(
                    f"detail = {self.detail!r} already says {name}, and {name} = "
                    f"{getattr(self, name)!r} is given too.",
                    f"give detail or {name}, not both.",
                )

    def _check_grid(self, grid: Grid) -> None:
        sides = (grid.rows, grid.cols)
        if any(type(side) is not int or not 1 <= side <= _MOST_TILES_PER_SIDE for side in sides):
            raise ConfigError(
                f"grid = {sides}.", f"rows and cols are whole numbers, 1 to {_MOST_TILES_PER_SIDE}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySettings:
    """What a model may take, and how its weights are kept within that."""

    memory: str | int | None = setting(
        None,
        "most memory for weights, cache, activations and workspace, like '24GiB' or bytes. None: "
        "what the GPU has free, no limit on a CPU or where no weights are loaded",
    )
    quantize: Literal["auto", "plain", "int8", "int4"] | None = setting(
        "auto",
        "how the decoder's linear weights are kept; 'auto' is the finest of 'plain', 'int8' and "
        "'int4' that leaves memory for the model's whole context as int8 cache",
    )

    def __post_init__(self) -> None:
        """Check kinds and the amount."""
        check(self)
        parse_bytes(self.memory)

    @property
    def limit_bytes(self) -> int | None:
        """The memory in bytes; None when none was named."""
        return parse_bytes(self.memory)

    @property
    def pinned(self) -> WeightFormat | None:
        """The weights' format that was named; None when it is to be chosen."""
        if self.quantize == "auto":
            return None
        return self.quantize or "plain"
