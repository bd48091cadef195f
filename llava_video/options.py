"""Keywords of the API → one frozen settings dataclass per stage.

The keywords are flat because a user thinks of one request; the stages are not. Knows no model and
opens nothing.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta
from typing import Any, Literal, TypedDict, cast, get_args

from llava_video.engine.settings import GenerationSettings
from llava_video.errors import ConfigError
from llava_video.planning.settings import (
    PlanningSettings,
    PositionScale,
    Rule,
    Sampler,
    SamplingSettings,
)
from llava_video.values import Grid, Newline, Plan, PoolMode
from llava_video.video.sandbox import DecoderPool
from llava_video.video.settings import BackendName, FetchSettings, SandboxSettings
from llava_video.video.span import parse_time

Time = float | str | timedelta
Sandbox = bool | SandboxSettings | DecoderPool


class Options(TypedDict, total=False):
    """What every verb accepts beside the video and the prompt; each may be left out.

    Which frames: `start` and `end` (seconds, "MM:SS" or "HH:MM:SS.mmm"), `fps` (a rate),
    `num_frames` (an exact count), `max_frames` (a cap), `times` (seconds, explicit), `compat`
    ("pts", or "reference" for the original code's frames and times bit for bit), `sampling`
    ("uniform", "keyframe", "scene", "dedupe", or a `Sampler` of your own), and for the two that
    look at the video first `scan_fps`, `max_scan_frames` and `dedupe_threshold`.

    How they fit: `grid` ("auto", (rows, cols) or "off"), `pool_stride`, `pool_mode`, `newline`,
    `detail` ("low", "medium", "high"), `max_video_tokens`, `position_scale` (a number, "auto" for
    the smallest that holds what was asked, "reference" for LLaVA-NeXT-Video's rule, or None for the
    model's own way), `kv_cache` ("auto", "plain", "int8" or "int4"),
    `image_aspect` (of still pictures: "anyres", "pad", "square"), `time_instruction` (whether the
    prompt says times).

    The answer: `max_new_tokens`, `temperature` (0 is greedy), `top_p`, `top_k`, `seed`,
    `repetition_penalty` (None is the checkpoint's, 1.0 is none), `stop` (strings), `loop_guard`,
    `response_format` (a JSON schema, or a list of choices).

    How it is read: `reader` ("auto", "decord", "pyav" or "torchcodec"), `allow_private` (whether a
    URL may lead to private and loopback addresses and through the environment's proxies; off),
    `sandbox` (whether videos are read in a process of their own, for files from strangers: True, a
    `SandboxSettings` with other limits, or a `DecoderPool` that lends one of its workers; still
    pictures are read by Pillow in the calling one).
    """

    start: Time | None
    end: Time | None
    fps: float | None
    num_frames: int | None
    max_frames: int | None
    times: Sequence[Time] | None
    compat: Literal["pts", "reference"]
    sampling: Rule | Sampler
    scan_fps: float | None
    max_scan_frames: int | None
    dedupe_threshold: float | None
    grid: Literal["auto", "off"] | tuple[int, int] | Grid | None
    pool_stride: int | None
    pool_mode: PoolMode | None
    newline: Newline | Literal["row", "frame", "clip", "none"] | None
    detail: Literal["low", "medium", "high"] | None
    max_video_tokens: int | None
    position_scale: PositionScale | None
    kv_cache: Literal["auto", "plain", "int8", "int4"]
    image_aspect: Literal["anyres", "pad", "square"] | None
    time_instruction: bool | None
    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    repetition_penalty: float | None
    stop: str | Sequence[str]
    loop_guard: bool
    response_format: Mapping[str, Any] | Sequence[str] | None
    reader: BackendName
    allow_private: bool
    sandbox: Sandbox


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of one request, sorted by stage."""

    sampling: SamplingSettings
    planning: PlanningSettings
    generation: GenerationSettings
    reader: BackendName = "auto"
    fetch: FetchSettings = dataclasses.field(default_factory=FetchSettings)
    sandbox: Sandbox = False

    @property
    def reading(
        self,
    ) -> tuple[BackendName, FetchSettings, Sandbox]:
        """Reader, download and sandbox: what `open_visuals` and `reopen` take last."""
        return self.reader, self.fetch, self.sandbox


_RENAMED = {"start": "start_s", "end": "end_s", "times": "times_s", "sampling": "rule"}

_PLANNED = {field.name for cls in (SamplingSettings, PlanningSettings) for field in fields(cls)}
# What only sampling that looks at the video first is asked with.
SCAN_OPTIONS = ("sampling", "scan_fps", "max_scan_frames", "dedupe_threshold")
_OF_ANSWER = ("max_new_tokens", "temperature", "top_p", "top_k", "seed", "repetition_penalty")
PLAN_OPTIONS = frozenset(
    name for name in Options.__annotations__ if _RENAMED.get(name, name) in _PLANNED
)


def settings_of(options: Mapping[str, Any]) -> Settings:
    """Sort flat keywords into the stages' settings.

    Raises:
        TypeError: on an unknown keyword; the nearest known one is named.
        ConfigError: on a value out of range.
    """
    known = set(Options.__annotations__)
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = (
                f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"
            )
            raise TypeError(f"unknown option {name!r}{hint}")
    values = {_RENAMED.get(name, name): _parsed(name, value) for name, value in options.items()}
    reader = values.pop("reader", "auto")
    if reader not in get_args(BackendName):
        hint = f"allowed: {', '.join(map(repr, get_args(BackendName)))}."
        raise ConfigError(f"reader = {reader!r}.", hint)
    sandbox = values.pop("sandbox", False)
    if not isinstance(sandbox, Sandbox):
        hint = "allowed: True, False, SandboxSettings(…) or a DecoderPool."
        raise ConfigError(f"sandbox = {sandbox!r}.", hint)
    stages = [
        _pick(cls, values) for cls in (SamplingSettings, PlanningSettings, GenerationSettings)
    ]
    return Settings(
        sampling=SamplingSettings(**stages[0]),
        planning=PlanningSettings(**stages[1]),
        generation=GenerationSettings(**stages[2]),
        reader=reader,
        fetch=FetchSettings(**_pick(FetchSettings, values)),
        sandbox=sandbox,
    )


def answer_settings(plan: Plan, options: Mapping[str, Any]) -> Settings:
    """Return the settings a plan is run with: its answer's length, and only options of the answer.

    Raises:
        ConfigError: an option would change the plan. TypeError: as `settings_of`.
    """
    planned = sorted(set(options) & PLAN_OPTIONS)
    if planned:
        raise ConfigError(
            f"the plan decides frames and tokens, and run() was given {', '.join(planned)}.",
            "make another plan with them.",
        )
    return settings_of({**options, "max_new_tokens": plan.max_new_tokens})


def of_answer(options: Options) -> Options:
    """Return the options that have nothing to do with frames, for what is asked without any."""
    return cast("Options", {name: options[name] for name in _OF_ANSWER if name in options})  # type: ignore[literal-required]  # names of options


def _pick(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(cls)}
    return {name: value for name, value in values.items() if name in names}


def _parsed(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in ("start", "end"):
        return parse_time(value)
    if name == "times":
        return tuple(parse_time(time) for time in _listed(name, value))
    if name == "grid" and not isinstance(value, str | Grid):
        return _grid(value)
    if name == "newline":
        return _newline(value)
    if name == "stop":
        return (value,) if isinstance(value, str) else _listed(name, value)
    return value


def _listed(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(f"{name} = {value!r} is not a list.", f"{name}=[…].")
    return tuple(value)


def _grid(value: Any) -> Grid:
    try:
        rows, cols = value
        return Grid(int(rows), int(cols))
    except (TypeError, ValueError) as cause:
        raise ConfigError(
            f"grid = {value!r}.", "allowed: 'auto', 'off', or (rows, cols)."
        ) from cause


def _newline(value: str) -> Newline:
    try:
        return Newline(value)
    except ValueError as cause:
        allowed = ", ".join(repr(newline.value) for newline in Newline)
        raise ConfigError(f"newline = {value!r}.", f"allowed: {allowed}.") from cause
