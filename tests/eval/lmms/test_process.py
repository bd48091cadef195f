"""A worker in a process of its own answers, fails and ends as it should."""

from pathlib import Path

import pytest

from llava_video.api import LlavaVideo
from llava_video.errors import CapacityError
from llava_video.eval.lmms.process import Worker, WorkerError


def test_a_worker_answers_like_the_library(
    tiny_folder: Path, tiny_model: LlavaVideo, tiny_clip: Path
) -> None:
    options = {"num_frames": 3, "max_new_tokens": 6, "loop_guard": False}
    own = tiny_model.ask(tiny_clip, "What is shown?", **options)
    with Worker(str(tiny_folder), load={"device": "cpu"}, options=options) as worker:
        answer = worker.ask("What is shown?", visuals=[str(tiny_clip)])
        assert (answer["text"], answer["frames"]) == (own.text, 3)
        assert answer["visual_tokens"] == own.usage.visual_tokens
        with pytest.raises(WorkerError, match=r"SourceError: .*gone"):
            worker.ask("What?", visuals=["gone.mp4"])
        again = worker.ask("What is shown?", visuals=[str(tiny_clip)])
        assert again["text"] == own.text
        worker._process.kill()
        with pytest.raises(WorkerError, match="the worker ended with status -9"):
            worker.ask("What?")


def test_what_cannot_be_started_is_told(tmp_path: Path) -> None:
    with pytest.raises(CapacityError, match="cannot be started"):
        Worker("model", python=str(tmp_path / "no-python"))
    with pytest.raises(WorkerError, match="CheckpointError"):
        Worker(str(tmp_path / "no-model"))
