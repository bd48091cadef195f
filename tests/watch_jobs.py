"""Windows, and a judge without a server, for tests that need no footage."""

from collections.abc import Sequence

import numpy as np

from llava_video.monitor.feed import WindowJob
from llava_video.monitor.judge import Judge
from llava_video.monitor.questions import WindowAnswers, WindowFrames
from llava_video.monitor.rules import Observation
from llava_video.monitor.settings import Rule, WatchSettings
from llava_video.video.stream_events import StreamFrame

START_S = 1_750_000_000.0


def job_of(
    number: int, camera: str = "gate", contents: tuple[int, ...] | None = None, level: int = 100
) -> WindowJob:
    """Return the window of a number, 4 s each; it shows something of its own unless told."""
    picture = np.full((16, 16, 3), level, np.uint8)
    at_s = START_S + 4.0 * (number + 1)
    last = StreamFrame(idx=number, picture=picture, pts_s=4.0 * number + 3, wall_s=at_s - 1)
    return WindowJob(
        camera=camera, window_idx=number, start_s=at_s - 4, at_s=at_s, pictures=[picture],
        frames=[picture], times_s=(last.pts_s,), contents=contents or (number,), last=last,
        end_pts_s=4.0 * number + 4,
    )  # fmt: skip


def failing(settings: WatchSettings, reasons: dict[str, str]) -> Judge:
    """Return a judge whose questions fail one by one, by rule: those of a server that is down."""

    def ask(window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
        given = {"start_s": window.start_s, "at_s": window.end_s}
        seen = {
            rule.name: Observation(**given, kind="failed", reason=reasons[rule.name])
            if rule.name in reasons
            else Observation(**given, value="no", confidence=0.9)
            for rule in rules
        }
        return WindowAnswers(observations=seen, num_asked=len(rules), reused_tokens=0, seconds={})

    return Judge(settings, ask, clock=lambda: 0.0)
