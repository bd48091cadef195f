"""A trace has bounded files, survives a full disk, and says what was decided."""

import json
from pathlib import Path

import pytest
from monitor_cases import person, run, said

from llava_video.monitor.trace import WhyTrace, read_trace


def test_a_decision_is_a_line(tmp_path: Path) -> None:
    decision = run(person(), [said(100.0, warnings=("a\x1b[31mb",))])[1][0]
    with WhyTrace(tmp_path, most_bytes=4096, most_files=2) as trace:
        trace.decided(decision, 7, contents=3)
        trace.befell("gate", "lost", 101.0, "it went\naway")
    decided, befell = read_trace(tmp_path)
    assert decided["why"] == "raised"
    assert (decided["window"], decided["contents"], decided["confidence"]) == (7, 3, 0.9)
    assert decided["alert_id"] == decision.alert_id
    assert "\x1b" not in decided["warnings"][0]
    assert (befell["mark"], befell["at"]) == ("lost", "1970-01-01T00:01:41.000Z")
    assert "\n" not in befell["reason"]


def test_half_a_character_costs_itself_alone(tmp_path: Path) -> None:
    with WhyTrace(tmp_path, most_bytes=4096, most_files=2) as trace:
        trace.write({"value": "shop \ud83d", "camera": "gate"})
    assert list(read_trace(tmp_path)) == [{"value": "shop ?", "camera": "gate"}]
    assert trace.num_lost == 0


def test_files_are_bounded_and_the_newest_lines_stay(tmp_path: Path) -> None:
    with WhyTrace(tmp_path, most_bytes=5000, most_files=3) as trace:
        for number in range(1000):
            trace.write({"number": number})
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["why.1.jsonl", "why.2.jsonl", "why.jsonl"]
    assert all(path.stat().st_size <= 5000 for path in files)
    numbers = [line["number"] for line in read_trace(tmp_path)]
    assert numbers == list(range(numbers[0], 1000))
    assert 10_000 < sum(path.stat().st_size for path in files) <= 15_000


def test_a_trace_goes_on_where_it_was(tmp_path: Path) -> None:
    for number in range(3):
        with WhyTrace(tmp_path, most_bytes=4096, most_files=2) as trace:
            trace.write({"number": number})
    with (tmp_path / "why.jsonl").open("a") as file:
        file.write('{"number": 3, "cut')
    assert [line["number"] for line in read_trace(tmp_path)] == [0, 1, 2]
    assert json.loads((tmp_path / "why.jsonl").read_text().splitlines()[2]) == {"number": 2}


@pytest.mark.parametrize("half", [b'{"half":', '{"half": "gr\u00fc'.encode()[:-1]])
def test_half_a_line_takes_no_other_with_it(tmp_path: Path, half: bytes) -> None:
    (tmp_path / "why.jsonl").write_bytes(b'{"number": 0}\n' + half)
    with WhyTrace(tmp_path, most_bytes=4096, most_files=2) as trace:
        trace.write({"number": 1})
        trace.write({"number": 2})
    assert [line["number"] for line in read_trace(tmp_path)] == [0, 1, 2]
    lines = [b'{"number": 0}', half, b'{"number": 1}', b'{"number": 2}', b""]
    assert (tmp_path / "why.jsonl").read_bytes().split(b"\n") == lines


def test_half_a_line_makes_no_file_larger(tmp_path: Path) -> None:
    (tmp_path / "why.jsonl").write_bytes(b"x" * 40)
    with WhyTrace(tmp_path, most_bytes=54, most_files=2) as trace:
        trace.write({"number": 1})  # 14 bytes, and one for the end of the half line
    assert (tmp_path / "why.1.jsonl").read_bytes() == b"x" * 40
    assert (tmp_path / "why.jsonl").read_bytes() == b'{"number": 1}\n'


def test_a_folder_that_cannot_be_written_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    trace = WhyTrace(tmp_path / "gone", most_bytes=4096, most_files=2)
    trace.write({"number": 1})
    assert trace.num_lost == 1
    (tmp_path / "gone").mkdir()
    trace.write({"number": 2})
    trace.close()
    assert [line["number"] for line in read_trace(tmp_path / "gone")] == [2]
    assert trace.num_lost == 1
