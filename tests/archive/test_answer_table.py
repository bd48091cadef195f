"""A table of answers: every answer in the line of its video and the column of its question."""

import csv
from pathlib import Path
from typing import Any

import archive_rows as made
import pytest

from llava_video.archive import answer_table
from llava_video.archive.answer_table import write_answer_table
from llava_video.archive.row import Asked, Row, make_row
from llava_video.archive.shards import seal
from llava_video.errors import ConfigError, SourceError


def typed_row(number: int, parsed: Any) -> Row:
    answer = made.description("text", parsed=parsed)
    asked = Asked(task="ask", prompts=("What?",))
    return make_row(made.unit(number), [answer], asked)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_line_a_video_and_a_column_a_question(tmp_path: Path) -> None:
    rows = [
        made.ask_row(0, {"Who?": 'A "dog",\nbig', "Where?": "Hier – 犬"}, address="a,b.mp4"),
        made.failed_row(1),
        made.ask_row(2, {"Where?": "There", "Own?": "yes"}, start_s=1.5),
        made.caption_row(3, "A yard."),
        made.timeline_row(4, [(0.0, 1.0, "not here")]),
    ]
    lines = table(write_answer_table(made.sealed_run(tmp_path, rows)))
    facts = ["number", "address", "start_s", "end_s", "status"]
    assert list(lines[0]) == [*facts, "Who?", "Where?", "Own?", "caption"]
    assert [line["Who?"] for line in lines] == ['A "dog",\nbig', "", "", "", ""]
    assert [line["Where?"] for line in lines] == ["Hier – 犬", "", "There", "", ""]
    assert [line["Own?"] for line in lines] == ["", "", "yes", "", ""]
    assert [line["caption"] for line in lines] == ["", "", "", "A yard.", ""]
    assert [line["status"] for line in lines] == ["done", "failed", "done", "done", "done"]
    assert (lines[0]["address"], lines[2]["start_s"]) == ("a,b.mp4", "1.5")


def test_typed_answers_have_their_fields(tmp_path: Path) -> None:
    parsed = [{"count": 3, "names": ["a", "é"]}, {"count": None}, True, "yes", 2.5]
    rows = [typed_row(number, value) for number, value in enumerate(parsed)]
    lines = table(write_answer_table(made.sealed_run(tmp_path, rows)))
    assert [line["What? count"] for line in lines] == ["3", "null", "", "", ""]
    assert lines[0]["What? names"] == '["a", "é"]'
    assert [line["What?"] for line in lines] == ["", "", "true", "yes", "2.5"]


def test_rows_that_end_meanwhile_wait_for_the_next_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = [[typed_row(0, "yes")], [typed_row(0, "yes"), typed_row(1, {"new": 1})]]
    monkeypatch.setattr(answer_table, "run_rows", lambda _: late.pop(0))
    path = write_answer_table(tmp_path)
    assert [line["number"] for line in table(path)] == ["0"]


def test_no_answers_and_no_room_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seal(tmp_path, 0, [made.failed_row(0)], first=0)
    with pytest.raises(ConfigError, match="holds no answers"):
        write_answer_table(tmp_path)
    seal(tmp_path, 1, [typed_row(1, "yes")], first=1)
    monkeypatch.setattr(answer_table, "TABLE", "nowhere/answers.csv")
    with pytest.raises(SourceError, match="cannot be written: No such file"):
        write_answer_table(tmp_path)
