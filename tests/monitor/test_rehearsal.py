"""Rules over footage whose truth is planted: every event is told, and little is encoded."""

import time
from collections import OrderedDict
from collections.abc import Sequence

import pytest
from watch_footage import START_S, Day, Played, oracle_of, settings_of

from llava_video.api import LlavaVideo
from llava_video.monitor.gate import least_contrast
from llava_video.monitor.labels import Label
from llava_video.monitor.questions import AskWindow, WindowAnswers, WindowFrames
from llava_video.monitor.rehearsal import Rehearsal, rehearse
from llava_video.monitor.rules import Rule
from llava_video.monitor.scene_settings import GateSettings
from llava_video.monitor.trace import WhyTrace, read_trace
from llava_video.monitor.watch import asker_of

SLACK_S = 8.0


class Encoder:
    """Counts the pictures that a vision tower would see, if it kept the last 64 by their pixels."""

    def __init__(self, ask: AskWindow) -> None:
        self._ask = ask
        self._kept: OrderedDict[bytes, None] = OrderedDict()
        self.num_made = 0

    def __call__(self, window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
        for picture in window.frames:
            key = picture.tobytes()
            self.num_made += key not in self._kept
            self._kept[key] = None
            self._kept.move_to_end(key)
            if len(self._kept) > 64:
                self._kept.popitem(last=False)
        return self._ask(window, rules)


def rehearsed(
    model: LlavaVideo, day: Day, camera: dict[str, object] | None = None, **more: object
) -> tuple[Rehearsal, Encoder]:
    settings = settings_of(**(camera or {}))
    encoder = Encoder(asker_of(oracle_of(model), settings).ask)
    made = rehearse(
        settings, encoder, clock=time.perf_counter, events=lambda *_: Played(day.frames()),
        starts_at_s=START_S, **more,
    )  # fmt: skip
    return made, encoder


def check(made: Rehearsal, encoder: Encoder, day: Day, least_saved: float) -> None:
    scores = made.scores(day.labels, SLACK_S)
    for rule in ("object", "count", "colour", "sign"):
        one = scores[rule]
        assert (one.precision, one.recall, one.repeats) == (1.0, 1.0, 0), rule
        assert one.most_delay_s is not None
        assert one.most_delay_s <= 8.0 + 2.0
    assert made.num_frames == day.seconds
    assert encoder.num_made <= (1 - least_saved) * day.seconds


def test_planted_events_are_all_told_and_nothing_else(tiny_model: LlavaVideo, tmp_path) -> None:
    day = Day(480, seed=3, every_s=30)
    assert {label.rule for label in day.labels} == {"object", "count", "colour", "sign"}
    assert 8 > least_contrast(20, GateSettings()) > 7.5  # the bars are just above what is stated
    with WhyTrace(tmp_path, most_bytes=2**24, most_files=2) as trace:
        made, encoder = rehearsed(tiny_model, day, trace=trace)
    check(made, encoder, day, 0.75)
    lines = list(read_trace(tmp_path))
    num_windows = sum(made.windows.values())
    assert len(lines) == 4 * num_windows  # every window and rule has its line
    assert sum(line["why"] == "raised" for line in lines) == len(made.alerts)
    assert made.windows["reused"] > made.windows["asked"]
    before = encoder.num_made
    points = made.curve(settings_of(), day.labels, SLACK_S, thresholds=(0.5, 1.0), needed=((1, 1),))
    assert encoder.num_made == before  # thresholds are tried without asking again
    assert set(points) == {"object", "count", "colour"}  # a text has no confidence
    assert [point.score.recall for point in points["object"]] == [1.0, 1.0]


def test_a_gate_that_is_too_coarse_would_be_noticed(tiny_model: LlavaVideo) -> None:
    day = Day(480, seed=3, every_s=30)
    made, _ = rehearsed(tiny_model, day, {"gate": {"threshold": 9.0}})
    total = made.scores(day.labels, SLACK_S)[""]
    assert total.recall is not None
    assert total.recall < 0.5


def test_a_missed_label_says_what_its_windows_came_to(tiny_model: LlavaVideo) -> None:
    day = Day(120, seed=1, every_s=400)
    made, _ = rehearsed(tiny_model, day)
    never = Label(start_s=80, end_s=90, rule="object")
    assert made.silence(never, 0.0) == "answered no, as before (100%), 4 times"
    beyond = Label(start_s=8000, end_s=9000, rule="object")
    assert made.silence(beyond, 0.0) == "no window"


@pytest.mark.slow
def test_two_hours_95_percent_static(tiny_model: LlavaVideo) -> None:
    day = Day(7200, seed=0)
    assert len(day.moving) + len(day.states) <= 0.05 * day.seconds
    made, encoder = rehearsed(tiny_model, day)
    check(made, encoder, day, 0.90)
