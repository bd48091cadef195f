"""The loop's own parts: arguments, checkpoints that are whole, lines of metrics."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import safetensors.torch
import torch
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard
from torch.utils.data import BatchSampler
from training_runs import broken_off, train_in_two

from llava_video.config import from_mapping
from llava_video.errors import ConfigError
from llava_video.train.batches import Examples, Made, collate
from llava_video.train.examples import ExampleMaker
from llava_video.train.forward import Example
from llava_video.train.mixture import Record
from llava_video.train.run import train
from llava_video.train.settings import DataSettings, StageSettings
from llava_video.train.trainer import Metrics, StageTrainer, training_arguments


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


class Sharing(StageTrainer):
    """A trainer of a network whose parameters lie elsewhere, as ZeRO-3 of DeepSpeed leaves them."""

    def __init__(self, folder: Path, zero_stage: int) -> None:
        one = stage(output=str(folder), deepspeed=None)
        model: Any = torch.nn.Linear(3, 2)
        self.whole = {name: p.detach().clone() for name, p in model.named_parameters()}
        super().__init__(model, Noughts(), one, training_arguments(one, bf16=False))
        model.weight.requires_grad = False
        for parameter in model.parameters():
            parameter.data = torch.empty(0)
        zero = {"stage": zero_stage}
        self.deepspeed = SimpleNamespace(config={"zero_optimization": zero} if zero_stage else {})


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_what_is_shared_out_is_gathered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zero_stage: int
):
    sharing, asked = Sharing(tmp_path, zero_stage), []

    def get_state_dict(engine: Any) -> dict[str, torch.Tensor]:
        asked.append(engine)
        return sharing.whole

    monkeypatch.setattr(sharing.accelerator, "get_state_dict", get_state_dict)
    sharing.gather()
    assert asked == ([sharing.deepspeed] if zero_stage == 3 else [])
    found = dict(cast("torch.nn.Module", sharing.model).named_parameters())
    assert [p.requires_grad for p in found.values()] == [False, True]
    for name, whole in sharing.whole.items():
        assert torch.equal(found[name], whole if zero_stage == 3 else torch.empty(0))


def test_other_processes_ask_too_and_get_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sharing, asked = Sharing(tmp_path, 3), []
    monkeypatch.setattr(sharing, "is_world_process_zero", lambda: False)
    monkeypatch.setattr(sharing.accelerator, "get_state_dict", asked.append)  # returns None
    sharing.gather()
    assert asked == [sharing.deepspeed]


def test_a_file_that_forbids_gathering_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sharing = Sharing(tmp_path, 3)

    def get_state_dict(_: Any) -> None:
        raise ValueError

    monkeypatch.setattr(sharing.accelerator, "get_state_dict", get_state_dict)
    with pytest.raises(ConfigError, match="stage3_gather_16bit_weights_on_model_save"):
        sharing.gather()


class Noughts(Examples):
    """Four examples of nothing but text."""

    def __init__(self) -> None:
        records = [Record(name=str(idx), values={}, folder="") for idx in range(4)]
        super().__init__(cast("ExampleMaker", None), records, DataSettings())

    def __getitem__(self, idx: int) -> Made:
        none = torch.zeros(0, 3, 8, 8, dtype=torch.uint8)
        return Made(Example(ids=(idx, 1), labels=(-100, 1), plans=(), tiles=none), ())


def test_workers_take_nothing_of_the_numbers_that_dropout_is_drawn_from(tmp_path: Path):
    data = {"sources": [{"path": "a"}], "num_workers": 1}
    one = stage(output=str(tmp_path), batch_size=2, data=data)
    model: Any = torch.nn.Linear(1, 1)
    loader = StageTrainer(model, Noughts(), one, training_arguments(one, bf16=False))
    loading = loader.get_train_dataloader()
    assert loading.persistent_workers
    before = torch.get_rng_state()
    seen = [batch["ids"].tolist() for _ in range(2) for batch in loading]
    assert torch.equal(torch.get_rng_state(), before)
    assert len(seen) == 4
    loading.base_dataloader._iterator = None  # lets the worker go
    # Without a generator of its own, the loader takes one.
    next(iter(torch.utils.data.DataLoader(Noughts(), collate_fn=lambda made: made)))
    assert not torch.equal(torch.get_rng_state(), before)


def test_no_workers_live_on_where_there_are_none():
    made = training_arguments(
        stage(data={"sources": [{"path": "a"}], "num_workers": 0}), bf16=False
    )
    assert not made.dataloader_persistent_workers
    assert made.dataloader_prefetch_factor is None


def trainer() -> Any:
    made = SimpleNamespace(
        counted={"tokens": 600, "wait_s": 2.0},
        broken={"marks": 2},
        _net=SimpleNamespace(parts={"answers": torch.tensor(1.25)}),
    )
    made.counts = lambda: StageTrainer.counts(made)
    return made


OFTEN: Any = SimpleNamespace(logging_steps=3, save_steps=7)


def state(step: int, *, is_first: bool = True) -> Any:
    return SimpleNamespace(global_step=step, max_steps=9, epoch=0.5, is_world_process_zero=is_first)


def test_a_line_of_metrics(tmp_path: Path):
    counting, path = trainer(), tmp_path / "metrics.jsonl"
    Metrics(counting, tmp_path).on_log(
        None, state(2), None, logs={"loss": 1.5, "learning_rate": 0.1}
    )
    line = json.loads(path.read_text())
    assert (line["step"], line["steps"], line["loss"]) == (2, 9, 1.5)
    assert line["tokens_per_s"] > 0
    assert line["broken"] == {"marks": 2}
    assert line["loss_answers"] == 1.25
    assert counting.counted == {"tokens": 0, "wait_s": 0.0}
    Metrics(counting, tmp_path).on_log(None, state(3), None, logs={"train_runtime": 1.0})
    assert len(path.read_text().splitlines()) == 1


def test_a_line_tells_of_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def gathered(own: list[Any]) -> list[Any]:
        asked.append(own)
        other = {"loss_answers": 0.25, "loss_story": 3.0}
        return [*own, (other, {"tokens": 200, "wait_s": 1.0}, {"marks": 1, "too long": 1})]

    monkeypatch.setattr("llava_video.train.trainer.gather_object", gathered)
    assert trainer().counts() == {
        "losses": {"loss_answers": 0.75, "loss_story": 3.0},
        "tokens": 800,
        "wait_s": 1.5,
        "broken": {"marks": 3, "too long": 1},
    }
    # All are asked at once: one that writes nothing too, or the others would wait for it.
    Metrics(trainer(), tmp_path).on_log(None, state(2, is_first=False), None, logs={"loss": 1.5})
    assert len(asked) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tail", ["", '{"step": 3, "lo'])
def test_lines_of_lost_steps_are_taken_out(tmp_path: Path, tail: str):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step}) + "\n" for step in (1, 2, 3)]
    path.write_text("".join(lines) + tail)
    Metrics(trainer(), tmp_path).on_train_begin(OFTEN, state(2), None)
    assert path.read_text() == "".join(lines[:2])


@pytest.mark.parametrize(("is_first", "expected"), [(True, {"marks": 5}), (False, {})])
def test_counts_go_on_from_the_last_line_that_is_kept(
    tmp_path: Path, is_first: bool, expected: dict[str, int]
):
    """The line tells of all processes, so that one of them alone goes on from it."""
    lines = [{"step": step, "broken": {"marks": 5 * step}} for step in (1, 2)]
    # The process was killed before the end of a line was written.
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    made = trainer()
    made.broken = {}
    metrics = Metrics(made, tmp_path)
    metrics.on_train_begin(OFTEN, state(1, is_first=is_first), None)
    assert made.broken == expected


def test_a_line_whose_end_was_not_written_gets_it(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}')
    metrics = Metrics(trainer(), tmp_path)
    metrics.on_train_begin(OFTEN, state(1), None)
    metrics.on_log(None, state(2), None, logs={"loss": 1.5})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert [json.loads(line)["step"] for line in text.splitlines()] == [1, 2]


@pytest.mark.parametrize(
    ("step", "is_saved", "has_line"), [(8, False, False), (8, True, True), (9, False, True)]
)
def test_a_checkpoint_and_the_end_have_a_line(
    tmp_path: Path, step: int, is_saved: bool, has_line: bool
):
    """The line of a checkpoint holds the counts that a run which goes on from it begins with."""
    control: Any = SimpleNamespace(should_save=is_saved, should_log=False)
    Metrics(trainer(), tmp_path).on_step_end(None, state(step), control)
    assert control.should_log is has_line


def test_lines_are_not_lost_where_taking_some_out_is_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 3}\n')
    write = Path.write_text

    def torn(path: Path, text: str, **given: Any) -> int:
        write(path, text[:3], **given)
        raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", torn)
        with pytest.raises(InterruptedError):
            Metrics(trainer(), tmp_path).on_train_begin(OFTEN, state(2), None)
    assert path.read_text() == '{"step": 1}\n{"step": 3}\n'


@pytest.mark.parametrize("is_first", [True, False])
def test_how_often_is_what_this_run_says(tmp_path: Path, is_first: bool):
    """Of what the checkpoint says, every process: all are asked at once for a line."""
    resumed = state(1, is_first=is_first)
    resumed.logging_steps = resumed.save_steps = 500
    Metrics(trainer(), tmp_path).on_train_begin(OFTEN, resumed, None)
    assert (resumed.logging_steps, resumed.save_steps) == (3, 7)


def in_file(folder: Path, model: Path, data_file: Path, **changes: Any) -> StageSettings:
    """Return a stage of six examples: with one a batch and two processes, three steps an epoch."""
    data = {
        "sources": [{"path": str(data_file)}],
        "max_frames": 3,
        "num_workers": 0,
        "group_by": "none",
    }
    values = {"model": str(model), "output": str(folder), "data": data, "epochs": 2, "keep": 9}
    often = {"save_every": 1, "log_every": 1, "learning_rate": 1e-3}
    return stage(**values, **often, **changes)


def losses_and_weights(one: StageSettings) -> tuple[list[float], dict[str, torch.Tensor]]:
    folder = Path(one.output)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    state = safetensors.torch.load_file(folder / "original" / "model.safetensors")
    return [json.loads(line)["loss"] for line in lines], state


def assert_alike(one: Any, other: Any) -> None:
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    assert all(torch.equal(tensor, other[1][name]) for name, tensor in one[1].items())


@pytest.mark.parametrize("num_calls", [1, 3, 4, 5])
def test_a_shared_order_goes_on_in_the_epoch_it_was_in(
    tmp_path: Path,
    tiny_folder: Path,
    data_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_calls: int,
):
    """The first of two processes, without the other: its loader is wrapped once more than alone."""

    def of_two(trainer: Any) -> DataLoaderShard:
        own = BatchSamplerShard(BatchSampler(trainer._get_train_sampler(), 1, False), 2, 0)
        return DataLoaderShard(trainer.train_dataset, batch_sampler=own, collate_fn=collate)

    monkeypatch.setattr(StageTrainer, "get_train_dataloader", of_two)
    whole, broken = (
        in_file(tmp_path / name, tiny_folder, data_file) for name in ("whole", "broken")
    )
    train(whole)
    broken_off(broken, monkeypatch, num_calls)
    assert train(broken).resumed_from == num_calls
    assert len(losses_and_weights(whole)[0]) == 6
    assert_alike(losses_and_weights(broken), losses_and_weights(whole))


@pytest.mark.slow
def test_two_processes_go_on_in_the_epoch_they_were_in(
    tmp_path: Path, tiny_folder: Path, data_file: Path
):
    settings = in_file(tmp_path / "two", tiny_folder, data_file)
    train_in_two(settings, tmp_path)
    whole = losses_and_weights(settings)
    assert len(whole[0]) == 6
    shutil.rmtree(tmp_path / "two" / "original")
    for step in (5, 6):  # as if both had been killed in the fifth step
        shutil.rmtree(tmp_path / "two" / f"checkpoint-{step}")
    train_in_two(settings, tmp_path)
    assert_alike(losses_and_weights(settings), whole)


def test_no_line_where_none_is_wanted(tmp_path: Path):
    seen: list[Any] = []
    Metrics(trainer(), tmp_path, (), seen.append).on_log(None, state(2), None, logs={"loss": 1.5})
    assert [line["loss"] for line in seen] == [1.5]
    assert list(tmp_path.iterdir()) == []
