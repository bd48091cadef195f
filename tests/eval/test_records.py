"""Records survive a file, a torn line and each other."""

import json
from pathlib import Path

import pytest

from llava_video.errors import ConfigError, DecodeError, SourceError
from llava_video.eval.records import Failure, Judged, Record, RecordFile, Shown, read_records

SHOWN = Shown(
    kind="video",
    num_frames=4,
    num_tokens=24,
    height_px=96,
    width_px=128,
    first_s=0.0,
    last_s=1.3,
)


def record(name: str = "a", **facts) -> Record:
    base = {"id": name, "cluster": "v", "view": "video", "run": "r1", "example": "e1"}
    return Record(**{**base, **facts})


def full() -> Record:
    return record(
        groups={"type": "when"},
        prompt="When\u2028?\n",  # a separator that is no line break of JSON
        choices=("1", "2"),
        answer=1.5,
        given="1.4 s",
        correct=True,
        confidence=0.75,
        judged=Judged(correct=None, score=50.0, reasons="hm"),
        shown=(SHOWN,),
        warnings=("dark",),
    )


def test_a_record_comes_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "deep/records.jsonl"
    failed = record("b", answer=True, failure=Failure.of(SourceError("gone.", "look.")))
    with RecordFile(path) as file:
        file.add(full())
        file.add(failed)
    assert list(read_records(path)) == [full(), failed]
    assert path.read_bytes().count(b"\n") == 2
    assert (full().num_frames, full().visual_tokens) == (4, 24)
    assert set(RecordFile(path).records) == {full().key, failed.key}


def test_a_failure_says_what_happened() -> None:
    lost = Failure.of(DecodeError("torn at 3 s.", "fetch it.", 3.0))
    assert lost == Failure(kind="DecodeError", message="torn at 3 s.", hint="fetch it.")
    assert Failure.of(ZeroDivisionError("division by zero")).message == "division by zero"
    assert Failure.of(AssertionError()) == Failure(
        kind="AssertionError", message="AssertionError()"
    )


def test_a_torn_line_is_left_out_and_taken_off(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with RecordFile(path) as file:
        file.add(record("a"))
        file.add(record("b"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])  # killed in the middle of the second line
    with RecordFile(path) as file:
        assert [r.id for r in file.records.values()] == ["a"]
        file.add(record("c"))
    assert [r.id for r in read_records(path)] == ["a", "c"]


def test_the_last_record_of_an_example_counts(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with RecordFile(path) as file:
        file.add(record(given="first"))
        file.add(record(given="second"))
        file.add(record(given="other question", example="e2"))
        file.add(record(given="other run", run="r2"))
        file.add(record(given="noise", view="noise"))
    found = RecordFile(path).records
    assert len(found) == 4
    assert found[record().key].given == "second"


@pytest.mark.parametrize(
    "line", ["text", "[1]", json.dumps({"id": "a"}), json.dumps({"id": 1, "other": 2})]
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(record().to_line() + line + "\n")
    with pytest.raises(ConfigError, match=r"records\.jsonl, line 2 is no record"):
        RecordFile(path)
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        list(read_records(tmp_path / "binary"))


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    with RecordFile(None) as file:
        file.add(record())
    assert list(file.records) == [record().key]
    assert list(tmp_path.iterdir()) == []
