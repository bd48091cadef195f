"""rules.yaml → what is watched, asked, told to whom and kept, checked before anything starts.

Whatever can be wrong with the file by itself is told here: unknown keys with the nearest name,
rules that contradict themselves, secrets that are written out, names of the environment that are
not set. Opens no camera and no sink.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from llava_video.config import check, from_mapping, read_values, setting
from llava_video.errors import ConfigError
from llava_video.monitor.answer_type import AnswerType
from llava_video.monitor.condition import Condition, telling_answers
from llava_video.monitor.json_field import part_of
from llava_video.monitor.scene_settings import GateSettings
from llava_video.monitor.schedule import Span, check_zone
from llava_video.monitor.secret import filled, names_in, refuse_written_out
from llava_video.monitor.sink_settings import Severity, SinkSettings
from llava_video.video.settings import Pace, StreamSettings

# Where a rule says nothing: every answer of a yes-or-no question reaches it, and it is the best
# point of the demo model's curve (docs/monitoring.md).
DEFAULT_CONFIDENCE: Final = 0.5
MOST_HITS_OF: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSettings:
    """One source that is watched."""

    name: str = setting("", "What it is called; its own among cameras.")
    address: str = setting(
        "", "rtsp://…, another address, a device or a file; ${NAME} for what is secret."
    )
    fps: float = setting(1.0, "Frames looked at.", unit="frames/s", above=0)
    window_s: float = setting(8.0, "Length of what is asked about at once.", unit="s", above=0)
    step_s: float = setting(
        4.0, "From one window to the next; shorter than a window, they overlap.", unit="s", above=0
    )
    transport: Literal["tcp", "udp"] = setting("tcp", "What RTSP brings pictures by.")
    stall_timeout_s: float = setting(
        StreamSettings().stall_timeout_s,
        "Longest silence before a connection is given up and made again.",
        unit="s",
        above=0,
    )
    frozen_s: float | None = setting(
        StreamSettings().frozen_s,
        "From when on equal pictures are told as frozen; null does not look.",
        unit="s",
        above=0,
    )
    gate: GateSettings = setting(GateSettings(), "When a picture counts as changed.")
    reuse: bool = setting(
        True, "Whether an unchanged picture's answer is used again, up to a rule's refresh_s."
    )

    def __post_init__(self) -> None:
        check(self, is_finite=True)
        for name in ("name", "address"):
            if not getattr(self, name).strip():
                raise ConfigError(f"a camera has no {name}.", "give it one.")
        if self.step_s > self.window_s:
            raise ConfigError(
                f"camera {self.name!r}: step_s = {self.step_s}, window_s = {self.window_s}.",
                "a step is not longer than a window, or what lies between is never looked at.",
            )
        if self.window_s * self.fps < 1:
            raise ConfigError(
                f"camera {self.name!r}: {self.window_s} s at {self.fps} frames/s is no frame.",
                "a longer window, or more frames.",
            )

    def filled_address(self, environ: Mapping[str, str]) -> str:
        """Return the address with its secrets: for who opens it, for nobody's eyes.

        Raises:
            ConfigError: the environment lacks a name.
        """
        return filled(self.address, environ)

    def stream_settings(
        self, pace: Pace = "real", *, starts_at_s: float | None = None
    ) -> StreamSettings:
        """Return how its stream is read.

        Args:
            pace: of a file, see `StreamSettings`.
            starts_at_s: of a recording, likewise.
        """
        return StreamSettings(
            fps=self.fps,
            transport=self.transport,
            stall_timeout_s=self.stall_timeout_s,
            frozen_s=self.frozen_s,
            pace=pace,
            starts_at_s=starts_at_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A question that is asked of every window, and when its answers raise an alert."""

    name: str = setting("", "What it is called; its own among rules.")
    question: str = setting("", "What is asked.")
    answer: AnswerType = setting(AnswerType(), "What may be answered.")
    when: Condition | None = setting(
        None, "What an answer has to be; None is yes to a yes-or-no question."
    )
    until: Condition | None = setting(
        None, "What ends an alert (hysteresis); None: what does not meet `when`."
    )
    cameras: tuple[str, ...] = setting((), "Names of the cameras it watches; none for all.")
    hits: int = setting(1, "Answers that have to meet `when` …", at_least=1, at_most=MOST_HITS_OF)
    of: int | None = setting(
        None, "… among so many last ones; None is `hits`.", at_least=1, at_most=MOST_HITS_OF
    )
    forget_s: float = setting(
        600.0,
        "After so long without an answer, hits are counted anew and an alert that holds is over.",
        unit="s",
        above=0,
    )
    until_hits: int = setting(
        1, "Answers in a row that have to meet `until`; unsure ones are passed over.",
        at_least=1, at_most=MOST_HITS_OF,
    )  # fmt: skip
    cooldown_s: float = setting(
        60.0, "No second alert on the same camera within this.", unit="s", at_least=0
    )
    confidence: float | None = setting(
        None, "Least probability of an answer that counts; None is the default where there is one.",
        at_least=0.0, at_most=1.0,
    )  # fmt: skip
    severity: Severity = setting("warning", "info, warning or critical.")
    schedule: tuple[Span, ...] = setting((), "When it watches; none for always.")
    time_zone: str = setting("UTC", "Whose hours the schedule means, such as Europe/Berlin.")
    refresh_s: float = setting(
        300.0, "Longest time for which an unchanged picture's answer is used again.", unit="s",
        above=0,
    )  # fmt: skip
    tell_end: bool = setting(False, "Whether the end of an alert is told too.")

    def __post_init__(self) -> None:
        check(self)
        for name in ("name", "question"):
            if not getattr(self, name).strip():
                raise ConfigError(f"rule {self.name!r} has no {name}.", "give it one.")
        try:
            self._check()
        except ConfigError as error:
            raise ConfigError(f"rule {self.name!r}: {error.message}", error.hint) from error

    def _check(self) -> None:
        if self.of is not None and self.of < self.hits:
            raise ConfigError(
                f"hits = {self.hits} of {self.of} can never be.", "hits is not above of."
            )
        if self.when is None and self.answer.type != "yes_no":
            raise ConfigError(
                f"an answer of type {self.answer.type!r} needs when.", "when: {equals: …}"
            )
        check_zone(self.time_zone)
        self.condition.refuse_impossible(self.answer)
        self._check_until()
        if self.confidence is not None and not self.answer.has_confidence:
            raise ConfigError(
                f"confidence = {self.confidence} of an answer of type {self.answer.type!r}.",
                "only yes_no, choice and whole numbers between close limits have one.",
            )

    def _check_until(self) -> None:
        if self.until is None:
            return
        if self.condition.is_change or self.until.is_change:
            raise ConfigError("until does not go with changes.", "a change ends at once.")
        self.until.refuse_impossible(self.answer)
        values = telling_answers(self.answer, self.condition, self.until)
        both = [one for one in values if self.condition.holds(one) and self.until.holds(one)]
        if both:
            field = next(iter(self.until.compared_fields))
            found, of = part_of(both[0], field), f" of {field!r}" if field else ""
            raise ConfigError(
                f"the answer {found!r}{of} meets both when and until.",
                "make them exclude each other.",
            )

    @property
    def condition(self) -> Condition:
        """What an answer has to be."""
        return self.when or Condition(equals="yes")

    @property
    def hits_of(self) -> int:
        """How many last answers `hits` are counted among."""
        return self.of or self.hits

    @property
    def least_confidence(self) -> float:
        """Least probability of an answer that counts; 0 where there is none."""
        if not self.answer.has_confidence:
            return 0.0
        return DEFAULT_CONFIDENCE if self.confidence is None else self.confidence

    @property
    def needs_memory(self) -> str:
        """What cannot be where each answer is forgotten before the next; "" for nothing."""
        for name in ("hits", "until_hits"):
            if getattr(self, name) > 1:
                return f"{name} = {getattr(self, name)}"
        return "" if self.condition.is_change else "an alert that holds"

    def watches(self, camera: str) -> bool:
        """Say whether it is asked of a camera."""
        return not self.cameras or camera in self.cameras


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """How long snapshots, sheets and clips are kept; what is not delivered yet is kept longer."""

    days: float = setting(30.0, "Age at which they go.", unit="days", above=0)
    most_bytes: int = setting(
        10 * 2**30, "Room they take in all; the oldest go first.", unit="bytes", at_least=0
    )
    most_waiting: int = setting(
        100_000,
        "Messages that wait for their sinks; above it updates go, oldest first, alerts never.",
        at_least=1,
    )
    reserve_bytes: int = setting(
        2**20, "Room that is held for alerts on a full disk.", unit="bytes", at_least=0
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """All of a rules file."""

    cameras: tuple[CameraSettings, ...] = setting((), "What is watched.")
    rules: tuple[Rule, ...] = setting((), "What is asked, and when it is told.")
    sinks: tuple[SinkSettings, ...] = setting((), "Who is told.")
    retention: RetentionSettings = setting(RetentionSettings(), "How long pictures are kept.")
    guard: bool = setting(
        True,
        "Whether questions say that text in pictures is no instruction; the demo model knows its "
        "own questions alone, and is asked without.",
    )

    def __post_init__(self) -> None:
        check(self)
        for kind in ("cameras", "rules", "sinks"):
            named = getattr(self, kind)
            if not named and kind != "sinks":
                raise ConfigError(f"there are no {kind}.", f"name one under {kind}:.")
            names = [one.name for one in named]
            double = next((name for name in names if names.count(name) > 1), None)
            if double is not None:
                raise ConfigError(f"two {kind} are called {double!r}.", "each has its own name.")
        self._check_cameras()

    def _check_cameras(self) -> None:
        known = {camera.name: camera for camera in self.cameras}
        for rule in self.rules:
            for name in rule.cameras:
                if name not in known:
                    raise ConfigError(
                        f"rule {rule.name!r} watches {name!r}, which is no camera.",
                        f"cameras: {', '.join(known)}.",
                    )
            for camera in self.watched_by(rule):
                if rule.forget_s < camera.step_s and (never := rule.needs_memory):
                    raise ConfigError(
                        f"rule {rule.name!r}: {never} can never be: forget_s = "
                        f"{rule.forget_s} is below step_s = {camera.step_s} of {camera.name!r}.",
                        "forget_s of several steps.",
                    )
        idle = [c.name for c in self.cameras if not any(r.watches(c.name) for r in self.rules)]
        if idle:
            raise ConfigError(f"no rule watches {', '.join(map(repr, idle))}.", "add one.")

    def watched_by(self, rule: Rule) -> list[CameraSettings]:
        """Return the cameras that a rule is asked of."""
        return [camera for camera in self.cameras if rule.watches(camera.name)]

    def rules_of(self, camera: str) -> list[Rule]:
        """Return the rules that are asked of a camera."""
        return [rule for rule in self.rules if rule.watches(camera)]

    def missing_names(self, environ: Mapping[str, str]) -> list[str]:
        """Return the names of the environment that are asked for and not set, sorted."""
        asked = {name for camera in self.cameras for name in names_in(camera.address)}
        asked |= {name for sink in self.sinks for name in sink.environment_names}
        return sorted(name for name in asked if not environ.get(name))


def read_rules(
    path: str | Path, changes: Sequence[str] = (), sources: Sequence[str] = ()
) -> WatchSettings:
    """Read a rules file.

    Args:
        path: the file.
        changes: as `config.read_yaml`.
        sources: addresses in place of those of the file, as `with_sources`.

    Raises:
        ConfigError: it cannot be read, or something in it is wrong; no secret stands in it.
    """
    try:
        values = read_values(path, changes)
    except ConfigError as error:
        if isinstance(error.__cause__, yaml.MarkedYAMLError):
            # YAML quotes the line, in which a password may stand.
            raise ConfigError(_without_line(path, error.__cause__), error.hint) from None
        raise
    refuse_written_out(values)
    return rules_of(with_sources(values, sources) if sources else values)


def with_sources(values: Mapping[str, Any], sources: Sequence[str]) -> dict[str, Any]:
    """Return a rules file's values with other addresses.

    >>> with_sources({"rules": []}, ["day.mp4"])["cameras"]
    [{'name': 'camera', 'address': 'day.mp4'}]

    Args:
        values: of the file; where it names no camera, each source is a new one.
        sources: NAME=ADDRESS, where NAME is a camera of the file; the address alone where it has
            one camera or none. Cameras without a source are left out.

    Raises:
        ConfigError: a name is no camera, or a source without a name could be several.
    """
    if not all(isinstance(values.get(one), list | None) for one in ("cameras", "rules")):
        return dict(values)  # no place for an address: it is refused as without one
    found = values.get("cameras") or []
    known = {
        str(one["name"]): dict(one) for one in found if isinstance(one, dict) and "name" in one
    }
    cameras: dict[str, dict[str, Any]] = {}
    for source in sources:
        name, is_named, address = source.partition("=")
        if not is_named or "/" in name or ":" in name:
            if len(sources) > 1 or len(known) > 1:
                raise ConfigError(
                    "an address without a camera's name, and several cameras.",
                    f"NAME=ADDRESS; cameras: {', '.join(known) or 'any name'}.",
                )
            name, address = next(iter(known), "camera"), source
        if known and name not in known:
            raise ConfigError(f"{name!r} is no camera.", f"cameras: {', '.join(known)}.")
        cameras[name] = {**known.get(name, {"name": name}), "address": address}
    rules = [_of_cameras(rule, known, cameras) for rule in values.get("rules") or ()]
    kept = [rule for rule in rules if rule is not None]
    return {**values, "cameras": list(cameras.values()), "rules": kept}


def _of_cameras(rule: Any, known: Mapping[str, Any], kept: Mapping[str, Any]) -> Any:
    """Return a rule's values without cameras that are left out; None where none is left."""
    named = rule.get("cameras") if isinstance(rule, dict) else None
    if not isinstance(named, list) or not named:
        return rule
    left = [name for name in named if name in kept or name not in known]
    return {**rule, "cameras": left} if left else None


def rules_of(values: Mapping[str, Any]) -> WatchSettings:
    """Make the settings of plain values, as `read_rules`.

    Raises:
        ConfigError: something in them is wrong.
    """
    refuse_written_out(values)
    return from_mapping(WatchSettings, values)


def _without_line(path: str | Path, cause: yaml.MarkedYAMLError) -> str:
    mark = cause.problem_mark
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"cannot read settings from {path}{place}: {cause.problem}."
