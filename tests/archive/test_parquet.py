"""Rows come back from Parquet equal, and its columns can be asked by other programs."""

import sys
from pathlib import Path

import archive_rows as made
import pytest

from llava_video.archive import parquet
from llava_video.archive.parquet import read_parquet, write_parquet
from llava_video.archive.row import Asked, duplicate_row, make_row
from llava_video.errors import BackendMissingError, ConfigError


def test_rows_come_back_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    monkeypatch.setattr(parquet, "_ROWS_PER_GROUP", 2)
    typed = made.description('{"n": 3}', parsed={"n": [3, None, "犬"]}, confidence=0.1 + 0.2)
    asked = Asked(task="ask", prompts=("How many?",), options={"temperature": 0.1, "stop": ["."]})
    rows = [
        made.caption_row(0, 'A "dog" –\n犬. \x00'),
        made.failed_row(1),
        make_row(made.unit(2, start_s=1 / 3), [typed], asked),
        made.timeline_row(3, [(0.0, 30.0, "A dog."), (30.0, 47.5, "")]),
        duplicate_row(made.unit(4), 0, asked),
    ]
    path = tmp_path / "rows.parquet"
    assert write_parquet(iter(rows), path) == 5
    assert list(read_parquet(path)) == rows
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]


def test_columns_are_those_of_the_schema(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    path = tmp_path / "rows.parquet"
    write_parquet([made.caption_row(0, "A dog.", address="x\udce9.mp4")], path)
    table = pq.read_table(path)
    assert table.column_names[:4] == ["schema", "number", "key", "status"]
    assert (
        table.schema.field("answers").type.value_type.field("times_s").type.value_type == "double"
    )
    assert table["answers"][0][0]["text"].as_py() == "A dog."
    assert table["video"][0]["address"].as_py() == "x\\udce9.mp4"


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    with pytest.raises(KeyError):
        write_parquet([made.caption_row(0, "A dog."), {"schema": 1}], tmp_path / "rows.parquet")
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    pq = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow")
    path = tmp_path / "rows.parquet"
    path.write_text("no")
    with pytest.raises(ConfigError, match="is no Parquet file"):
        next(read_parquet(path))
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(ConfigError, match="holds no rows of an archive"):
        next(read_parquet(path))
    write_parquet([made.caption_row(0, "A dog.") | {"schema": 7}], path)
    with pytest.raises(ConfigError, match="schema 7"):
        next(read_parquet(path))


def test_without_pyarrow_the_hint_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BackendMissingError, match=r"pip install.*llava_video\["):
        write_parquet([], tmp_path / "rows.parquet")
