"""Where nothing was answered for long, no alert holds: what comes after is another event."""

import pytest
from monitor_cases import person, run, said, whys

from llava_video.monitor.rules import Observation, alert_id, restored


def test_an_alert_that_held_before_a_long_silence_swallows_no_later_event() -> None:
    rule = person(forget_s=100.0)
    state, (first, held, second) = run(rule, [said(0), said(100), said(200.1)])
    assert [one.why for one in (first, held, second)] == ["raised", "holding", "raised"]
    assert held.alert_id == first.alert_id
    assert second.alert_id == alert_id("gate", "person", 2, 200.1)
    assert (state.raised, state.number) == (True, 2)
    back = restored(rule, run(rule, [said(0)])[0].to_json())
    assert run(rule, [said(100.1)], back)[1][0].signal == "raised"
    assert run(rule, [said(99)], back)[1][0].why == "holding"


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({}, said(100.1, "no")),
        ({}, said(100.1, confidence=0.1)),
        ({"cooldown_s": 300.0}, said(100.1)),
        ({"hits": 2}, said(100.1)),
    ],
)
def test_what_raises_no_alert_after_a_long_silence_tells_that_the_last_one_is_over(
    changes: dict[str, float], seen: Observation
) -> None:
    rule = person(forget_s=100.0, **changes)
    state, decisions = run(rule, [said(-1), said(0), seen])
    (over,) = (one for one in decisions if one.signal == "ended")
    assert (over, over.why) == (decisions[-1], "ended")
    assert over.alert_id == next(one.alert_id for one in decisions if one.signal == "raised")
    assert over.reason == "no answer for 100 s"
    assert not state.raised


def test_a_cooldown_goes_on_over_a_long_silence() -> None:
    rule = person(forget_s=100.0, cooldown_s=300.0)
    told = whys(rule, [said(0), said(101), said(200), said(299), said(300)])
    assert told == ["raised", "ended", "cooling down", "cooling down", "raised"]
