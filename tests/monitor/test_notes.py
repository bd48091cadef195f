"""What a person is told of windows beside alerts: each reason and each warning once."""

from dataclasses import replace

from monitor_cases import person, run, said
from watch_jobs import failing, job_of

from llava_video.monitor.judge import Judged
from llava_video.monitor.notes import FailureNotes, WarningNotes, WindowNotes
from llava_video.monitor.settings import rules_of

SETTINGS = rules_of(
    {
        "cameras": [{"name": "gate", "address": "gate.mp4"}],
        "rules": [
            {"name": "person", "question": "Is there a person?", "cooldown_s": 0},
            {"name": "car", "question": "Is there a car?", "cooldown_s": 0},
        ],
    }
)


def warned(*warnings: str, camera: str = "gate") -> Judged:
    """Return a window whose answer has warnings."""
    seen = said(10.0, "no", warnings=warnings)
    (decision,) = run(person(), [seen])[1]
    return Judged(
        camera=camera, window_idx=0, at_s=10.0, kind="asked", seen={"person": seen},
        decisions=(decision, decision),
    )  # fmt: skip


def test_failures_are_told_once_by_camera_and_reason_and_so_is_their_end() -> None:
    notes = FailureNotes()
    reasons = {"person": "no server.", "car": "no server."}
    judge = failing(SETTINGS, reasons)

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


def test_warnings_are_told_once_by_camera_whatever_their_numbers() -> None:
    notes = WarningNotes()
    assert notes.of(warned()) == []
    assert notes.of(warned("3 of 8 frames.", "It is\x1b[31m new.")) == [
        "3 of 8 frames.", "It is [31m new.",
    ]  # fmt: skip
    assert notes.of(warned("7 of 8 frames.")) == []
    assert notes.of(warned("3 of 8 frames.", camera="yard")) == ["3 of 8 frames."]
    assert notes.told() == [
        ("gate", "3 of 8 frames. (2 windows)"),
        ("gate", "It is [31m new. (1 window)"),
        ("yard", "3 of 8 frames. (1 window)"),
    ]


def test_warnings_that_never_come_twice_are_counted_and_kept_by_nobody() -> None:
    notes = WarningNotes()
    new = [notes.of(warned(f"the sign says {'x' * number}")) for number in range(1, 30)]
    assert [len(one) for one in new] == [1] * 8 + [0] * 21
    assert len(notes.told()) == 9
    assert notes.told()[-1] == ("gate", "other warnings of 21 windows stand in the trace.")
    assert notes.of(warned("the sign says x")) == []  # those that are known are counted on
    assert notes.told()[0] == ("gate", "the sign says x (2 windows)")


def test_a_warning_that_is_the_reason_of_a_failure_is_told_as_that() -> None:
    words = "the answer repeated itself and was stopped."
    judged = warned(words)
    failed = replace(judged.seen["person"], kind="failed", reason=words)
    judged = replace(judged, kind="failed", seen={"person": failed})
    notes = WindowNotes()
    assert notes.of(judged) == [f"no answer: {words}"]
    assert notes.of(warned(words, "dark.")) == ["every question is answered again.", words, "dark."]
