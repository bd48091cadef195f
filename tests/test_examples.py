"""Each example runs as it stands, with `--tiny`, and prints what it promises."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from llava_video.demo.files import SMALL_TILE_PX, DemoFiles, write_demo_files

FOLDER = Path(__file__).parents[1] / "examples"

# What a run prints, whatever a random model says.
PROMISED = {
    "ask_many": r"What moves\?\n  .*\n  9\d\d of 1,\d\d\d prompt tokens were there already",
    "batch": r"64 frames: (.|\n)*12 frames: (.|\n)*failed: 'no_such_file.mp4' cannot be opened",
    "chat": r"\(0 tokens kept from before\)(.|\n)*\(1,\d\d\d tokens kept from before\)",
    "describe": r"64 frames were seen, 0\.00 s to 7\.92 s\.\nIt took \d+\.\d s and ended with '",
    "judge": r": no certain score of 100\n(.|\n)*\+0  Nothing moves.\n(.|\n)*undecided by 6 comp",
    "own_sampler": r"Looks at 0\.00 s, 4\.00 s, 6\.00 s, 7\.00 s, .*\n6 of .*, chosen by towards_",
    "plan_first": r"low +64 frames, 1 tiles each: 128 tokens\nmedium .*\nhigh ",
    "stream": r"\n\n100 tokens from 64 frames\n",
    "timeline": r"WEBVTT\n\n00:00:00.000 --> 00:00:03.000\n(.|\n)*Summary: ",
    "typed_answer": r"doors, with probability (0\.[5-9]\d|1\.00) among(.|\n)* people, outdoors",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> DemoFiles:
    return write_demo_files(tmp_path_factory.mktemp("demo"), tile_px=SMALL_TILE_PX)


def test_every_example_is_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(PROMISED)


@pytest.mark.parametrize("name", PROMISED)
def test_an_example_runs(name: str, files: DemoFiles, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--tiny"])
    # The same files for all: writing them for each would take longer than using them.
    monkeypatch.setattr("llava_video.demo.files.passing_demo_files", lambda: files)
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr()
    assert re.search(PROMISED[name], printed.out), printed.out
    assert printed.err == ""
    assert list(tmp_path.iterdir()) == []
