"""What a watch makes of answers that are odd, and of what it alone could see."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from watch_footage import START_S, FakeStreams, picture_of

from llava_video.api import LlavaVideo
from llava_video.engine.oracle import OracleEngine
from llava_video.engine.request import Event, Finished, Request
from llava_video.monitor.questions import WindowAnswers, WindowFrames
from llava_video.monitor.rules import Observation, Rule
from llava_video.monitor.settings import WatchSettings, rules_of
from llava_video.monitor.summary import WatchSummary
from llava_video.monitor.trace import read_trace
from llava_video.monitor.watch import Asker, asker_of, run_watch
from llava_video.video.stream_events import StreamFrame

HALF = json.loads('"shop \\ud83d"')


def frames(states: Sequence[int], small_from: int = 1000) -> Iterator[StreamFrame]:
    """Yield a frame a second, with something under the gate's threshold from a second on."""
    for second, state in enumerate(states):
        picture = picture_of(state).astype("uint8")
        if second >= small_from:
            picture[2:5, 2:5] = 210
        yield StreamFrame(idx=second, picture=picture, pts_s=float(second), wall_s=START_S + second)


def reading(**more: Any) -> WatchSettings:
    camera = {"name": "gate", "address": "gate.mp4", "window_s": 4, "step_s": 4}
    rule = {
        "name": "sign", "question": "What can be read?", "when": {"contains": "shop"},
        "answer": {"type": "text"},
    }  # fmt: skip
    return rules_of({"cameras": [camera], "rules": [rule | more], "guard": False})


def watched(
    folder: Path, made: WatchSettings, asker: Asker, events: Iterator[StreamFrame], **more: Any
) -> WatchSummary:
    return run_watch(
        made, asker, folder, environ={}, pace="fast",
        open_streams=lambda _: FakeStreams({"gate": events}), **more,
    )  # fmt: skip


def says(value: Any, *warnings: str) -> Asker:
    def ask(window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
        seen = {
            rule.name: Observation(
                start_s=window.start_s, at_s=window.end_s, value=value, warnings=warnings
            )
            for rule in rules
        }
        return WindowAnswers(observations=seen, num_asked=len(rules), reused_tokens=0, seconds={})

    return Asker(ask=ask)


class Halves:
    """An engine that answers half a character, as a server may, and a whole one later on."""

    def __init__(self, model: LlavaVideo) -> None:
        self._oracle = OracleEngine(model.spec.tokenizer)
        self.answers = [HALF, "shut", HALF]

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        for request in requests:
            said = self.answers.pop(0)
            for event in self._oracle.run([request]):
                if isinstance(event, Finished):
                    answer = replace(event.answer, text=json.dumps(said), parsed=said)
                    yield Finished(request.request_id, answer)


def test_half_a_character_fails_its_window_and_no_other(
    tiny_model: LlavaVideo, tmp_path: Path
) -> None:
    made, notes = reading(), list[tuple[str, str]]()
    asker = replace(asker_of(LlavaVideo(tiny_model.spec, Halves(tiny_model)), made), describe=None)
    changes = frames([0] * 4 + [2] * 4 + [1] * 4)
    summary = watched(
        tmp_path, made, asker, changes, on_note=lambda camera, text: notes.append((camera, text))
    )
    assert (summary.windows, summary.exit_status) == ({"failed": 2, "asked": 1}, 0)
    lines = [line for line in read_trace(tmp_path) if "rule" in line]
    reason = "half a character, '\\ud83d'"
    assert [line.get("reason", "") for line in lines] == [reason, "", reason]
    assert notes[0] == ("gate", f"no answer: {reason}")


def test_half_a_character_that_came_through_ends_no_watch(tmp_path: Path) -> None:
    summary = watched(tmp_path, reading(), says(HALF), frames([0] * 8))
    assert (summary.windows, summary.alerts) == ({"asked": 1, "reused": 1}, 1)
    (first, _) = (line for line in read_trace(tmp_path) if "rule" in line)
    assert (first["why"], first["value"]) == ("raised", "shop ?")


def test_what_answers_warn_of_is_told_once_without_an_alert(tmp_path: Path) -> None:
    notes = list[tuple[str, str]]()
    asker = says("shut", "The model knows the small world alone.")
    summary = watched(
        tmp_path, reading(), asker, frames([0] * 8 + [1] * 8),
        on_note=lambda camera, text: notes.append((camera, text)),
    )  # fmt: skip
    assert (summary.alerts, sum(summary.windows.values())) == (0, 4)
    assert notes == [("gate", "The model knows the small world alone.")]


def test_an_alert_under_the_gates_threshold_is_described_by_what_was_seen(tmp_path: Path) -> None:
    described = list[np.ndarray]()

    def ask(window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
        is_there = window.frames.max() > 200
        return says("shop" if is_there else "none").ask(window, rules)

    def describe(window: WindowFrames) -> tuple[str, tuple[str, ...]]:
        described.append(window.frames)
        return "something small", ()

    # The second hit is an answer that is used again, of a window that the model did not see.
    made = reading(refresh_s=8, hits=2, of=2)
    asker = Asker(ask=ask, describe=describe)
    summary = watched(tmp_path, made, asker, frames([0] * 24, small_from=4))
    assert (summary.windows, summary.alerts) == ({"asked": 3, "reused": 3}, 1)
    assert [int(shown.max()) for shown in described] == [210]
