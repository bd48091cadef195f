"""Tables of every kind give the same rows; what is broken is told and hides nothing."""

import csv
import sys
from pathlib import Path

import eval_copies
import pytest

from llava_video.errors import BackendMissingError, ConfigError
from llava_video.tables import Row, read_rows

ROWS = [{"name": "a, b", "size": "3"}, {"name": 'say "x"\nagain', "size": ""}]


def test_every_kind_gives_the_same_rows(tmp_path: Path) -> None:
    eval_copies.write_json(tmp_path / "t.json", ROWS)
    eval_copies.write_json(tmp_path / "keyed.json", {"questions": ROWS, "other": 1})
    eval_copies.write_table(tmp_path / "t.csv", ROWS)
    eval_copies.write_table(tmp_path / "t.tsv", ROWS, "\t")
    eval_copies.write_parquet(tmp_path / "t.parquet", ROWS)
    lines = '\ufeff{"name": "a, b", "size": "3"}\n\n{"name": "say \\"x\\"\\nagain", "size": ""}\n'
    (tmp_path / "t.jsonl").write_text(lines, encoding="utf-8")
    for name in ("t.json", "keyed.json", "t.csv", "t.tsv", "t.parquet", "t.jsonl"):
        rows = list(read_rows(tmp_path / name, "questions"))
        assert [dict(row.values) for row in rows] == ROWS, name
        assert rows[0].text("name") == "a, b"
        assert not rows[1].has("size")


def test_a_broken_line_is_one_row(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n{"a": \n[3]\n{"a": 4}\n')
    rows = list(read_rows(tmp_path / "t.jsonl"))
    assert [bool(row.broken) for row in rows] == [False, True, True, False]
    with pytest.raises(ConfigError, match=r"t\.jsonl, line 2: no JSON"):
        rows[1].text("a")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3\n4,5,6\n7,8\n")
    rows = list(read_rows(tmp_path / "t.csv"))
    assert [bool(row.broken) for row in rows] == [False, True, True, False]
    with pytest.raises(ConfigError, match=r"line 3: 1 cells under a head of 2"):
        rows[1].value("a")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.json", b"[1, 2", "is no JSON"),
        ("t.json", b'{"rows": []}', "holds no list"),
        ("t.json", b"\xff\xfe", "cannot be read"),
        ("t.csv", b"a\n\xff\n", "cannot be read"),
        ("t.parquet", b"PAR1 not", "is no Parquet file"),
        ("t.xlsx", b"", "is no table"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        list(read_rows(tmp_path / name))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        list(read_rows(tmp_path / "t.json"))


def test_cells_may_be_long_and_the_limit_is_put_back(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    (tmp_path / "t.tsv").write_text("image\n" + "x" * 200_000 + "\n")
    assert len(next(iter(read_rows(tmp_path / "t.tsv"))).text("image")) == 200_000
    list(read_rows(tmp_path / "t.tsv"))
    assert csv.field_size_limit() == before


def test_without_pyarrow_the_hint_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eval_copies.write_parquet(tmp_path / "t.parquet", ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BackendMissingError) as caught:
        list(read_rows(tmp_path / "t.parquet"))
    assert "llava_video[eval]" in caught.value.hint


def test_fields_are_what_they_should_be() -> None:
    row = Row("t, row 1", {"a": " x ", "n": "2.5", "k": 7, "l": ["p ", "q"], "nan": float("nan")})
    assert (row.text("a"), row.number("n"), row.whole("k")) == ("x", 2.5, 7)
    assert row.texts("l") == ("p", "q")
    assert row.text("none", "a") == "x"
    assert not row.has("nan", "none")
    for read, message in (
        (lambda: row.value("b", "c"), "no 'b' or 'c'"),
        (lambda: row.text("l"), "is no text"),
        (lambda: row.whole("n"), "n = 2.5"),
        (lambda: row.number("a"), "is no number"),
        (lambda: row.texts("a"), "a = ' x '"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            read()
        assert "t, row 1" in caught.value.message
