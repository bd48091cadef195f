"""What a watch does now → plain facts, for a page, for meters and for people.

Written by the loop, read by whoever looks; nothing waits for a reader. No text in it holds a
secret, and all of it may be words of strangers. Knows no HTTP.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from llava_video.monitor.instructions import printable
from llava_video.monitor.judge import Judged
from llava_video.video.stream_events import Mark, StreamFrame, StreamStatus

Frames = npt.NDArray[np.uint8]

_MOST_NOTES = 20
_KINDS = ("asked", "reused", "idle", "failed", "dropped")
# Windows in a row without any answer that make a camera a failing one: one or two may be chance.
_MOST_FAILED = 3
# Weight of the newest window in the mean of the model's seconds.
_NEWEST = 0.1


@dataclass(slots=True)
class _Camera:
    """What is known of one camera."""

    frame: StreamFrame | None = None
    num_frames: int = 0
    windows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_KINDS, 0))
    questions: int = 0
    model_s: float = 0.0
    mean_s: float = 0.0
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    alerts: int = 0
    failed_in_a_row: int = 0
    failures: tuple[str, ...] = ()
    notes: list[dict[str, Any]] = field(default_factory=list)


class Board:
    """Holds the facts; may be used from several threads.

    Args:
        cameras: names, in the order they are shown.
        statuses: where the streams stand now, by camera.
        depths: windows that wait, by camera.
        more: other facts, such as sinks and what is kept.
        messages: the newest messages of the spool, as plain values, newest first.
        clock: wall clock, s since 1970.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        *,
        statuses: Callable[[], Mapping[str, StreamStatus]] = dict,
        depths: Callable[[], Mapping[str, int]] = dict,
        more: Callable[[], Mapping[str, Any]] = dict,
        messages: Callable[[], Sequence[Mapping[str, Any]]] = list,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cameras = {name: _Camera() for name in cameras}
        self._statuses, self._depths, self._more = statuses, depths, more
        self._messages, self._clock = messages, clock
        self._bell = threading.Condition()
        self._version = 0
        self._started_s = clock()
        self._jpegs: dict[str, tuple[int, bytes]] = {}
        self._alerts: tuple[int, list[Mapping[str, Any]]] = (-1, [])
        self._alerts_version = 0
        self._last: dict[str, Any] | None = None
        self.is_ended = False

    @property
    def cameras(self) -> list[str]:
        """Their names."""
        return list(self._cameras)

    def saw(self, camera: str, event: StreamFrame | Mark) -> None:
        """Note what came of a camera."""
        with self._bell:
            one = self._cameras[camera]
            if isinstance(event, Mark):
                note = {"kind": event.kind, "at_s": event.wall_s, "text": printable(event.text)}
                one.notes = [*one.notes, note][-_MOST_NOTES:]
            else:
                one.frame = event
                one.num_frames += 1
            self._changed()

    def judged(self, judged: Judged, num_windows: int = 1) -> None:
        """Note what became of a window, or of several that were dropped together."""
        with self._bell:
            one = self._cameras[judged.camera]
            one.windows[judged.kind] += num_windows
            one.questions += judged.num_asked
            if judged.kind != "dropped":  # nobody looked: a server that hangs drops most of them
                failed = judged.kind == "failed"
                one.failed_in_a_row = one.failed_in_a_row + 1 if failed else 0
                one.failures = judged.failures
            if judged.num_asked:
                one.model_s += judged.model_s
                is_first = one.mean_s == 0
                one.mean_s += (1.0 if is_first else _NEWEST) * (judged.model_s - one.mean_s)
            for decision in judged.decisions:
                one.alerts += decision.signal == "raised"
                one.answers[decision.rule] = {
                    "why": str(decision.why),
                    "value": decision.value,
                    "confidence": decision.confidence,
                    "at_s": decision.at_s,
                    "reused": decision.reused_from_s is not None,
                    "alert": decision.alert_id,
                }
            self._changed()

    def told(self) -> None:
        """Note that there are new messages in the spool."""
        with self._bell:
            self._alerts_version += 1
            self._changed()

    def end(self) -> None:
        """Note that the watch is over: these facts are the last, and who waits is let go."""
        last = {**self.facts(), "ended": True}
        with self._bell:
            self._last, self.is_ended = last, True
            self._changed()

    def wait(self, after: int, timeout_s: float) -> int:
        """Wait for something newer than a version; return the newest.

        Args:
            after: version that is known.
            timeout_s: how long at most.
        """
        with self._bell:
            self._bell.wait_for(lambda: self._version > after or self.is_ended, timeout_s)
            return self._version

    def facts(self) -> dict[str, Any]:
        """Return everything, as plain values; after the end what was last."""
        if self._last is not None:
            return self._last
        statuses, depths = self._statuses(), self._depths()
        alerts = self._newest()
        with self._bell:
            cameras = [
                self._of_camera(name, statuses.get(name), depths.get(name, 0))
                for name in self._cameras
            ]
        return {
            "at_s": self._clock(),
            "up_s": self._clock() - self._started_s,
            "ended": False,
            "cameras": cameras,
            "alerts": alerts,
            **self._more(),
        }

    def frame_jpeg(self, camera: str) -> bytes | None:
        """Return a camera's last frame as a JPEG; None before the first, or of no camera."""
        with self._bell:
            one = self._cameras.get(camera)
            frame = one.frame if one else None
            kept = self._jpegs.get(camera)
        if frame is None:
            return None
        if kept is None or kept[0] != frame.idx:
            kept = frame.idx, _jpeg(frame.picture)
            with self._bell:
                self._jpegs[camera] = kept
        return kept[1]

    def _of_camera(self, name: str, status: StreamStatus | None, depth: int) -> dict[str, Any]:
        one = self._cameras[name]
        windows = dict(one.windows)
        total = max(1, sum(windows.values()))
        return {
            "name": name,
            "address": status.name if status else "",
            "state": status.state if status else "",
            "reason": printable(status.reason) if status else "",
            "failing": one.failed_in_a_row >= _MOST_FAILED,
            "failures": list(one.failures),
            "stream": asdict(status.counts) if status else {},
            "lag_s": status.lag_s if status else 0.0,
            "frame": None if one.frame is None else one.frame.idx,
            "frame_at_s": None if one.frame is None else one.frame.wall_s,
            "frames": one.num_frames,
            "windows": windows,
            "reused_share": windows["reused"] / total,
            "dropped_share": windows["dropped"] / total,
            "depth": depth,
            "questions": one.questions,
            "alerts": one.alerts,
            "model_s": one.model_s,
            "window_s": one.mean_s,
            "answers": {rule: dict(answer) for rule, answer in one.answers.items()},
            "notes": list(one.notes),
        }

    def _newest(self) -> list[Mapping[str, Any]]:
        """Read alerts from the spool when there are new ones alone."""
        version, alerts = self._alerts
        if version != self._alerts_version:
            version = self._alerts_version
            alerts = together(self._messages())
            self._alerts = version, alerts
        return alerts

    def _changed(self) -> None:
        self._version += 1
        self._bell.notify_all()


def together(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return one entry for each alert, its update and end within, newest first.

    Args:
        messages: bodies of the spool's messages, newest first.
    """
    alerts: dict[str, dict[str, Any]] = {}
    for facts in messages:
        one = alerts.setdefault(str(facts["alert_id"]), {"files": [], "warnings": []})
        one["files"] = [*facts.get("files", []), *one["files"]]
        if facts["kind"] != "end":  # that of the window it is over in is no warning of the alert
            one["warnings"] = list(dict.fromkeys([*facts.get("warnings", []), *one["warnings"]]))
        if facts["kind"] == "alert":
            own = {"files": one["files"], "warnings": one["warnings"]}
            alerts[str(facts["alert_id"])] = {**one, **facts, **own}
        elif facts["kind"] == "update":
            one["description"] = facts.get("description", "")
            one["problem"] = facts.get("problem", "")
        else:
            one["ended_s"] = facts.get("at_s")
    return [one for one in alerts.values() if "rule" in one]


def _jpeg(picture: Frames) -> bytes:
    import io

    from PIL import Image  # costs 30 ms that a watch without a page need not pay

    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((640, 360))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()
