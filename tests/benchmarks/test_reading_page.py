"""docs/reading.md says what the kept rows say, and what was not measured says so."""

import json
from pathlib import Path

import pytest
import reading_page

PAGE = reading_page.PAGE.read_text(encoding="utf-8")
FACTS = {"device": "a CPU", "python": "3.11", "commit": "0123456789ab", "dirty": False}


def test_the_pages_tables_are_up_to_date():
    assert reading_page.rewritten(PAGE) == PAGE, "run: python benchmarks/reading_page.py --write"


def test_a_mark_that_is_missing_is_an_error():
    with pytest.raises(ValueError, match="'decoding'"):
        reading_page.rewritten(PAGE.replace("<!-- decoding -->\n", ""))


def test_the_newest_row_that_was_no_trial_is_shown(tmp_path: Path):
    def row(ratio: float, *, check: bool = False) -> str:
        case = {"case": "64 of an hour", "ratio": ratio, "all_ratio": 20.0}
        return json.dumps({"cases": [case], "check": check, **FACTS})

    rows = [row(1.5), row(4.25), row(9.0, check=True)]
    (tmp_path / "decoding.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    page = reading_page.rewritten(PAGE, tmp_path)
    assert "| 64 of an hour | 4.25 | 20.00 |  |  | 0123456789ab |" in page
    assert "On a CPU, Python 3.11, commit 0123456789ab." in page
    assert page.count("not measured yet") == len(reading_page.TABLES) - 1


def test_what_a_reader_gets_wrong_is_told():
    exact = {"exact": True, "ms": 1.0, "auto_ratio": 1.0}
    readers = [
        ({"exact": True, "ms": 2.0, "auto_ratio": 1.5}, "| exact | 1.50 |"),
        ({"exact": False, "error": "no"}, "| cannot open it | – |"),
        (
            {"exact": False, "num_wrong_frames": 1200, "num_wrong_times": 3},
            "| 1,200 wrong frames, 3 wrong times | – |",
        ),
        (
            {"exact": False, "num_wrong_frames": 0, "num_wrong_times": 0},
            "| other pixels | – |",
        ),
    ]
    kinds = [{"kind": "a", "readers": {"auto": exact, "decord": one}} for one, _ in readers]
    lines = list(reading_page.reader_lines([{"kinds": kinds}]))[2:]
    for line, (_, words) in zip(lines, readers, strict=True):
        assert line.endswith(f"| exact {words}")
