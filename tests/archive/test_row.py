"""A row holds everything about the end of a unit, and is the same for the same input."""

import json
from typing import Any

import archive_rows as made
import pytest
from jsonschema import Draft202012Validator

from llava_video.archive.row import (
    Asked,
    Maker,
    checked_row,
    content_of,
    duplicate_row,
    make_row,
    plain_text,
    read_row,
    to_line,
)
from llava_video.archive.row_schema import json_schema
from llava_video.errors import ConfigError
from llava_video.planning.plan_json import plan_from_json
from llava_video.timeline import Timeline
from llava_video.values import Segment

VALID = Draft202012Validator(json_schema())


def test_an_answer_is_there_with_all_that_judges_it() -> None:
    maker = Maker(worker="w1", attempts=2, revision="fa7e")
    asked = Asked(task="ask", prompts=("How many?",), options={"num_frames": 2, "seed": 5})
    answer = made.description("3", parsed=3, confidence=0.5, warnings=("dark.",))
    unit = made.unit(4, address="https://host.example/a%20b.mp4?key=1", start_s=1.5)
    row = make_row(unit, [answer], asked, maker)
    VALID.validate(row)
    assert (row["number"], row["key"], row["status"]) == (4, unit.key, "done")
    assert row["video"]["name"] == "a b.mp4"
    assert row["asked"]["options"] == {"num_frames": 2, "seed": 5}
    (told,) = row["answers"]
    assert (told["prompt"], told["text"], told["parsed"], told["confidence"]) == (
        "How many?",
        "3",
        3,
        0.5,
    )
    assert (told["start_s"], told["end_s"]) == (1.5, 4.0)
    assert (told["frame_idxs"], told["times_s"]) == ([0, 7], [0.0, 2.0])
    assert told["usage"] == {"text_tokens": 9, "visual_tokens": 12, "new_tokens": 5}
    assert told["warnings"] == ["dark."]
    assert row["provenance"] == {
        "model": "tiny",
        "revision": None,
        "weights": "fa7e",
        "seed": 0,
        "reader": "pyav",
        "reader_reason": "exact",
        "versions": {"python": "3.11"},
        "server": None,
    }
    assert row["timings"] == {"vision": 0.25, "total": 0.5}
    assert (row["run"]["worker"], row["run"]["attempts"], row["run"]["reused_tokens"]) == (
        "w1",
        2,
        3,
    )


def test_the_plan_in_a_row_is_the_plan() -> None:
    row = made.caption_row(0, "A dog.")
    assert plan_from_json(json.dumps(row["answers"][0]["plan"])) == made.plan()


@pytest.mark.parametrize(
    ("own_s", "option", "start_s"), [(None, None, 0.0), (None, "0:01.5", 1.5), (2.5, 1.5, 2.5)]
)
def test_an_answer_begins_where_it_was_asked_to(
    own_s: float | None, option: str | None, start_s: float
) -> None:
    asked = Asked(task="caption", options={"start": option})
    row = make_row(made.unit(0, start_s=own_s), [made.description("A dog.")], asked)
    assert (row["answers"][0]["start_s"], row["answers"][0]["end_s"]) == (start_s, 4.0)


def test_own_prompts_of_an_input_win() -> None:
    unit = made.unit(0, prompts=("Is it red?", "Is it blue?"))
    answers = [made.description("yes"), made.description("no")]
    row = make_row(unit, answers, Asked(task="ask", prompts=("What?",)))
    assert [one["prompt"] for one in row["answers"]] == ["Is it red?", "Is it blue?"]
    assert row["asked"]["prompts"] == ["Is it red?", "Is it blue?"]
    assert row["timings"]["total"] == 1.0
    with pytest.raises(ConfigError, match="2 answers to 1 prompts"):
        make_row(made.unit(0), answers, Asked(task="ask", prompts=("What?",)))


def test_a_timeline_has_its_windows_as_answers() -> None:
    row = made.timeline_row(1, [(0.0, 30.0, "A dog."), (30.0, 47.5, "A cat.")])
    VALID.validate(row)
    spans = [(one["start_s"], one["end_s"], one["text"]) for one in row["answers"]]
    assert spans == [(0.0, 30.0, "A dog."), (30.0, 47.5, "A cat.")]
    assert row["summary"] == "A dog. A cat."
    empty = Timeline(captions=(), summary="", coverage=(Segment(0, 1),))
    with pytest.raises(ConfigError, match="no row that is done"):
        make_row(made.unit(0), empty, Asked(task="timeline"))


@pytest.mark.parametrize("quarantined", [False, True])
def test_an_error_is_a_row_with_its_class_place_and_attempts(quarantined: bool) -> None:
    row = made.failed_row(2, quarantined=quarantined)
    VALID.validate(row)
    assert row["status"] == ("quarantined" if quarantined else "failed")
    assert row["error"] == {
        "kind": "DecodeError",
        "message": "frame 7 cannot be decoded.",
        "hint": "mend the file.",
        "position_s": 0.25,
    }
    assert row["run"]["attempts"] == 3
    assert (row["provenance"]["model"], row["provenance"]["weights"]) == ("tiny", "fa7e")
    assert row["answers"] == []


def test_a_second_input_of_the_same_work_names_the_first() -> None:
    row = duplicate_row(made.unit(9), 4, Asked(task="caption"))
    VALID.validate(row)
    assert (row["status"], row["duplicate_of"]) == ("duplicate", 4)


def test_only_times_and_machines_differ_between_two_runs() -> None:
    slow = made.description("A dog.", timings={"total": 9.0})
    one = made.caption_row(0, "A dog.")
    other = make_row(made.unit(0), [slow], Asked(task="caption"), Maker(worker="w7", attempts=2))
    assert to_line(one) != to_line(other)
    assert to_line(content_of(one)) == to_line(content_of(other))
    assert content_of(one) != content_of(made.caption_row(0, "A cat."))


@pytest.mark.parametrize(
    "text", ["Ein Hund – 犬.\n\nZwei.", 'quotes " and \\', "\u2028 \x00 \x85", "x\udce9.mp4"]
)
def test_a_line_reads_back_equal_whatever_it_says(text: str) -> None:
    row = made.caption_row(0, text, address=text)
    line = to_line(row)
    assert line.count(b"\n") == 1
    line.decode("utf-8")
    assert read_row(line) == row


def test_text_that_is_no_utf8_is_shown_escaped() -> None:
    assert plain_text("x\udce9") == "x\\udce9"


def test_what_is_no_row_of_this_version_is_refused() -> None:
    row: dict[str, Any] = made.caption_row(0, "A dog.")
    with pytest.raises(ConfigError, match="x is no row: it names no schema"):
        read_row(b"{}", "x")
    with pytest.raises(ConfigError, match="is no row: "):
        read_row(b'{"schema": 1, ')
    with pytest.raises(ConfigError, match="schema 2, this library reads 1"):
        read_row(to_line(row | {"schema": 2}))
    del row["answers"], row["run"]
    with pytest.raises(ConfigError, match="lacks answers, run"):
        checked_row(row, "x")
