"""Each example runs as it stands, with `--demo`, and prints what it promises."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from llava_video.demo.sample import Sample, write_sample

FOLDER = Path(__file__).parents[1] / "examples"

# What a run prints, whatever the model says: of 9 s at 2 frames a second, 20 tokens each.
PROMISED = {
    "ask_many": r"Is there a ring\?\n  .*\n  \d\d\d of \d\d\d prompt tokens were there already",
    "batch": r"18 frames: (.|\n)*4 frames: (.|\n)*failed: 'no_such_file.mp4' cannot be opened",
    "chat": r"\(0 tokens kept from before\)(.|\n)*\([4-9]\d\d tokens kept from before\)",
    "describe": r"18 frames were seen, 0\.00 s to 8\.50 s\.\nIt took \d+\.\d s and ended with '",
    "judge": r" of 100\n(.|\n)*  Nothing moves.\n(.|\n)* by 6 comparisons, best: ",
    "own_sampler": r"Looks at 0\.00 s, 4\.50 s, 6\.75 s, 7\.83 s, .*\n6 of .*, chosen by towards_",
    "plan_first": r"low +18 frames, 1 tiles each: 108 tokens\nmedium .* 360 tokens\nhigh ",
    "stream": r"\n\n\d+ tokens from 18 frames\n",
    "timeline": r"WEBVTT\n\n00:00:00.000 --> 00:00:03.000\n(.|\n)*Summary: ",
    "typed_answer": r"(yes|no), with probability (0\.[5-9]\d|1\.00) among(.|\n)* objects, a sign: ",
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return write_sample(tmp_path_factory.mktemp("sample"))


def test_every_example_is_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(PROMISED)


@pytest.mark.usefixtures("demo_checkpoint")
@pytest.mark.parametrize("name", PROMISED)
def test_an_example_runs(name: str, sample: Sample, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--demo"])
    # The same clip for all: writing it for each would take longer than using it.
    monkeypatch.setattr("llava_video.demo.sample.sample_clip", lambda: sample.clip)
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr()
    assert re.search(PROMISED[name], printed.out), printed.out
    assert printed.err == ""
    assert list(tmp_path.iterdir()) == []
