"""Nothing is asked twice while nothing changes; whatever happens, each rule has a decision."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from watch_jobs import START_S, failing, job_of

from llava_video.errors import CapacityError
from llava_video.monitor.alerts import AlertDesk
from llava_video.monitor.feed import CameraFeed
from llava_video.monitor.judge import Judge, Judged, frames_of
from llava_video.monitor.questions import WindowAnswers, WindowFrames
from llava_video.monitor.rules import Observation, Rule
from llava_video.monitor.settings import WatchSettings, rules_of
from llava_video.monitor.spool import Spool
from llava_video.monitor.trace import WhyTrace, read_trace
from llava_video.video.stream_events import StreamFrame


def settings(**more: Any) -> WatchSettings:
    camera = {"name": "gate", "address": "gate.mp4", **more.pop("camera", {})}
    rules = [
        {"name": "person", "question": "Is there a person?", "cooldown_s": 0, "refresh_s": 20},
        {"name": "car", "question": "Is there a car?", "cooldown_s": 0, "refresh_s": 40, **more},
    ]
    return rules_of({"cameras": [camera], "rules": rules})


class Asked:
    """Says no, and keeps what it was asked."""

    def __init__(self, says: Any = "no", warnings: tuple[str, ...] = ()) -> None:
        self.says, self.rules, self.warnings = says, list[list[str]](), warnings

    def __call__(self, window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
        self.rules.append([rule.name for rule in rules])
        if isinstance(self.says, Exception):
            raise self.says
        seen = {
            rule.name: Observation(
                start_s=window.start_s,
                at_s=window.end_s,
                value=self.says,
                confidence=0.9,
                warnings=self.warnings,
            )
            for rule in rules
        }
        return WindowAnswers(observations=seen, num_asked=len(rules), reused_tokens=5, seconds={})


def judge_of(ask: Asked, made: WatchSettings | None = None, **more: Any) -> Judge:
    return Judge(made or settings(), ask, clock=lambda: 0.0, **more)


def whys(judged: Judged) -> list[str]:
    return [str(decision.why) for decision in judged.decisions]


def test_what_does_not_change_is_asked_once_until_it_is_too_old() -> None:
    ask = Asked()
    judge = judge_of(ask)
    kinds = [judge.judge(job_of(number, contents=(1,))).kind for number in range(12)]
    # Windows are 4 s apart: a person is due again after 20 s, a car after 40.
    both, person = ["person", "car"], ["person"]
    assert ask.rules == [both, person, both]
    assert kinds == ["asked", *["reused"] * 4, "asked", *["reused"] * 4, "asked", "reused"]


def test_reused_answers_say_of_when_they_are() -> None:
    judge = judge_of(Asked())
    first, second = (judge.judge(job_of(number, contents=(1,))) for number in range(2))
    assert whys(first) == ["answered no"] * 2
    assert whys(second) == ["reused"] * 2
    assert second.seen["person"].reused_from_s == first.at_s
    assert (first.num_asked, second.num_asked) == (2, 0)


def test_what_changed_is_asked_and_what_has_come_to_rest_once_more() -> None:
    ask = Asked()
    judge = judge_of(ask)
    shown = [(1,), (1, 2), (2,), (2,), (3,)]
    kinds = [judge.judge(job_of(n, contents=one)).kind for n, one in enumerate(shown)]
    assert kinds == ["asked", "asked", "asked", "reused", "asked"]


def test_reuse_can_be_off() -> None:
    ask = Asked()
    judge = judge_of(ask, settings(camera={"reuse": False}))
    for number in range(3):
        judge.judge(job_of(number, contents=(1,)))
    assert len(ask.rules) == 3


def small_object(second: int, since: int, noise: np.random.Generator | None = None) -> StreamFrame:
    """Draw a frame with an object of 3 x 3 px and 120 levels, which the gate sees from 171 on."""
    picture = np.full((64, 64, 3), 8, np.uint8)
    if noise is not None:
        picture += noise.integers(0, 3, picture.shape, np.uint8)
    if second >= since:
        picture[20:23, 20:23] = 128
    return StreamFrame(idx=second, picture=picture, pts_s=float(second), wall_s=START_S + second)


class Looks(Asked):
    """Says whether something bright is there, and keeps the pictures it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[np.ndarray] = []

    def __call__(self, window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
        self.shown.append(window.frames)
        self.says = "yes" if window.frames.max() > 100 else "no"
        return super().__call__(window, rules)


def alerts_of(judge: Judge, feed: CameraFeed, frames: Sequence[StreamFrame]) -> list[float]:
    """Return when alerts were raised, on the frames' clock."""
    judged = [judge.judge(job) for frame in frames for job in feed.take(frame)]
    signals = (
        (one.at_s - START_S, decision.signal) for one in judged for decision in one.decisions
    )
    return sorted({at_s for at_s, signal in signals if signal == "raised"})


def test_a_refresh_sees_what_lies_under_the_gates_threshold() -> None:
    ask, made = Looks(), settings()
    (camera,) = made.cameras
    feed = CameraFeed(camera)
    raised = alerts_of(judge_of(ask, made), feed, [small_object(n, 10) for n in range(100)])
    assert feed.num_new == 1  # the gate sees nothing of it
    # The answer of the first window, which ended at 8 s, is refreshed after 20 s by one rule.
    assert raised[0] == 28 <= 10 + 20 + camera.window_s + camera.step_s
    assert ask.rules[:2] == [["person", "car"], ["person"]]
    assert 100 / 20 <= len(ask.shown) <= 100 / 20 + 1  # what does not change is reused as before


def test_a_rule_that_comes_due_sees_frames_as_they_came() -> None:
    # The windows are of 2025-06-15, from 15:06:40 UTC on: a car is looked for from 15:08 on.
    ask, made = Looks(), settings(schedule=[{"start": "15:08", "end": "16:00"}])
    feed = CameraFeed(made.cameras[0])
    judge, car = judge_of(ask, made), list[str]()
    for second in range(100):
        for job in feed.take(small_object(second, 10)):
            car.append(str(judge.judge(job).decisions[1].why))
    assert car[17:19] == ["outside its schedule", "raised"]


def test_a_change_long_after_the_last_answer_is_asked_of_frames_as_they_came() -> None:
    ask, came = Looks(), [np.full((16, 16, 3), 200, np.uint8)]
    judge = judge_of(ask)
    for number in (0, 1, 7, 8):  # 4 s apart; what a person did is known for 20 s
        judge.judge(replace(job_of(number), frames=came))
    assert [int(shown.max()) for shown in ask.shown] == [200, 100, 200, 100]


def test_without_reuse_the_first_window_with_something_small_has_it() -> None:
    ask, made = Looks(), settings(camera={"reuse": False})
    feed = CameraFeed(made.cameras[0])
    raised = alerts_of(judge_of(ask, made), feed, [small_object(n, 10) for n in range(40)])
    assert raised == [12]  # the window from 4 s to 12 s


def test_a_window_that_changed_shows_equal_pixels_where_nothing_is_new() -> None:
    ask, made, noise = Looks(), settings(), np.random.default_rng(3)
    feed = CameraFeed(made.cameras[0])
    judge, frames = judge_of(ask, made), [small_object(n, 999, noise) for n in range(40)]
    for frame in frames[14:]:
        frame.picture[40:60, 40:60] = 90  # large enough to be seen
    alerts_of(judge, feed, frames)
    distinct = [len({one.tobytes() for one in shown}) for shown in ask.shown]
    # The first window, two with the change, one at rest, and a refresh after 20 s.
    assert distinct == [8, 2, 2, 1]


def test_that_all_frames_are_the_same_is_no_news_where_the_gate_made_them_so() -> None:
    judge = judge_of(Asked("no", ("All 8 frames show the same picture.", "It is dark.")))
    first, changed = (judge.judge(job_of(number, contents=(number,))) for number in range(2))
    assert [len(one.seen["person"].warnings) for one in (first, changed)] == [2, 1]
    assert changed.decisions[0].warnings == ("It is dark.",)


def test_frames_are_those_that_came_unless_the_gates_are_asked_for() -> None:
    feed = CameraFeed(settings().cameras[0])
    (job,) = [job for n in range(9) for job in feed.take(small_object(n, 4))]
    assert [int(one.max()) for one in frames_of(job).frames] == [8] * 4 + [128] * 4
    assert frames_of(job, is_gated=True).frames.max() == 8


@pytest.mark.parametrize(
    ("error", "reason"),
    [(CapacityError("no room.", "less"), "no room."), (ValueError("secret"), "ValueError")],
)
def test_a_window_that_fails_is_told_and_asked_again(error, reason: str) -> None:
    ask = Asked(error)
    judge = judge_of(ask)
    judged = judge.judge(job_of(0, contents=(1,)))
    assert judged.kind == "failed"
    assert whys(judged) == ["failed", "failed"]
    assert reason in judged.decisions[0].reason
    assert "secret" not in judged.decisions[0].reason
    ask.says = "no"
    assert judge.judge(job_of(1, contents=(1,))).kind == "asked"


def test_a_window_none_of_whose_questions_has_an_answer_failed() -> None:
    reasons = {"person": "no server\nat 10.0.0.7", "car": "no server at 10.0.0.7"}
    judge = failing(settings(), reasons)
    judged = judge.judge(job_of(0, contents=(1,)))
    assert (judged.kind, judged.num_asked) == ("failed", 2)
    assert judged.failures == ("no server at 10.0.0.7",)
    del reasons["person"]
    judged = judge.judge(job_of(1, contents=(1,)))
    assert (judged.kind, judged.failures) == ("asked", ("no server at 10.0.0.7",))
    # The person's answer is used again, and of what was due nothing is answered.
    judged = judge.judge(job_of(2, contents=(1,)))
    assert (judged.kind, whys(judged)) == ("failed", ["reused", "failed"])


def test_a_dropped_window_is_a_decision_too(tmp_path: Path) -> None:
    with WhyTrace(tmp_path, most_bytes=4096, most_files=1) as trace:
        judged = judge_of(Asked(), trace=trace).drop(job_of(0), "the model was busy")
    assert (judged.kind, whys(judged)) == ("dropped", ["dropped", "dropped"])
    assert [line["reason"] for line in read_trace(tmp_path)] == ["the model was busy"] * 2


def test_outside_its_schedule_nothing_is_asked() -> None:
    ask = Asked()
    # The windows are of 2025-06-15, a Sunday.
    judge = judge_of(ask, settings(schedule=[{"days": ["mon"]}]))
    judged = judge.judge(job_of(0))
    assert ask.rules == [["person"]]
    assert whys(judged) == ["answered no", "outside its schedule"]


def test_alerts_and_states_go_to_the_desk_and_a_restart_goes_on(tmp_path: Path) -> None:
    made = settings()
    with Spool(tmp_path) as spool:
        desk = AlertDesk(spool, made)
        judge = judge_of(Asked("yes"), made, desk=desk)
        judged = judge.judge(job_of(0))
        assert [message.kind for message in judged.told] == ["alert", "alert"]
        desk.tend()
        again = judge_of(Asked("yes"), made, desk=AlertDesk(spool, made))
        judged = again.judge(job_of(1))
    assert whys(judged) == ["holding", "holding"]
    assert judged.told == ()
