"""Nothing is asked twice while nothing changes; whatever happens, each rule has a decision."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from watch_jobs import job_of

from llava_video.errors import CapacityError
from llava_video.monitor.alerts import AlertDesk
from llava_video.monitor.judge import FailureNotes, Judge, Judged
from llava_video.monitor.questions import WindowAnswers, WindowFrames
from llava_video.monitor.rules import Observation, Rule
from llava_video.monitor.settings import WatchSettings, rules_of
from llava_video.monitor.spool import Spool
from llava_video.monitor.trace import WhyTrace, read_trace


def settings(**more: Any) -> WatchSettings:
    camera = {"name": "gate", "address": "gate.mp4", **more.pop("camera", {})}
    rules = [
        {"name": "person", "question": "Is there a person?", "cooldown_s": 0, "refresh_s": 20},
        {"name": "car", "question": "Is there a car?", "cooldown_s": 0, "refresh_s": 40, **more},
    ]
    return rules_of({"cameras": [camera], "rules": rules})


class Asked:
    """Says no, and keeps what it was asked."""

    def __init__(self, says: Any = "no") -> None:
        self.says, self.rules = says, list[list[str]]()

    def __call__(self, window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
        self.rules.append([rule.name for rule in rules])
        if isinstance(self.says, Exception):
            raise self.says
        seen = {
            rule.name: Observation(
                start_s=window.start_s, at_s=window.end_s, value=self.says, confidence=0.9
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


def failing(reasons: dict[str, str]) -> Judge:
    """Return one whose questions fail one by one, as those of a server that is down."""

    def ask(window: WindowFrames, rules: Sequence[Rule]) -> WindowAnswers:
        given = {"start_s": window.start_s, "at_s": window.end_s}
        seen = {
            rule.name: Observation(**given, kind="failed", reason=reasons[rule.name])
            if rule.name in reasons
            else Observation(**given, value="no", confidence=0.9)
            for rule in rules
        }
        return WindowAnswers(observations=seen, num_asked=len(rules), reused_tokens=0, seconds={})

    return Judge(settings(), ask, clock=lambda: 0.0)


def test_a_window_none_of_whose_questions_has_an_answer_failed() -> None:
    reasons = {"person": "no server\nat 10.0.0.7", "car": "no server at 10.0.0.7"}
    judge = failing(reasons)
    judged = judge.judge(job_of(0, contents=(1,)))
    assert (judged.kind, judged.num_asked) == ("failed", 2)
    assert judged.failures == ("no server at 10.0.0.7",)
    del reasons["person"]
    judged = judge.judge(job_of(1, contents=(1,)))
    assert (judged.kind, judged.failures) == ("asked", ("no server at 10.0.0.7",))
    # The person's answer is used again, and of what was due nothing is answered.
    judged = judge.judge(job_of(2, contents=(1,)))
    assert (judged.kind, whys(judged)) == ("failed", ["reused", "failed"])


def test_failures_are_told_once_by_camera_and_reason_and_so_is_their_end() -> None:
    notes = FailureNotes()
    reasons = {"person": "no server.", "car": "no server."}
    judge = failing(reasons)

    def told(number: int) -> list[str]:
        return notes.of(judge.judge(job_of(number)))

    assert [told(number) for number in range(3)] == [["no answer: no server."], [], []]
    yard = replace(judge.judge(job_of(3)), camera="yard")
    assert notes.of(yard) == ["no answer: no server."]
    reasons["car"] = "too long."
    assert [told(4), told(5)] == [["no answer: too long."], []]
    del reasons["person"]
    assert told(6) == []  # one of two is answered
    reasons.clear()
    assert notes.of(judge.drop(job_of(7), "the model was busy")) == []
    assert [told(8), told(9)] == [["every question is answered again."], []]
    reasons["car"] = "no server."
    assert told(10) == ["no answer: no server."]
    found = []
    for number in range(11, 40):
        reasons["car"] = f"request {number}."
        found += told(number)
    assert len(found) == 7  # reasons that never come twice are not told for ever


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
