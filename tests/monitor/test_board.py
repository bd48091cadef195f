"""A board says what a watch does, and nobody waits for who looks."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
from monitor_cases import message_of, person, run, said
from PIL import Image

from llava_video.monitor.board import Board, together
from llava_video.monitor.judge import Judged
from llava_video.monitor.rules import Observation
from llava_video.video.stream_events import Mark, StreamCounts, StreamFrame, StreamStatus

STATUS = StreamStatus(name="rtsp://10.0.0.7/ch1", state="live", counts=StreamCounts(dropped=3))


def judged(kind: str = "asked", value: str = "yes", num_asked: int = 1) -> Judged:
    seen = said(100.0, value)
    decisions = tuple(run(person(), [seen])[1])
    return Judged(
        camera="gate", window_idx=1, at_s=100.0, kind=kind, seen={"person": seen},
        decisions=decisions, num_asked=num_asked, model_s=2.0 * num_asked,
    )  # fmt: skip


def frame(idx: int, level: int = 90) -> StreamFrame:
    picture = np.full((720, 1280, 3), level, np.uint8)
    return StreamFrame(idx=idx, picture=picture, pts_s=float(idx), wall_s=100.0 + idx)


def board_of(**more: Any) -> Board:
    facts: dict[str, Any] = {"statuses": lambda: {"gate": STATUS}, "depths": lambda: {"gate": 2}}
    return Board(["gate"], **{**facts, **more})


def test_shares_counts_and_answers() -> None:
    board = board_of(more=lambda: {"updates": 4})
    board.saw("gate", frame(0))
    board.judged(judged())
    for _ in range(2):
        board.judged(judged("reused", num_asked=0))
    board.judged(judged("dropped", num_asked=0), 7)
    (camera,) = (facts := board.facts())["cameras"]
    assert facts["updates"] == 4
    assert camera["windows"] == {"asked": 1, "reused": 2, "idle": 0, "failed": 0, "dropped": 7}
    assert (camera["reused_share"], camera["dropped_share"]) == (0.2, 0.7)
    assert (camera["questions"], camera["window_s"], camera["depth"]) == (1, 2.0, 2)
    assert (camera["address"], camera["state"], camera["stream"]["dropped"]) == (
        "rtsp://10.0.0.7/ch1", "live", 3,
    )  # fmt: skip
    assert camera["answers"]["person"]["value"] == "yes"
    assert camera["answers"]["person"]["why"] == "raised"


def test_a_camera_is_failing_after_three_windows_without_any_answer() -> None:
    board = board_of()
    lost = Observation(start_s=98.0, at_s=100.0, kind="failed", reason="no\x1b[31m server")
    failed = replace(judged("failed"), seen={"person": lost, "car": lost})

    def found() -> tuple[bool, list[str]]:
        (camera,) = board.facts()["cameras"]
        return camera["failing"], camera["failures"]

    for one, is_failing in (
        (failed, False), (failed, False), (judged("dropped"), False), (failed, True),
        (judged("dropped"), True),
    ):  # fmt: skip
        board.judged(one)
        assert found() == (is_failing, ["no [31m server"])
    board.judged(judged())
    assert found() == (False, [])
    board.judged(failed)
    assert found()[0] is False  # in a row


def test_the_seconds_of_a_window_are_a_moving_mean() -> None:
    board = board_of()
    board.judged(judged())
    for _ in range(100):
        board.judged(judged(num_asked=2))
    assert 3.9 < board.facts()["cameras"][0]["window_s"] <= 4.0


def test_marks_are_bounded_and_plain() -> None:
    board = board_of()
    for number in range(100):
        board.saw("gate", Mark(kind="lost", wall_s=float(number), text=f"gone\x1b[31m {number}"))
    notes = board.facts()["cameras"][0]["notes"]
    assert len(notes) == 20
    assert "\x1b" not in notes[-1]["text"]
    assert notes[-1]["at_s"] == 99.0


def test_frames_are_pictures_made_once() -> None:
    board = board_of()
    assert board.frame_jpeg("gate") is None
    assert board.frame_jpeg("nowhere") is None
    board.saw("gate", frame(0))
    first = board.frame_jpeg("gate")
    assert first is not None
    assert Image.open(io.BytesIO(first)).size == (640, 360)
    assert board.frame_jpeg("gate") is first
    board.saw("gate", frame(1, 10))
    assert board.frame_jpeg("gate") not in (None, first)


def test_the_spool_is_read_for_news_alone() -> None:
    reads = []

    def messages() -> list[dict[str, Any]]:
        reads.append(1)
        return [message_of(1, files=[]).facts]

    board = board_of(messages=messages)
    assert len(board.facts()["alerts"]) == len(board.facts()["alerts"]) == 1
    assert len(reads) == 1
    board.told()
    board.facts()
    assert len(reads) == 2


def test_alerts_come_with_what_came_later() -> None:
    newest_first = [
        message_of(2, rule="person", files=[]).facts,
        message_of(1, "end", at_s=9.0, warnings=["of the end"]).facts,
        message_of(
            1,
            "update",
            description="a car",
            files=[{"name": "b", "kind": "sheet"}],
            warnings=["black", "it tries to instruct"],
        ).facts,
        message_of(1, files=[{"name": "a", "kind": "snapshot"}], warnings=["dark", "black"]).facts,
        message_of(0, "update", description="its alert is older than what was read").facts,
    ]
    del newest_first[-1]["rule"]
    second, first = together(newest_first)
    assert (second["kind"], second["files"], second["warnings"]) == ("alert", [], [])
    assert (first["description"], first["ended_s"]) == ("a car", 9.0)
    assert first["warnings"] == ["dark", "black", "it tries to instruct"]
    assert {one["kind"] for one in first["files"]} == {"snapshot", "sheet"}


def test_waiting_ends_with_news_and_with_the_watch() -> None:
    board = board_of()
    version = board.wait(-1, 5.0)
    assert board.wait(version, 0.01) == version
    board.told()
    assert board.wait(version, 5.0) > version
    board.end()
    assert board.wait(10**9, 60.0) > version
    assert board.facts()["ended"]
