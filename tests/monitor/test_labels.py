"""Labels are read in order of time, and wrong lines are told by their numbers."""

from pathlib import Path

import pytest

from llava_video.errors import ConfigError
from llava_video.monitor.labels import Label, read_labels


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "day.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_labels_come_in_order_of_time(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "\N{BOM}camera,start, end,rule\ngate,01:00:00.5,01:00:10,person\n,12.5,30,\"a, b\"\n"
        "yard,1:30,2:00,person\n",
    )  # fmt: skip
    assert read_labels(path) == [
        Label(start_s=12.5, end_s=30, rule="a, b"),
        Label(start_s=90, end_s=120, rule="person", camera="yard"),
        Label(start_s=3600.5, end_s=3610, rule="person", camera="gate"),
    ]


def test_no_labels_are_no_labels(tmp_path: Path) -> None:
    assert read_labels(write(tmp_path, "start,end,rule\n")) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns none"),
        ("start,end\n1,2\n", "needed: start, end, rule"),
        ("start,end,rule,why\n1,2,a,b\n", "columns start, end, rule, why"),
        ("start,end,rule\n1,2,a\n5,4,a\n", "line 3: start = 5 s, end = 4 s"),
        ("start,end,rule\n-1,2,a\n", "line 2: '-1' is not a time"),
        ("start,end,rule\nx,2,a\n", "line 2: 'x'"),
        ("start,end,rule\nnan,2,a\n", "line 2: 'nan'"),
        ("start,end,rule\n1,2\n", "line 2: '' is no rule"),
        ("start,end,rule\n1,2,a,b\n", "line 2: more values"),
        ("start,end,rule,camera\n1,2,a,c\n", "line 2: 'c' is no camera"),
        ("start,end,rule\n1,2,b\n", "line 2: 'b' is no rule"),
        ("start,end,rule\n" + "x,2,a\n" * 13, "line 11: .* and 3 more"),
        ('start,end,rule\n1,2,"a\n', "cannot be read"),
    ],
)
def test_wrong_lines_are_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_labels(write(tmp_path, text), rules=["a"], cameras=["gate"])


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_labels(tmp_path / "none.csv")
    (tmp_path / "day.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_labels(tmp_path / "day.csv")
