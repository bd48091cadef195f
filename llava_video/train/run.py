"""A stage's settings → a trained checkpoint: load, freeze, train or go on, save in both layouts.

A run's folder holds `stage.yaml` (what was asked), `metrics.jsonl`, perhaps `tensorboard`, the last
checkpoints to resume from, and at the end one folder per layout.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from llava_video import backends
from llava_video.config import read_yaml, to_mapping, to_yaml
from llava_video.errors import CheckpointError, ConfigError
from llava_video.files import replacing
from llava_video.model.checkpoint import load_model, save_model
from llava_video.model.convert import convert_checkpoint
from llava_video.model.llava import LlavaModel
from llava_video.model.sources import find_sources
from llava_video.model.spec import ModelSpec, read_spec
from llava_video.train.batches import Examples
from llava_video.train.check import DataReport, check_data
from llava_video.train.checkpoints import check_processes, last_checkpoint
from llava_video.train.deepspeed_file import read_deepspeed, with_sizes
from llava_video.train.dense import DenseTraining
from llava_video.train.examples import ExampleMaker
from llava_video.train.features import keep_features
from llava_video.train.forward import TrainingModel
from llava_video.train.lora import add_lora, check_base, save_adapter
from llava_video.train.mixture import read_mixture
from llava_video.train.new_model import check_new_model, world_texts, write_new_model
from llava_video.train.parts import compute_again, draw, run_in_bfloat16, set_learning
from llava_video.train.preference_loss import PreferenceModel, frozen_copy
from llava_video.train.preferences import PairMaker
from llava_video.train.settings import StageSettings
from llava_video.train.small_world import WorldExamples

SETTINGS = "stage.yaml"

# What may differ between the runs of one stage: how often it logs and saves, and how it reads.
_FREE = (
    "name",
    "log_every",
    "metrics",
    "save_every",
    "keep",
    "layouts",
    "data.num_workers",
    "keep_features_mb",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a stage left.

    Attributes:
        folders: "original", "hf" or "adapter" → checkpoint; empty in all processes but the first.
        num_steps: of the optimiser, all runs together.
        loss: of the last line of metrics; None where there is none.
        resumed_from: the step this run went on from; 0 for a new one.
        broken: kind → how often an example that breaks so was left out, all processes and runs
            together where metrics.jsonl is written; one is met again in every epoch.
    """

    folders: Mapping[str, Path]
    num_steps: int
    loss: float | None
    resumed_from: int
    broken: Mapping[str, int]


def check_stage(
    stage: StageSettings, progress: Callable[[int, int], None] | None = None
) -> DataReport:
    """Look into the whole data set of a stage; no weight is read.

    Args:
        stage: the settings.
        progress: as `check_data`.

    Raises:
        CheckpointError: the model cannot be found. ConfigError: the mixture cannot be read, or the
            data are no files.
    """
    if stage.data.world is not None:
        raise ConfigError(
            "the small world's clips are drawn while a stage runs: there is no file to check.",
            "leave --check out; max_steps=1 tries a stage.",
        )
    spec = _spec_of(stage, weights=False).with_template(stage.template)
    records = read_mixture(stage.data.sources, stage.seed)
    return check_data(_maker_of(stage, spec), records, progress)


