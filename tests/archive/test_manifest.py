"""A line of a list is an entry, or a problem that names the line and does not hide the others."""

import json
from pathlib import Path

import pytest

from llava_video.archive.manifest import Entry, Problem, read_manifest


def entries(path: Path, **options: object) -> list[Entry]:
    found = list(read_manifest(path, **options))
    assert not [entry for entry in found if isinstance(entry, Problem)], found
    return found


def problems(path: Path, **options: object) -> list[str]:
    return [one.text for one in read_manifest(path, **options) if isinstance(one, Problem)]


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_text_is_an_address_a_line(tmp_path: Path) -> None:
    path = written(tmp_path / "list.txt", "\ufeffa.mp4\n  b c.mp4 \n# no\n\n/abs.mp4\ns3://b/c.mp4")
    found = entries(path)
    assert [entry.address for entry in found] == [
        *(f"{tmp_path}/a.mp4", f"{tmp_path}/b c.mp4", "/abs.mp4", "s3://b/c.mp4")
    ]
    assert found[1].where == "list.txt, line 2"


@pytest.mark.parametrize(
    "name", ["list.csv", "list.tsv", "list.jsonl", "list.json", "list.parquet"]
)
def test_every_kind_of_table_says_the_same(tmp_path: Path, name: str) -> None:
    rows = [
        {"video": "a.mp4", "prompt": "Who, and why?", "start": "1:05", "end": "70.5", "name": "A"},
        {"video": "b.mp4", "prompt": "", "start": "", "end": "", "name": ""},
    ]
    path = tmp_path / name
    if name.endswith(".parquet"):
        arrow = pytest.importorskip("pyarrow", reason="Parquet files are read by pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    elif name.endswith(".jsonl"):
        written(path, "\n".join(map(json.dumps, rows)))
    elif name.endswith(".json"):
        written(path, json.dumps(rows))
    else:
        separator = "\t" if name.endswith(".tsv") else ","
        lines = [separator.join(f'"{value}"' for value in row.values()) for row in rows]
        written(path, "\n".join([separator.join(rows[0]), *lines]))
    first, second = entries(path)
    assert first == Entry(
        where=first.where, address=f"{tmp_path}/a.mp4", prompts=("Who, and why?",),
        start_s=65.0, end_s=70.5, name="A",
    )  # fmt: skip
    assert first.where.startswith(name)
    assert second == Entry(where=second.where, address=f"{tmp_path}/b.mp4")


def test_numbers_and_lists_in_json(tmp_path: Path) -> None:
    row = {"path": "a.mp4", "prompts": ["Who?", "Why?"], "start_s": 1, "end_s": 2.5, "id": 7}
    (found,) = entries(written(tmp_path / "l.jsonl", json.dumps(row)))
    assert (found.prompts, found.start_s, found.end_s) == (("Who?", "Why?"), 1.0, 2.5)
    assert found.name == "7"


def test_columns_by_other_names(tmp_path: Path) -> None:
    path = written(tmp_path / "l.csv", "clip,ask,prompt\na.mp4,Who?,not this\n")
    (found,) = entries(path, columns={"video": "clip", "prompt": "ask"})
    assert (found.address, found.prompts) == (f"{tmp_path}/a.mp4", ("Who?",))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (None, "no column 'video' or 'path' or 'address' or 'url' or 'file'; it has 'clip', 'x'."),
        ({"video": "clap"}, "no column 'clap'; it has 'clip', 'x'."),
        ({"video": "clip", "start": "from"}, "no column 'from'; it has 'clip', 'x'."),
    ],
)
def test_missing_columns_are_one_problem(tmp_path: Path, columns: object, message: str) -> None:
    path = written(tmp_path / "l.csv", "clip,x\na.mp4,1\nb.mp4,2\n")
    assert problems(path, columns=columns) == [f"{path} has {message}"]


def test_every_bad_line_is_named_and_the_good_ones_are_read(tmp_path: Path) -> None:
    lines = [
        '{"video": "a.mp4"}',
        "{not json",
        '{"video": ""}',
        '{"video": "b.mp4", "start": "soon"}',
        '{"video": "c.mp4", "start": 5, "end": 5}',
        '{"video": "d.mp4", "prompts": []}',
        '{"video": "e.mp4", "prompts": ["Who?", " "]}',
        '{"video": "f.mp4", "end": -1}',
        '{"video": "g.mp4", "prompts": [1]}',
        '"h.mp4"',
        '{"video": ["i.mp4"]}',
        '{"video": "j.mp4", "end": 3}',
    ]
    found = list(read_manifest(written(tmp_path / "l.jsonl", "\n".join(lines))))
    assert [type(one) for one in found] == [Entry, *[Problem] * 10, Entry]
    for number, one in enumerate(found[1:-1], 2):
        assert one.text.startswith(f"l.jsonl, line {number}")
        assert one.hint
    assert "no JSON" in found[1].text
    assert "'soon' is not a time" in found[3].text
    assert "ends at 5 s, not after 5 s" in found[4].text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "", "has no rows"),
        ("l.csv", "video\n", "has no rows"),
        ("l.json", "{}", "holds no list of rows"),
        ("l.json", "[", "is no JSON"),
        ("l.parquet", "PAR0", "no Parquet file"),
    ],
)
def test_a_list_that_is_none_is_a_problem(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="Parquet files are read by pyarrow")
    (found,) = problems(written(tmp_path / name, text))
    assert message in found


def test_a_list_that_is_gone_is_a_problem(tmp_path: Path) -> None:
    for name in ("gone.txt", "gone.csv"):
        (found,) = problems(tmp_path / name)
        assert "cannot be read" in found


def test_prompts_take_words_of_their_row(tmp_path: Path) -> None:
    path = written(
        tmp_path / "l.csv",
        "video,title,prompt\na.mp4,Sea,\nb.mp4,Sky,Is it {title}?\nc.mp4,,Who?\nd.mp4,,\n",
    )
    asked = ("What of {title}?", 'As {"x": 1}, {{title}}.')
    *found, last = read_manifest(path, prompts=asked)
    assert [entry.prompts for entry in found] == [
        ("What of Sea?", 'As {"x": 1}, {title}.'), ("Is it Sky?",), ("Who?",)
    ]  # fmt: skip
    assert last == Problem(
        "l.csv, line 5: the prompt asks for {title}, of which nothing is said here.",
        "fill that column of a list, or write {{title}} for the word in braces.",
    )
    *_, last = read_manifest(path, prompts=("Who?",))
    assert last.prompts == ()  # the task's own
