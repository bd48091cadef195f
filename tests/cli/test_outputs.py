"""Files of answers: each its own name, whole or not at all, never over another."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from llava_video.cli.outputs import output_folder
from llava_video.errors import ConfigError
from llava_video.values import Description


def names(*files: str) -> list[str]:
    made = output_folder(files, "out", suffix=".txt", has_sheets=False)
    return [made.names[file] for file in files]


def test_a_name_is_the_inputs_own() -> None:
    assert names("clips/a.mp4", "b.tar.mkv", "https://host/c.mp4?sig=1") == ["a", "b.tar", "c"]
    assert names("data:video/mp4;base64,AAAA") == names("https://host") == ["video"]


def test_inputs_of_one_name_are_told_apart_by_their_path() -> None:
    first, second, other = names("x/a.mp4", "y/A.mkv", "b.mp4")
    assert other == "b"
    assert first.startswith("a-")
    assert second.startswith("A-")
    assert first.casefold() != second.casefold()
    # The rest of the run does not change a name that was made so.
    assert names("x/a.mp4", "z/a.mp4")[0] == first


def test_a_long_name_is_cut_between_characters() -> None:
    (name,) = names("日" * 200 + ".mp4")
    assert name == "日" * 50


def test_an_answer_is_written_with_its_frames(description: Description, tmp_path: Path) -> None:
    made = output_folder(["a.mp4"], tmp_path / "new" / "out", suffix=".json", has_sheets=True)
    made.check(overwrite=False)
    path = made.write("a.mp4", description)
    assert path == tmp_path / "new" / "out" / "a.json"
    assert json.loads(path.read_text(encoding="utf-8")) == json.loads(description.to_json())
    with Image.open(path.with_suffix(".jpg")) as sheet:
        assert sheet.width > 100
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.jpg", "a.json"]


def test_nothing_is_replaced_unasked(description: Description, tmp_path: Path) -> None:
    made = output_folder(["a.mp4", "b.mp4"], tmp_path, suffix=".txt", has_sheets=True)
    (tmp_path / "a.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"a\.txt would be replaced.*--overwrite"):
        made.check(overwrite=False)
    (tmp_path / "b.jpg").write_text("mine")
    with pytest.raises(ConfigError, match="and 1 more would be replaced"):
        made.check(overwrite=False)
    made.check(overwrite=True)
    made.write("a.mp4", description)
    assert (tmp_path / "a.txt").read_text().strip() == description.text.strip()


def test_a_folder_that_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "out"):
        made = output_folder(["a.mp4"], folder, suffix=".txt", has_sheets=False)
        with pytest.raises(ConfigError, match="file is a file"):
            made.check(overwrite=True)


def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    made = output_folder(["a.mp4"], tmp_path / "out", suffix=".txt", has_sheets=False)
    with pytest.raises(ConfigError, match="may not be written to"):
        made.check(overwrite=False)
