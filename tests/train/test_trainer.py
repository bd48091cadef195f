"""The loop's own parts: arguments, checkpoints that are whole, lines of metrics."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llava_video.config import from_mapping
from llava_video.train.settings import StageSettings
from llava_video.train.trainer import Metrics, last_checkpoint, training_arguments


def stage(**changes: Any) -> StageSettings:
    data = {"sources": [{"path": "data.json"}]}
    return from_mapping(StageSettings, {"model": "m", "output": "o", "data": data, **changes})


def test_arguments_are_the_stages():
    made = training_arguments(stage(accumulate=3, epochs=2, max_grad_norm=0.5, seed=7), bf16=False)
    assert made.gradient_accumulation_steps == 3
    assert (made.num_train_epochs, made.max_steps) == (2, -1)
    assert made.max_grad_norm == 0.5
    assert made.seed == 7
    assert made.lr_scheduler_type == "cosine"
    # 3 of 100 steps, rounded up, are the warm-up.
    assert made.get_warmup_steps(100) == 3
    assert not made.report_to
    assert training_arguments(stage(schedule="constant"), bf16=False).lr_scheduler_type == (
        "constant_with_warmup"
    )


def test_the_last_whole_checkpoint(tmp_path: Path):
    assert last_checkpoint(tmp_path) is None
    for step, state in ((9, "{}"), (10, "{}"), (11, '{"a":'), (12, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    # By number, not by name: "checkpoint-9" comes last among the names.
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def trainer() -> Any:
    return SimpleNamespace(counted={"tokens": 600, "wait_s": 0.0}, broken={"marks": 2})


def state(step: int) -> Any:
    return SimpleNamespace(global_step=step, max_steps=9, epoch=0.5, is_world_process_zero=True)


def test_a_line_of_metrics(tmp_path: Path):
    counting, path = trainer(), tmp_path / "metrics.jsonl"
    Metrics(counting, tmp_path).on_log(
        None, state(2), None, logs={"loss": 1.5, "learning_rate": 0.1}
    )
    line = json.loads(path.read_text())
    assert (line["step"], line["steps"], line["loss"]) == (2, 9, 1.5)
    assert line["tokens_per_s"] > 0
    assert line["broken"] == {"marks": 2}
    assert counting.counted == {"tokens": 0, "wait_s": 0.0}
    Metrics(counting, tmp_path).on_log(None, state(3), None, logs={"train_runtime": 1.0})
    assert len(path.read_text().splitlines()) == 1


@pytest.mark.parametrize("tail", ["", '{"step": 3, "lo'])
def test_lines_of_lost_steps_are_taken_out(tmp_path: Path, tail: str):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step}) + "\n" for step in (1, 2, 3)]
    path.write_text("".join(lines) + tail)
    Metrics(trainer(), tmp_path).on_train_begin(None, state(2), None)
    assert path.read_text() == "".join(lines[:2])


def test_no_line_where_none_is_wanted(tmp_path: Path):
    seen: list[Any] = []
    Metrics(trainer(), tmp_path, (), seen.append).on_log(None, state(2), None, logs={"loss": 1.5})
    assert [line["loss"] for line in seen] == [1.5]
    assert list(tmp_path.iterdir()) == []
