"""Running a command in this process: its exit status, and what it wrote where."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from llava_video.api import LlavaVideo
from llava_video.cli.main import main
from llava_video.values import Description


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    status: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `llava-video` with some arguments."""

    def run_command(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return Outcome(status, *capsys.readouterr())

    return run_command


@pytest.fixture
def refused(run: Run, tmp_path: Path) -> Callable[..., str]:
    """Return a function that runs a command which must fail cleanly, and gives its stderr.

    Cleanly: status 1, nothing on stdout, one sentence and perhaps a hint, no traceback, and no file
    that was not there before.
    """

    def run_refused(*arguments: str | Path) -> str:
        before = sorted(tmp_path.rglob("*"))
        outcome = run(*arguments)
        assert outcome.status == 1, outcome
        assert outcome.out == ""
        lines = outcome.err.splitlines()
        assert lines[0].startswith("error: ")
        assert all(line.startswith("hint:  ") for line in lines[1:]), outcome.err
        assert len(lines) <= 2
        assert "Traceback" not in outcome.err
        assert "a fault of this program" not in outcome.err
        assert sorted(tmp_path.rglob("*")) == before
        return outcome.err

    return run_refused


@pytest.fixture(scope="session")
def description(tiny_model: LlavaVideo, tiny_clip: Path) -> Description:
    """Return an answer about the tiny clip, with everything in it."""
    return tiny_model.describe(tiny_clip, num_frames=4, max_new_tokens=6, loop_guard=False)
