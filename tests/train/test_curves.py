"""Curves for TensorBoard: the numbers of the lines of metrics, and none that were done again."""

import json
from pathlib import Path
from typing import Any

import pytest

from llava_video import backends
from llava_video.config import from_mapping
from llava_video.errors import BackendMissingError
from llava_video.train import curves as module
from llava_video.train.curves import Curves, scalars
from llava_video.train.run import train
from llava_video.train.settings import StageSettings

LINE = {
    "step": 3,
    "steps": 9,
    "epoch": 0.5,
    "loss": 1.25,
    "grad_norm": None,
    "name": "text",
    "broken": {"missing file": 2},
}


class Noted:
    """Stands for torch's writer."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        self.folder, self.purge_step = folder, purge_step
        self.points: list[tuple[str, float, int]] = []
        self.flushed: list[int] = []
        self.is_closed = False

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        assert not self.is_closed
        self.points.append((tag, scalar_value, global_step))

    def flush(self) -> None:
        self.flushed.append(len(self.points))

    def close(self) -> None:
        self.is_closed = True


def test_the_numbers_of_a_line():
    found = dict(scalars(LINE))
    assert found == {"train/epoch": 0.5, "train/loss": 1.25, "train/broken/missing file": 2.0}


def test_points_stand_at_their_step_and_are_on_the_disk_at_once(tmp_path: Path):
    made: list[Noted] = []

    def make(folder: Path, purge_step: int) -> Noted:
        made.append(Noted(folder, purge_step))
        return made[-1]

    curves = Curves(tmp_path, make)
    curves.write(LINE)  # before it begins, and in other processes, nothing is written
    assert made == []
    curves.begin(2)
    curves.write(LINE)
    curves.close()
    curves.close()
    (writer,) = made
    # Steps 1 and 2 are done: a point of a killed run at step 3 is drawn anew.
    assert (writer.folder, writer.purge_step, writer.is_closed) == (tmp_path, 3, True)
    assert writer.points[1] == ("train/loss", 1.25, 3)
    assert writer.flushed == [3]


@pytest.fixture
def stage(tmp_path: Path, tiny_folder: Path, data_file: Path) -> StageSettings:
    values: dict[str, Any] = {
        "model": str(tiny_folder),
        "output": str(tmp_path / "run"),
        "learn": ["projector"],
        "batch_size": 2,
        "log_every": 1,
        "save_every": 1,
        "max_steps": 3,
        "metrics": ["jsonl", "tensorboard"],
        "data": {"sources": [{"path": str(data_file)}], "max_frames": 2, "num_workers": 0},
    }
    return from_mapping(StageSettings, values)


def lines_of(stage: StageSettings) -> list[dict[str, Any]]:
    text = (Path(stage.output) / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_run_draws_what_its_lines_say(stage: StageSettings, monkeypatch: pytest.MonkeyPatch):
    made: list[Noted] = []

    def make(folder: Path, purge_step: int) -> Noted:
        made.append(Noted(folder, purge_step))
        return made[-1]

    monkeypatch.setattr(backends, "require", lambda name: None)
    monkeypatch.setattr(Curves.__init__, "__defaults__", (make,))
    train(stage)
    (writer,) = made
    assert (writer.folder, writer.purge_step) == (Path(stage.output) / "tensorboard", 1)
    assert writer.is_closed
    expected = [(n, value, line["step"]) for line in lines_of(stage) for n, value in scalars(line)]
    assert writer.points == expected
    assert {name for name, _, _ in expected} >= {"train/loss", "train/tokens_per_s"}


def test_without_the_package_nothing_is_begun(
    stage: StageSettings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(backends, "version", lambda name: None)
    with pytest.raises(BackendMissingError, match=r"tensorboard .* is not installed") as caught:
        train(stage)
    assert "llava_video[train]" in caught.value.hint
    assert not Path(stage.output).exists()


def test_event_files_read_back_as_the_lines(stage: StageSettings):
    reading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="TensorBoard (extra train) is not installed",
    )
    folder = Path(stage.output) / module.FOLDER
    killed = Curves(folder)  # a run that got two steps farther than its last checkpoint
    killed.begin(0)
    for step in (1, 2, 3):
        killed.write({"step": step, "loss": 100.0 + step})
    killed.close()
    again = Curves(folder)
    again.begin(1)
    again.write({"step": 2, "loss": 0.5, "broken": {"marks": 1}})
    again.close()
    events = reading.EventAccumulator(str(folder))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert found == [(1, 101.0), (2, 0.5)]
    assert [event.value for event in events.Scalars("train/broken/marks")] == [1.0]
