"""A stage runs to a checkpoint that loads again; what is killed goes on to the same weights."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_runs import KilledError, begin_process, broken_off, train_in_two

from llava_video.config import from_mapping
from llava_video.errors import CheckpointError, ConfigError, ExampleError
from llava_video.model.checkpoint import load_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config
from llava_video.model.vision_tower import VisionTower
from llava_video.ops.tile_frames import normalised
from llava_video.train.examples import ExampleMaker
from llava_video.train.forward import TrainingModel, pack
from llava_video.train.mixture import read_mixture
from llava_video.train.run import Trained, check_stage, difference, train, with_model
from llava_video.train.settings import NewModel, StageSettings

Stage = Callable[..., StageSettings]


@pytest.fixture
def stage(tmp_path: Path, tiny_folder: Path, data_file: Path) -> Stage:
    """Return a maker of stages: six examples, two a batch, two batches a step, four steps."""

    def made(**changes: Any) -> StageSettings:
        values = {
            "model": str(tiny_folder),
            "output": str(tmp_path / "run"),
            "learn": ["projector", "learned_tokens", "language_model"],
            "learning_rate": 1e-3,
            "batch_size": 2,
            "accumulate": 2,
            "epochs": 2,
            "save_every": 1,
            "log_every": 1,
            **changes,
        }
        data = {
            "sources": [{"path": str(data_file)}],
            "max_frames": 3,
            "num_workers": 0,
            **values.pop("data", {}),
        }
        return from_mapping(StageSettings, {**values, "data": data})

    return made


def loaded(folder: Path) -> LlavaModel:
    return load_model(folder, config=read_model_config(folder), device="cpu")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(loaded(folder).named_parameters())


def changed(old: dict[str, torch.Tensor], new: dict[str, torch.Tensor]) -> set[str]:
    assert old.keys() == new.keys()
    return {name for name, tensor in old.items() if not torch.equal(tensor, new[name])}


def metrics(stage: StageSettings) -> list[dict[str, Any]]:
    lines = (Path(stage.output) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_stage_changes_what_learns_and_writes_both_layouts(stage: Stage, tiny_folder: Path):
    settings = stage(layouts=["original", "hf"], learning_rate=1e-2)
    done = train(settings)
    assert set(done.folders) == {"original", "hf"}
    assert (done.num_steps, done.resumed_from) == (4, 0)
    lines = metrics(settings)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["loss"] == done.loss < lines[0]["loss"]
    assert all(line["tokens_per_s"] > 0 and 0 <= line["wait_share"] <= 1 for line in lines)
    before, after = weights(tiny_folder), weights(done.folders["original"])
    different = changed(before, after)
    assert not any(name.startswith("vision_tower") for name in different)
    assert {"image_newline", "projector.linear1.weight"} <= different
    assert "language_model.layers.1.down_proj.weight" in different
    assert changed(after, weights(done.folders["hf"])) == set()


def test_transformers_gives_the_trained_models_logits(stage: Stage, tmp_path: Path):
    import transformers

    from llava_video.model.tiny import write_tiny_checkpoint

    folder = write_tiny_checkpoint(tmp_path / "ov", member="LLaVA-OneVision")
    settings = stage(model=str(folder), max_steps=2, layouts=["hf"])
    done = train(settings)
    spec_model = loaded(done.folders["original"])
    from llava_video.model.spec import read_spec

    maker = ExampleMaker(read_spec(folder), settings.data)
    example = maker.example(read_mixture(settings.data.sources, 0)[4])
    batch = pack([example])
    with torch.no_grad():
        learner = TrainingModel(spec_model)
        visuals = learner.visuals(batch["plans"], batch["tiles"])
        hidden = learner.hidden_rows(
            learner.spliced(batch["ids"], visuals), learner.keys(batch["shares"])
        )
        ours = spec_model.language_model.logits(hidden)
        peer = transformers.LlavaOnevisionForConditionalGeneration.from_pretrained(
            done.folders["hf"], dtype=torch.float32
        )
        mark, count = peer.config.video_token_id, example.plans[0].num_tokens
        ids = [one for id_ in example.ids for one in ([mark] * count if id_ == -200 else [id_])]
        vision = spec_model.dimensions.vision
        tiles = normalised(example.tiles, vision.pixel_mean, vision.pixel_std)
        theirs = peer(input_ids=torch.tensor([ids]), pixel_values_videos=tiles[None]).logits[0]
    width = ours.shape[1]
    assert (ours - theirs[:, :width]).abs().max() <= 1e-4
    assert ours.abs().max() > 1


def test_a_step_is_one_mean_however_it_is_cut(stage: Stage, tmp_path: Path):
    """Two batches of one example are the mean over all their tokens, not of two means."""
    values = {"data": {"group_by": "none"}, "max_steps": 2}
    losses = []
    for batch_size, accumulate in ((2, 1), (1, 2)):
        settings = stage(
            output=str(tmp_path / str(accumulate)),
            batch_size=batch_size,
            accumulate=accumulate,
            **values,
        )
        train(settings)
        losses.append([(line["loss"], line["grad_norm"]) for line in metrics(settings)])
    assert np.allclose(*losses, rtol=1e-4)


@pytest.mark.parametrize("num_calls", [1, 3, 4])
def test_a_broken_run_goes_on_bit_for_bit(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_calls: int
):
    whole = train(stage(output=str(tmp_path / "whole")))
    settings = stage(output=str(tmp_path / "broken"))
    broken_off(settings, monkeypatch, num_calls)
    done = train(settings)
    # An epoch of six examples is three batches: steps of two and of one.
    assert done.resumed_from == {1: 0, 3: 2, 4: 2}[num_calls]
    assert changed(weights(whole.folders["original"]), weights(done.folders["original"])) == set()
    losses = [line["loss"] for line in metrics(settings)]
    assert losses == [line["loss"] for line in metrics(stage(output=str(tmp_path / "whole")))]


def test_kept_features_teach_the_same(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    encoded: list[int] = []
    whole = VisionTower.forward

    def counted(tower: VisionTower, pixels: torch.Tensor) -> torch.Tensor:
        encoded.append(len(pixels))
        return whole(tower, pixels)

    monkeypatch.setattr(VisionTower, "forward", counted)
    train(stage(output=str(tmp_path / "anew")))
    num_anew = sum(encoded)
    encoded.clear()
    kept = train(stage(output=str(tmp_path / "kept"), keep_features_mb=100))
    # An epoch shows three frames twice, and five tiles of pictures of which no two are alike.
    assert num_anew == 2 * (2 * 3 + 5)
    assert sum(encoded) == 3 + 5
    losses = [
        [line["loss"] for line in metrics(stage(output=str(tmp_path / name)))]
        for name in ("anew", "kept")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert kept.folders["original"].is_dir()


@pytest.mark.parametrize("num_calls", [3, 4])
def test_workers_and_dropout_go_on_bit_for_bit(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_calls: int
):
    pytest.importorskip("peft")
    how = {
        "learn": ["projector"],
        "lora": {"r": 2, "alpha": 4, "dropout": 0.3},
        "data": {"num_workers": 1},
    }
    whole = train(stage(output=str(tmp_path / "whole"), **how))
    settings = stage(output=str(tmp_path / "broken"), **how)
    broken_off(settings, monkeypatch, num_calls)
    # At the end of an epoch, where workers that are there already start no more; and within one.
    done = train(settings)
    assert done.resumed_from == 2
    assert changed(weights(whole.folders["original"]), weights(done.folders["original"])) == set()


def test_a_checkpoint_cut_off_in_the_middle_is_passed_over(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = stage(keep=3)
    broken_off(settings, monkeypatch, 4)
    torn = Path(settings.output) / "checkpoint-9"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    (torn / "trainer_state.json").write_text('{"global_step": 9, ')
    assert train(settings).resumed_from == 2


def test_other_settings_are_told_apart(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    broken_off(stage(keep=9), monkeypatch, 3)
    other = stage(learning_rate=2e-3, data={"max_tokens": 99}, log_every=2)
    with pytest.raises(ConfigError) as caught:
        train(other)
    assert "learning_rate: 0.001 → 0.002" in str(caught.value)
    assert "data.max_tokens: 32768 → 99" in str(caught.value)
    assert "log_every" not in str(caught.value)
    settings = stage(log_every=4, save_every=4, keep=9)
    assert train(settings).resumed_from == 2
    # How often it logs and saves is what this run says: after 1, 2 and now 4 steps.
    assert [line["step"] for line in metrics(settings)] == [1, 2, 4]
    assert {path.name for path in Path(settings.output).glob("checkpoint-*")} == {
        f"checkpoint-{step}" for step in (1, 2, 4)
    }


def test_a_finished_or_foreign_folder_is_refused(stage: Stage, tmp_path: Path):
    train(stage(max_steps=1))
    with pytest.raises(ConfigError, match="whole result"):
        train(stage(max_steps=1))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(ConfigError, match="not empty"):
        train(stage(output=str(tmp_path / "other")))


def test_sizes_of_no_model_leave_the_folder_free(stage: Stage, new_model: NewModel):
    made = replace(stage(), model="", new=replace(new_model, patch_px=99))
    with pytest.raises(CheckpointError, match="patch_size"):
        with_model(made)
    assert not Path(made.output).exists()
    assert Path(with_model(replace(made, new=new_model)).model).is_dir()


@pytest.mark.parametrize(("template", "kept"), [("plain", None), ("qwen_2_5", "qwen_2_5")])
def test_only_a_chat_template_is_kept(
    stage: Stage, tiny_folder: Path, data_file: Path, template: str, kept: str | None
):
    """Captions say how a stage learns; the model it leaves is asked as the one it began with."""
    path = data_file.parent / "captions.json"
    path.write_text(json.dumps([json.loads(data_file.read_text())[2]]))
    values = {"data": {"sources": [{"path": str(path)}]}, "max_steps": 1, "layouts": ["hf"]}
    settings = stage(template=template, **values)
    done, asked = train(settings), train(stage(output=f"{settings.output}-asked", **values))
    assert done.loss != asked.loss  # it did learn in the template
    own = read_model_config(tiny_folder).template
    assert own not in ("plain", "qwen_2_5")
    for folder in done.folders.values():
        assert read_model_config(folder).template == (kept or own)


def test_several_gpus_in_one_process_are_refused_first(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("transformers.TrainingArguments.n_gpu", 2)
    with pytest.raises(ConfigError, match="2 GPUs and one process"):
        train(stage())
    assert not Path(stage().output).exists()


def test_the_result_is_saved_after_all_processes_gathered_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    from llava_video.train.trainer import StageTrainer

    def gather(trainer: Any) -> None:
        trainer.model.model.image_newline.data.fill_(7.0)

    monkeypatch.setattr(StageTrainer, "gather", gather)
    done = train(stage(max_steps=1))
    assert (weights(done.folders["original"])["image_newline"] == 7).all()


def test_settings_are_never_noted_by_half(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    settings = stage(max_steps=1)
    broken_off(settings, monkeypatch, 0)
    noted = (Path(settings.output) / "stage.yaml").read_text()
    write = Path.write_text

    def torn(path: Path, text: str, **given: Any) -> int:
        write(path, text[:9], **given)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", torn)
        with pytest.raises(KilledError):
            train(settings)
    assert (Path(settings.output) / "stage.yaml").read_text() == noted
    # What another process is about to note is no foreign file.
    (Path(settings.output) / "stage.yaml").rename(Path(settings.output) / ".0.yaml")
    assert train(settings).num_steps == 1


def test_differences_by_hand():
    old, new = {"a": 1, "b": {"c": [1], "d": 2}, "e": None}, {"a": 1, "b": {"c": [2], "d": 2}}
    assert difference(old, {**new, "e": {"f": 1}}) == ["b.c: [1] → [2]", 'e: null → {"f": 1}']
    assert difference(old, old) == []


def with_lost_picture(data_file: Path, path: Path) -> str:
    entries = json.loads(data_file.read_text())
    lost = {**entries[2], "image": "none.png"}
    path.write_text(json.dumps([*entries, lost]))
    return str(path)


def test_broken_examples_are_counted_or_the_end(stage: Stage, data_file: Path):
    path = with_lost_picture(data_file, data_file.parent / "lost.json")
    data = {"sources": [{"path": path}]}
    report = check_stage(stage(data=data))
    assert (report.num_examples, report.num_broken) == (7, 1)
    settings = stage(data=data)
    train(settings)
    assert metrics(settings)[-1]["broken"] == {"missing file": 2}  # once an epoch
    with pytest.raises(ExampleError, match=r"none\.png"):
        train(stage(output=f"{settings.output}-strict", data={**data, "broken": "error"}))


def test_bf16_and_layers_computed_again(stage: Stage):
    done: list[Trained] = [
        train(stage(output=f"{stage().output}-{bf16}-{again}", bf16=bf16, checkpointing=again))
        for bf16, again in ((False, False), (False, True), (True, False))
    ]
    assert done[0].loss == done[1].loss
    assert done[2].loss == pytest.approx(done[0].loss, rel=0.05)
    assert done[2].loss != done[0].loss


@pytest.mark.slow
def test_two_processes_learn_what_one_does(stage: Stage, tmp_path: Path):
    """Two gloo processes of one example each a step, against one process of two."""
    values = {"accumulate": 1, "data": {"group_by": "none"}}
    whole = train(stage(output=str(tmp_path / "one"), **values))
    settings = stage(output=str(tmp_path / "two"), batch_size=1, **values)
    train_in_two(settings, tmp_path)
    lines = [metrics(stage(output=str(tmp_path / name))) for name in ("one", "two")]
    losses = [[(line["loss"], line["grad_norm"]) for line in own] for own in lines]
    assert len(losses[0]) == 6
    assert np.allclose(*losses, rtol=1e-3)
    one, two = weights(whole.folders["original"]), weights(tmp_path / "two" / "original")
    begun = weights(Path(settings.model))
    moved, apart = (
        torch.cat([(one[name] - other[name]).flatten() for name in one]).norm()
        for other in (begun, two)
    )
    assert apart <= 0.02 * moved


@pytest.mark.slow
def test_two_processes_are_not_followed_by_one(stage: Stage, tmp_path: Path):
    settings = stage(output=str(tmp_path / "two"), batch_size=1, save_every=1)
    train_in_two(settings, tmp_path)
    shutil.rmtree(tmp_path / "two" / "original")
    with pytest.raises(ConfigError, match="was written by 2 processes, and this is a run of 1"):
        train(settings)


@pytest.mark.slow
def test_a_killed_process_goes_on_bit_for_bit(stage: Stage, tmp_path: Path):
    whole = train(stage(output=str(tmp_path / "whole"), epochs=40))
    settings = stage(output=str(tmp_path / "killed"), epochs=40)
    kills = 0
    for at_step in (5, 23, 48):
        process = begin_process(settings, tmp_path)
        while process.poll() is None:
            log = tmp_path / "killed" / "metrics.jsonl"
            if log.is_file() and len(log.read_text().splitlines()) >= at_step:
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        process.wait()
    assert kills == 3
    done = train(settings)
    assert 0 < done.resumed_from < 80
    assert changed(weights(whole.folders["original"]), weights(done.folders["original"])) == set()
