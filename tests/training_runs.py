"""Runs of training that are broken off, or share their steps among two processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llava_video.config import to_yaml
from llava_video.train.run import train
from llava_video.train.settings import StageSettings


class KilledError(Exception):
    """What a run is broken off with."""


def broken_off(
    stage: StageSettings, monkeypatch: pytest.MonkeyPatch, num_calls: int, loop: Any = None
) -> None:
    """Train until so many batches were computed; `loop` is the stage's trainer class."""
    from llava_video.train.trainer import StageTrainer  # takes a second, and not all tests need it

    loop = loop or StageTrainer
    whole, left = loop.compute_loss, [num_calls]

    def computed(*given: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KilledError
        return whole(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "compute_loss", computed)
        with pytest.raises(KilledError):
            train(stage)


def begin_process(
    stage: StageSettings, folder: Path, **environment: str
) -> subprocess.Popen[bytes]:
    """Begin a stage in a process of its own, from a file in `folder`."""
    path = folder / "stage.yaml"
    path.write_text(to_yaml(stage))
    return subprocess.Popen(
        [sys.executable, "-m", "llava_video", "train", "--config", str(path)],
        env={**os.environ, **environment},
    )


def train_in_two(stage: StageSettings, folder: Path) -> None:
    """Train a stage in two gloo processes to its end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [
        begin_process(stage, folder, **place, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(2)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
