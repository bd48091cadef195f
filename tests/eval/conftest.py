"""Local copies of benchmarks, and a model that knows the truth of their videos."""

from collections.abc import Callable
from pathlib import Path

import eval_copies
import pytest

from llava_video.api import LlavaVideo
from llava_video.engine.oracle import OracleEngine


@pytest.fixture
def copy(tmp_path: Path, tiny_clip: Path) -> Callable[[str], Path]:
    """Return a function that writes the local copy of a task and gives its folder."""

    def write(task: str) -> Path:
        folder = tmp_path / task
        folder.mkdir()
        eval_copies.WRITERS[task](folder, tiny_clip)
        return folder

    return write


@pytest.fixture
def oracle(tiny_model: LlavaVideo) -> LlavaVideo:
    """Return a model that reads the numbers in the frames, and nothing else."""
    return LlavaVideo(tiny_model.spec, OracleEngine(tiny_model.spec.tokenizer))
