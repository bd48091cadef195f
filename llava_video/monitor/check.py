"""A rules file → what would go wrong, before anything starts.

`check_watch` opens nothing but this machine's own files; `probe_watch` reaches cameras and sinks,
and measures a window. No text in a finding holds a secret.
"""

import contextlib
import os
import shutil
import socket
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from llava_video.backends import require
from llava_video.errors import BackendMissingError, LlavaVideoError
from llava_video.monitor.feed import CameraFeed, WindowJob
from llava_video.monitor.instructions import guarded
from llava_video.monitor.judge import frames_of
from llava_video.monitor.questions import AskWindow
from llava_video.monitor.secret import filled, names_in
from llava_video.monitor.settings import CameraSettings, WatchSettings
from llava_video.monitor.sink_settings import SinkSettings
from llava_video.values import Plan
from llava_video.video.stream import open_stream
from llava_video.video.stream_address import stream_address
from llava_video.video.stream_events import StreamFrame

Level = Literal["ok", "warning", "error"]
# (frames, times), question → the plan of the model, without its weights.
PlanWindow = Callable[[tuple[np.ndarray, list[float]], str], Plan]

_PORTS = {"http": 80, "https": 443, "mqtt": 1883, "mqtts": 8883}
_SIZE_PX = (720, 1280)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: "camera gate", "sink log", "model" …
        level: "error" where a watch would not start or not work.
        words: what was found.
    """

    about: str
    level: Level
    words: str


def check_watch(
    settings: WatchSettings, environ: Mapping[str, str], plan: PlanWindow | None = None
) -> Iterator[Finding]:
    """Look at everything that can be known without reaching anybody.

    Args:
        settings: read without an error, which is most of it.
        environ: has the secrets.
        plan: plans a window; None leaves the model out.
    """
    for name in settings.missing_names(environ):
        yield Finding(about="environment", level="error", words=f"{name} is not set.")
    for camera in settings.cameras:
        yield from _camera(camera, environ)
    for sink in settings.sinks:
        yield from _sink(sink, environ)
    if not settings.sinks:
        yield Finding(about="sinks", level="warning", words="there are none: nobody is told.")
    for camera in settings.cameras if plan else ():
        assert plan is not None
        yield _planned(settings, camera, plan)


def probe_watch(
    settings: WatchSettings,
    environ: Mapping[str, str],
    ask: AskWindow | None = None,
    *,
    timeout_s: float = 20.0,
) -> Iterator[Finding]:
    """Reach every camera and every sink, and ask one window of each camera.

    Args:
        settings: of the watch.
        environ: has the secrets; all of them.
        ask: answers a window; None measures nothing.
        timeout_s: how long one camera or sink is waited for.
    """
    took_s: dict[str, float] = {}
    for camera in settings.cameras:
        job, found = _first_window(camera, environ, timeout_s)
        yield found
        if job is not None and ask is not None:
            found, took_s[camera.name] = _measured(settings, job, ask)
            yield found
    if took_s:
        yield _keeps_up(settings, took_s)
    for sink in settings.sinks:
        if sink.kind in ("webhook", "mqtt"):
            yield _reached(sink, environ, min(timeout_s, sink.timeout_s))


def _camera(camera: CameraSettings, environ: Mapping[str, str]) -> Iterator[Finding]:
    about = f"camera {camera.name}"
    if any(not environ.get(name) for name in names_in(camera.address)):
        return  # told already
    try:
        address = stream_address(camera.filled_address(environ), camera.stream_settings())
    except LlavaVideoError as error:
        yield Finding(about=about, level="error", words=str(error))
        return
    frames = int(camera.window_s * camera.fps)
    yield Finding(
        about=about, level="ok",
        words=f"{address.shown}: {camera.fps:g} frames/s, {frames} frames a window of "
        f"{camera.window_s:g} s, one every {camera.step_s:g} s.",
    )  # fmt: skip


def _sink(sink: SinkSettings, environ: Mapping[str, str]) -> Iterator[Finding]:
    about = f"sink {sink.name}"
    if sink.kind == "mqtt":
        try:
            require("paho")
        except BackendMissingError as error:
            yield Finding(about=about, level="error", words=str(error))
            return
    if sink.kind == "jsonl":
        folder = Path(sink.path).absolute().parent
        is_fit = folder.is_dir() and os.access(folder, os.W_OK)
        words = f"{sink.path}" if is_fit else f"{folder} is no folder that can be written."
        yield Finding(about=about, level="ok" if is_fit else "error", words=words)
    elif sink.kind == "command":
        found = shutil.which(sink.command[0])
        words = found or f"{sink.command[0]} is no program here."
        yield Finding(about=about, level="ok" if found else "error", words=words)
    elif sink.kind in ("webhook", "mqtt") and all(map(environ.get, sink.environment_names)):
        yield _addressed(sink, environ)
    elif sink.kind == "terminal":
        yield Finding(about=about, level="ok", words="this terminal")


def _addressed(sink: SinkSettings, environ: Mapping[str, str]) -> Finding:
    about = f"sink {sink.name}"
    try:
        sink.refuse_user(filled(sink.address, environ))
    except LlavaVideoError as error:
        return Finding(about=about, level="error", words=str(error))
    host, port = _host(sink, environ)
    words = f"{host}:{port}" if host else "its address names no host."
    return Finding(about=about, level="ok" if host else "error", words=words)


def _planned(settings: WatchSettings, camera: CameraSettings, plan: PlanWindow) -> Finding:
    """Plan a window of a camera, for the longest of its questions."""
    about = f"model, camera {camera.name}"
    questions = list(dict.fromkeys(rule.question for rule in settings.rules_of(camera.name)))
    asked = max(questions, key=len)
    asked = guarded(asked, {}) if settings.guard else asked
    num = max(1, int(camera.window_s * camera.fps))
    frames = np.zeros((num, *_SIZE_PX, 3), np.uint8)
    try:
        made = plan((frames, [idx / camera.fps for idx in range(num)]), asked)
    except LlavaVideoError as error:
        return Finding(about=about, level="error", words=str(error))
    shown = sum(visual.num_frames for visual in made.visuals)
    text = made.text_tokens + made.max_new_tokens
    words = (
        f"{shown} of {num} frames, {made.visual_tokens} visual tokens a window once, and up to "
        f"{text} for each of {len(questions)} questions."
    )
    return Finding(about=about, level="ok" if shown == num else "warning", words=words)


def _first_window(
    camera: CameraSettings, environ: Mapping[str, str], timeout_s: float
) -> tuple[WindowJob | None, Finding]:
    """Watch a camera until its first window is complete, or as much as came in time."""
    about = f"camera {camera.name}"
    feed, jobs = CameraFeed(camera), list[WindowJob]()
    until_s = time.monotonic() + timeout_s
    frame: StreamFrame | None = None
    with open_stream(camera.filled_address(environ), camera.stream_settings("fast")) as stream:
        while not jobs and (left_s := until_s - time.monotonic()) > 0 and not stream.is_over:
            event = stream.next(left_s)
            if event is not None:
                jobs += feed.take(event)
                frame = event if isinstance(event, StreamFrame) else frame
        jobs += feed.finish()
        status, error = stream.status(), stream.error
    if frame is None:
        reason = str(error or status.reason or f"no picture within {timeout_s:g} s.")
        return None, Finding(about=about, level="error", words=reason)
    words = f"{status.codec} {status.width_px} x {status.height_px}, pictures come."
    return (jobs[0] if jobs else None), Finding(about=about, level="ok", words=words)


def _measured(settings: WatchSettings, job: WindowJob, ask: AskWindow) -> tuple[Finding, float]:
    rules = settings.rules_of(job.camera)
    window = frames_of(job)
    took_s = 0.0
    for _ in range(2):  # the first one warms up
        started_s = time.perf_counter()
        try:
            answers = ask(window, rules)
        except LlavaVideoError as error:
            return Finding(about=f"model, camera {job.camera}", level="error", words=str(error)), 0
        took_s = time.perf_counter() - started_s
    said = [
        f"{name}: {one.value!r}" if one.kind == "answered" else f"{name}: {one.reason}"
        for name, one in answers.observations.items()
    ]
    is_fit = all(one.kind == "answered" for one in answers.observations.values())
    words = f"{took_s:.2f} s a window; {', '.join(said)}"
    level: Level = "ok" if is_fit else "error"
    return Finding(about=f"model, camera {job.camera}", level=level, words=words), took_s


def _keeps_up(settings: WatchSettings, took_s: Mapping[str, float]) -> Finding:
    """Compare what windows take with how often they come, if each of them is asked about."""
    steps = {camera.name: camera.step_s for camera in settings.cameras}
    load = sum(seconds / steps[name] for name, seconds in took_s.items())
    words = (
        f"{load:.0%} of the time where nothing is ever the same; "
        f"{'it keeps up.' if load < 1 else 'windows will be dropped while everything moves.'}"
    )
    return Finding(about="model", level="ok" if load < 1 else "warning", words=words)


def _reached(sink: SinkSettings, environ: Mapping[str, str], timeout_s: float) -> Finding:
    about = f"sink {sink.name}"
    found = _addressed(sink, environ)
    if found.level == "error":
        return found
    host, port = _host(sink, environ)
    try:
        with contextlib.closing(socket.create_connection((host, port), timeout_s)):
            return Finding(about=about, level="ok", words=f"{host}:{port} is reached.")
    except OSError as cause:
        reason = cause.strerror or "no answer in time"
        return Finding(about=about, level="error", words=f"{host}:{port}: {reason}.")


def _host(sink: SinkSettings, environ: Mapping[str, str]) -> tuple[str, int]:
    with contextlib.suppress(ValueError):  # a port that is no number, an IPv6 host without its end
        parts = urllib.parse.urlsplit(filled(sink.address, environ))
        return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    return "", 0
