"""`llava-video demo`: the whole path, told in order, honest about what the words mean."""

import shutil
import tempfile
from pathlib import Path

import pytest


def test_it_tells_the_whole_story(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    outcome = run("demo")
    assert (outcome.status, outcome.err) == (0, "")
    parts = [
        "A made-up clip",
        "every weight drawn at random",
        "The plan, before any work",
        "3,360",  # 16 frames of 14 rows of 14 tokens and a newline
        "Running it",
        "16 frames decoded, seen and pooled: 3,360 visual tokens",
        "s  in all",
        "The answer",
        "What happens in this video?",
        "The model is random, so its words mean nothing.",
        "What to type next",
        "llava-video describe VIDEO",
        "llava-video demo --keep DIR",
    ]
    places = [outcome.out.find(part) for part in parts]
    assert -1 not in places
    assert places == sorted(places)
    assert max(len(line) for line in outcome.out.splitlines() if str(tmp_path) not in line) <= 100
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_what_is_kept_can_be_played_with(run, tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    outcome = run("demo", "--keep", folder)
    assert outcome.status == 0
    assert {path.name for path in folder.iterdir()} == {"clip.mp4", "frames.jpg", "model"}
    line = next(line for line in outcome.out.splitlines() if "What rolls?" in line)
    assert line.split() == [
        *("llava-video", "ask", str(folder / "clip.mp4"), "'What", "rolls?'"),
        *("-m", str(folder / "model")),
    ]
    assert run("plan", folder / "clip.mp4", "-m", folder / "model").status == 0


def test_a_folder_with_something_in_it_is_left_alone(refused, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert "is not empty.\nhint:  name another folder." in refused("demo", "--keep", tmp_path)
    shutil.rmtree(tmp_path)
    tmp_path.write_text("a file")
    try:
        assert "cannot be made" in refused("demo", "--keep", tmp_path)
    finally:
        tmp_path.unlink()
        tmp_path.mkdir()
