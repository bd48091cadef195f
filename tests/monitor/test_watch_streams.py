"""Real streams in a watch: a cut connection and another resolution cost no alert and make none."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from stream_servers import TcpCamera, encode, joined, sending

from llava_video.monitor.loop_settings import LoopSettings
from llava_video.monitor.questions import WindowAnswers, WindowFrames
from llava_video.monitor.rules import Observation, Rule
from llava_video.monitor.settings import rules_of
from llava_video.monitor.trace import read_trace
from llava_video.monitor.watch import Asker, run_watch
from llava_video.world.bars import paint_index, read_index


def bars(window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
    value = "yes" if read_index(window.frames[-1]) & 1 else "no"
    seen = {
        rule.name: Observation(
            start_s=window.start_s, at_s=window.end_s, value=value, confidence=0.9
        )
        for rule in rules
    }
    return WindowAnswers(observations=seen, num_asked=len(rules), reused_tokens=0, seconds={})


def shown(state: int, number: int, size_px: tuple[int, int]) -> list[npt.NDArray[np.uint8]]:
    return [paint_index(state, *size_px)] * number


def test_alerts_are_exact_over_a_cut_and_another_resolution(tmp_path: Path) -> None:
    small, large = (48, 64), (96, 128)
    first = encode([*shown(0, 20, small), *shown(1, 20, small)])
    again = encode([*shown(1, 20, small), *shown(0, 20, small)])
    other = encode([*shown(0, 10, large), *shown(1, 20, large)], first_tick=40)
    stop, described = threading.Event(), list[str]()

    def describe(window: WindowFrames) -> tuple[str, tuple[str, ...]]:
        described.append(str(window.frames.shape[1:3]))
        if len(described) == 2:
            stop.set()
        return "something", ()

    visits = [sending(*first, pause_s=0.01), sending(*joined(*again, *other), pause_s=0.01)]
    with TcpCamera(visits) as camera:
        camera._visits = [*visits, camera.hold]
        settings = rules_of(
            {
                "cameras": [{"name": "gate", "address": camera.url, "fps": 25,
                             "window_s": 0.4, "step_s": 0.4}],
                "rules": [{"name": "object", "question": "Is it there?", "cooldown_s": 0,
                           "tell_end": True}],
                "sinks": [{"name": "log", "kind": "jsonl", "path": str(tmp_path / "log")}],
            }
        )  # fmt: skip
        timer = threading.Timer(60, stop.set)
        timer.start()
        summary = run_watch(
            settings, Asker(ask=bars, describe=describe), tmp_path / "watch", environ={},
            stopping=stop, loop=LoopSettings(queue_windows=100),
        )  # fmt: skip
        timer.cancel()
    assert summary.is_stopped
    told = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [one["kind"] for one in told if one["kind"] != "update"][:3] == ["alert", "end", "alert"]
    assert [one["number"] for one in told if one["kind"] == "alert"] == [1, 2]
    assert described == ["(48, 64)", "(96, 128)"]
    trace = list(read_trace(tmp_path / "watch"))
    # A busy machine may be late for a frame, which is told too; alerts are exact all the same.
    marks = [line["mark"] for line in trace if line.get("mark", "dropped") != "dropped"]
    assert marks[:4] == ["opened", "lost", "reconnected", "resized"]
    assert {line["why"] for line in trace if "why" in line} >= {"raised", "holding", "ended"}
