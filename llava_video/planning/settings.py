"""What a user may ask of sampling and planning; every field None means "as the checkpoint".

Checks ranges and contradictions that need no video. Knows no video and no model.
"""

import math
from dataclasses import dataclass
from typing import Literal

from llava_video.config import check, setting
from llava_video.errors import ConfigError
from llava_video.planning.amount import parse_bytes
from llava_video.planning.geometry import Aspect
from llava_video.values import Grid, Newline, PoolMode, WeightFormat

# Larger wishes are typing errors: a million frames are nine hours at 30 per second.
_MOST_FRAMES = 1_000_000
_MOST_TILES_PER_SIDE = 12
MOST_POSITION_SCALE = 64


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
        "most frames of any choice. None: 64 for LLaVA-Video, 32 for OneVision, as trained",
        unit="frames",
        at_least=1,
        at_most=_MOST_FRAMES,
    )
    fps: float | None = setting(
        None,
        "frames per second of video; over the cap they are spread evenly instead",
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

    def __post_init__(self) -> None:
        """Check ranges, and that the knobs do not contradict one another."""
        check(self)
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
    position_scale: float | Literal["auto"] = setting(
        1.0,
        "position = index / scale: more context at some loss of quality, so off by default; 'auto' "
        "is the smallest that holds what was asked",
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
        None, "what becomes of still pictures; None: the checkpoint's for one, 'pad' for several"
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
