"""The surest pattern that finds files wins."""

from pathlib import Path

import pytest

from llava_video.errors import ConfigError
from llava_video.eval.files import annotation_files


def test_the_first_pattern_that_finds_any_counts(tmp_path: Path) -> None:
    for name in ("b.json", "a.json", "test.csv"):
        (tmp_path / name).write_text("")
    (tmp_path / "deep.json").mkdir()
    assert annotation_files(tmp_path, ("*.csv", "*.json"), "it") == [tmp_path / "test.csv"]
    found = annotation_files(tmp_path, ("*.tsv", "*.json"), "it")
    assert [path.name for path in found] == ["a.json", "b.json"]
    with pytest.raises(ConfigError, match="no annotations of it") as caught:
        annotation_files(tmp_path, ("*.tsv", "x/*"), "it")
    assert "*.tsv, x/*" in caught.value.hint