def train(
    stage: StageSettings, on_line: Callable[[Mapping[str, Any]], None] | None = None
) -> Trained:
    """Train one stage, or go on with it where its folder holds a checkpoint.

    Args:
        stage: the settings.
        on_line: called with every line of metrics.

    Raises:
        BackendMissingError: the stage wants PEFT, DeepSpeed or TensorBoard, which is not here.
        CheckpointError: the model cannot be loaded or saved.
        ConfigError: the folder holds another stage, whose difference is named; the mixture cannot
            be read; one process sees several GPUs; a checkpoint is of other processes; the
            DeepSpeed file cannot be read, or has an optimiser or a schedule.
        ExampleError: an example breaks, where the settings say that this is the end.
    """
    from llava_video.train.preference_trainer import PreferenceTrainer
    from llava_video.train.trainer import StageTrainer, training_arguments

    for name, is_used in (
        ("peft", stage.lora is not None),
        ("deepspeed", stage.deepspeed is not None),
        ("tensorboard", "tensorboard" in stage.metrics),
    ):
        if is_used:
            backends.require(name)
    _check_folder(stage)
    bf16 = _has_bf16() if stage.bf16 == "auto" else stage.bf16
    arguments = training_arguments(stage, bf16=bf16, deepspeed=_deepspeed_of(stage))
    begun = last_checkpoint(Path(stage.output))
    check_processes(arguments.n_gpu, arguments.world_size, begun)
    asked, stage = stage, with_model(stage)
    begun_with = _spec_of(stage, weights=True)
    spec = begun_with.with_template(stage.template)
    examples = _examples_of(stage, spec)
    net = _model_of(stage, spec, bf16=bf16)
    _begin(asked)
    loop = StageTrainer if stage.dpo is None else PreferenceTrainer
    trainer = loop(net, examples, stage, arguments, on_line)
    trainer.train(resume_from_checkpoint=None if begun is None else str(begun))
    broken = trainer.counts()["broken"]  # which all processes have to ask at once
    trainer.gather()
    # Captions are no conversations: a model that learned from them is asked as it was before.
    kept = begun_with if stage.template == "plain" else spec
    folders = _save(stage, kept, net.model) if trainer.is_world_process_zero() else {}
    trainer.accelerator.wait_for_everyone()  # a stage that follows reads what was saved
    logged = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    return Trained(
        folders=folders,
        num_steps=trainer.state.global_step,
        loss=logged[-1] if logged else None,
        resumed_from=0 if begun is None else int(begun.name.rpartition("-")[2]),
        broken=broken,
    )


def is_done(stage: StageSettings) -> bool:
    """Say whether a stage's folder holds its whole result."""
    found = all(one.exists() for one in results(stage).values())
    if found:
        _check_settings(stage)
    return found


def results(stage: StageSettings) -> dict[str, Path]:
    """Return what a stage leaves, by its folder's name; each appears when it is whole."""
    names = ("original", *stage.layouts, *(("adapter",) if stage.lora else ()))
    return {name: Path(stage.output) / name for name in names}


def with_model(stage: StageSettings) -> StageSettings:
    """Make the new model of a stage, where it has one, and name it."""
    if stage.new is None:
        return stage
    check_new_model(stage.new)  # or the folder would be that of a stage that cannot begin
    folder = _begin(stage) / "new"
    if not folder.exists():
        try:
            write_new_model(folder, stage.new, world_texts(stage.new.clips))
        except CheckpointError:
            if not folder.exists():
                raise  # else another process of this stage was faster, with the same bytes
    return replace(stage, model=str(folder), new=None)


def difference(old: Mapping[str, Any], new: Mapping[str, Any], place: str = "") -> list[str]:
    """Return what two settings have unlike, one line each: "data.max_tokens: 9 → 10"."""
    lines: list[str] = []
    for key in sorted({*old, *new}):
        one, other, name = old.get(key), new.get(key), f"{place}{key}"
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            lines += difference(one, other, f"{name}.")
        elif one != other and name not in _FREE:
            lines.append(f"{name}: {json.dumps(one)} → {json.dumps(other)}")
    return lines


def _check_folder(stage: StageSettings) -> None:
    """See that the run's folder is new, or this stage's and not finished."""
    folder = Path(stage.output)
    if (folder / SETTINGS).is_file():
        _check_settings(stage)
    # Another process may be about to note the settings, under a hidden name first.
    elif folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise ConfigError(f"{folder} is not empty, and no stage of training.", "name a new folder.")
    if is_done(stage):
        raise ConfigError(f"{folder} holds the whole result of this stage.", "name a new folder.")


def _check_settings(stage: StageSettings) -> None:
    """See that a folder's stage was begun with these settings."""
    folder = Path(stage.output)
    path = folder / SETTINGS
    if path.is_file():
        lines = difference(to_mapping(read_yaml(StageSettings, path)), to_mapping(stage))
        if lines:
            raise ConfigError(
                f"{folder} holds a stage with other settings: {'; '.join(lines)}.",
                "name a new output folder, or give the settings it was begun with.",
            )


def _begin(stage: StageSettings) -> Path:
    """Make the run's folder and note the settings in it."""
    folder = Path(stage.output)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / SETTINGS) as unfinished:
        unfinished.write_text(to_yaml(stage), encoding="utf-8")
    return folder


def _deepspeed_of(stage: StageSettings) -> dict[str, Any] | None:
    """Return what a stage's DeepSpeed file says, in the sizes of its model."""
    if stage.deepspeed is None:
        return None
    values = read_deepspeed(stage.deepspeed)  # what is wrong with it is said before any model's
    if stage.new is not None:
        return with_sizes(values, stage.new.hidden_size)
    spec = _spec_of(stage, weights=False)
    return with_sizes(values, spec.config.dimensions.text.hidden_size)


def _spec_of(stage: StageSettings, *, weights: bool) -> ModelSpec:
    spec = read_spec(
        stage.model,
        base=stage.base,
        vision_tower=stage.vision_tower,
        files="all" if weights else "config",
        dtype="float32",
    )
    if not weights:
        return spec
    sources = find_sources(stage.model, base=stage.base, vision_tower=stage.vision_tower)
    return replace(spec, sources=sources)


def _model_of(stage: StageSettings, spec: ModelSpec, *, bf16: bool) -> TrainingModel:
    """Load the model on the CPU in float32, but for a quantised decoder; say what of it learns."""
    if stage.lora is not None:
        check_base(spec)
    model = load_model(
        spec.sources,
        config=spec.config,
        device="cpu",
        dtype=torch.float32,
        weights=stage.quantize or "plain",
    )
    set_learning(model, stage.learn)
    draw(model, stage.fresh, stage.seed)
    if bf16 and not stage.deepspeed and spec.config.stored_dtype == "bfloat16":
        run_in_bfloat16(model)
    if stage.keep_features_mb:
        keep_features(model, stage.keep_features_mb * 10**6)
    reference = None if stage.dpo is None else frozen_copy(model)
    if stage.lora is not None:
        add_lora(model, stage.lora, stage.seed)
    if stage.checkpointing:
        compute_again(model)
    return _learner_of(stage, model, reference)


def _maker_of(stage: StageSettings, spec: ModelSpec) -> ExampleMaker:
    maker = ExampleMaker if stage.dpo is None else PairMaker
    return maker(spec, stage.data)


def _examples_of(stage: StageSettings, spec: ModelSpec) -> Examples | WorldExamples:
    maker = _maker_of(stage, spec)
    if stage.data.world is None:
        records = read_mixture(stage.data.sources, stage.seed)
        return Examples(maker, records, stage.data)
    return WorldExamples(
        maker,
        stage.data.world,
        stage.data,
        spec.config.vision,
        dense=stage.dense,
        tiles_here=not torch.cuda.is_available(),
    )


def _learner_of(
    stage: StageSettings, model: LlavaModel, reference: LlavaModel | None
) -> TrainingModel:
    """Say how a model learns: from answers, from pairs of them, or cell by cell too."""
    if stage.dpo is not None and reference is not None:
        return PreferenceModel(model, reference, stage.dpo)
    if stage.dense is None:
        return TrainingModel(model)
    with torch.random.fork_rng():
        torch.manual_seed(stage.seed)  # of the readers
        return DenseTraining(model, stage.dense)


def _save(stage: StageSettings, spec: ModelSpec, model: LlavaModel) -> dict[str, Path]:
    """Write the result in the dtype asked for, or the model's; an adapter first, merged then.

    The spec has the template that the result is asked with.
    """
    folders = results(stage)
    original = folders["original"]
    dtype = getattr(torch, stage.dtype or spec.config.stored_dtype)
    if stage.lora is not None:
        adapter = folders["adapter"]
        if not adapter.exists():
            save_adapter(model, adapter, spec=spec, settings=stage.lora)
        if not original.exists():
            convert_checkpoint(
                adapter, original, layout="original", dtype=dtype, vision_tower=stage.vision_tower
            )
    elif not original.exists():
        model.to("cpu", dtype)
        tokenizer = spec.sources.tokenizer_folder
        save_model(model, original, config=spec.config, tokenizer_from=tokenizer)
    if "hf" in folders and not folders["hf"].exists():
        convert_checkpoint(original, folders["hf"], layout="hf")
    return folders


def _has_bf16() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
