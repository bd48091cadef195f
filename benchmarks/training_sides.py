"""Both loops that `training.py` compares: the same weights, examples, frozen parts and batches.

Ours packs the examples and is handed levels; theirs pads them, as a plain loop of transformers'
`Trainer` does, and is handed tiles that are normalised already.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import synchronize
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback
from twin import HALF_B, TINY, onevision_config, twins

from llava_video.config import from_mapping
from llava_video.model.model_config import ModelConfig, geometry_of
from llava_video.ops.tile_frames import normalised
from llava_video.planning.layout import video_layout, visual_plan
from llava_video.train.batches import Examples, Made
from llava_video.train.forward import Example, TrainingModel, pack
from llava_video.train.mixture import Record
from llava_video.train.parts import compute_again, run_in_bfloat16, set_learning
from llava_video.train.settings import PARTS, Part, StageSettings
from llava_video.train.trainer import StageTrainer, training_arguments

# About the size of a model that two cores can train in hours.
SMALL: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 4096,
    "tie_word_embeddings": False,
    "vision_config": {
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 8,
    },
}
SIZES = {"tiny": TINY, "small": SMALL, "half_b": HALF_B}
_MARK = -200


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is compared.

    Attributes:
        size: of the models.
        device: where.
        learn: which parts learn; the others are frozen on both sides.
        bf16: whether products are in bfloat16 (autocast).
        checkpointing: whether layers are computed again for their gradients.
        frames: of a clip.
        batch: examples of a step.
        steps: counted ones of a run; one more comes first.
    """

    size: str
    device: str
    learn: tuple[Part, ...] = PARTS
    bf16: bool = False
    checkpointing: bool = False
    frames: int = 8
    batch: int = 4
    steps: int = 4

    @property
    def config(self) -> ModelConfig:
        """The configuration of the models."""
        return onevision_config(SIZES[self.size])

    def stage(self, folder: Path) -> StageSettings:
        """Return the settings of our loop, which theirs takes its arguments from too."""
        values = {
            "model": "twin",
            "output": str(folder),
            "learn": list(self.learn),
            "batch_size": self.batch,
            "max_steps": self.steps + 1,
            "schedule": "constant",
            "checkpointing": self.checkpointing,
            "save_every": 10**6,
            "log_every": self.steps + 1,
            "data": {
                "sources": [{"path": "none"}],
                "group_by": "none",
                # Batches are put together beside the GPU's work, on both sides.
                "num_workers": 2 if self.device == "cuda" and _has_shared_memory() else 0,
            },
        }
        return from_mapping(StageSettings, values)


def _has_shared_memory() -> bool:
    """Whether processes can hand batches over: containers may have little room for it."""
    return shutil.disk_usage("/dev/shm").free > 4 * 2**30


@dataclass(slots=True)
class Side:
    """One loop: the loss of its first example before it learns, and runs of some steps."""

    trainer: Any
    first_loss: float

    def run_s(self) -> float:
        """Return the seconds of the counted steps."""
        clock = _Clock()
        self.trainer.add_callback(clock)
        self.trainer.train()
        self.trainer.remove_callback(clock)
        return clock.ends_s[-1] - clock.ends_s[0]


class _Clock(TrainerCallback):
    """Notes when each step has ended on the device."""

    def __init__(self) -> None:
        self.ends_s: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        synchronize()
        self.ends_s.append(time.perf_counter())


class Ready(Examples):
    """Examples that are made already: no file is read while the loops run."""

    def __init__(self, made: Sequence[Example]) -> None:
        self.records = [Record(name=str(i), values={}, folder="") for i in range(len(made))]
        self._made = made

    def __getitem__(self, idx: int) -> Made:
        """Return one of them."""
        return Made(self._made[idx], ())


def examples_of(config: ModelConfig, num_frames: int, num_examples: int) -> list[Example]:
    """Draw clips, and conversations of 24 to 160 tokens of which the last third is learned."""
    geometry = geometry_of(config, "twin", "float32")
    px = geometry.tile_px
    plan = visual_plan(
        video_layout(px, px, geometry),
        kind="video",
        source="noise",
        size_px=(px, px),
        frame_idxs=tuple(range(num_frames)),
        times_s=tuple(float(idx) for idx in range(num_frames)),
    )
    generator = np.random.default_rng(0)
    made = []
    for _ in range(num_examples):
        length = int(generator.integers(24, 160))
        ids = generator.integers(10, 250, length).tolist()
        learned = length // 3
        noise = generator.integers(0, 256, (num_frames, 3, px, px), dtype=np.uint8)
        made.append(
            Example(
                ids=(*ids[:8], _MARK, *ids[8:]),
                labels=(*[-100] * (length + 1 - learned), *ids[length - learned :]),
                plans=(plan,),
                tiles=torch.from_numpy(noise),
            )
        )
    return made


def our_side(case: Case, examples: Sequence[Example], folder: Path) -> Side:
    """Return our loop: packed batches, a loss of what is learned alone."""
    folder.mkdir()
    model, _ = twins(case.config, device=case.device)
    set_learning(model, case.learn)
    if case.checkpointing:
        compute_again(model)
    training, stage = TrainingModel(model), case.stage(folder)
    # With gradients, so that it is the training's own operations that are compared.
    loss = training(**pack(examples[:1]))["loss"].detach()
    if case.bf16:
        run_in_bfloat16(model)  # a tower that does not learn; as for a checkpoint in bfloat16
    trainer = StageTrainer(training, Ready(examples), stage, _arguments(case, stage))
    return Side(_with_order(trainer, examples), float(loss))


def their_side(case: Case, examples: Sequence[Example], folder: Path) -> Side:
    """Return theirs: padded batches, a mask, logits of every position."""
    folder.mkdir()
    _, model = twins(case.config, device=case.device)
    model.requires_grad_(True)
    if "vision_tower" not in case.learn:
        tower = model.model.vision_tower
        tower.requires_grad_(False)
        # With checkpointing their library asks gradients of a frozen tower's first layer, and
        # would compute those of all its layers: a loop that knows its tower is frozen would not.
        tower.forward = torch.no_grad()(tower.forward)
    vision = case.config.dimensions.vision
    rows = [
        _Row.of(one, model.config.video_token_id, vision.pixel_mean, vision.pixel_std)
        for one in examples
    ]
    with torch.no_grad():
        batch = {name: x.to(case.device) for name, x in _padded(rows[:1]).items()}
        loss = model(**batch).loss
    arguments = _arguments(case, case.stage(folder))
    arguments.gradient_checkpointing = case.checkpointing
    arguments.gradient_checkpointing_kwargs = {"use_reentrant": False}
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=_padded)
    trainer.remove_callback(PrinterCallback)
    return Side(_with_order(trainer, rows), float(loss))


def _arguments(case: Case, stage: StageSettings) -> Any:
    """Return the `Trainer`'s arguments of a stage, without checkpoints on the disk."""
    arguments = training_arguments(stage, bf16=case.bf16)
    arguments.save_strategy = "no"
    arguments.dataloader_persistent_workers = False  # a run is one epoch
    return arguments


def _with_order(trainer: Any, examples: Sequence[Any]) -> Any:
    """Let a trainer take the examples as they stand: both see the same batches."""
    trainer._get_train_sampler = lambda *_: SequentialSampler(examples)
    return trainer


@dataclass(frozen=True, slots=True)
class _Row:
    """An example as theirs takes it: marks spelled out, tiles normalised."""

    ids: torch.Tensor
    labels: torch.Tensor
    tiles: torch.Tensor

    @classmethod
    def of(cls, example: Example, mark: int, mean: Any, std: Any) -> "_Row":
        spelled: list[int] = []
        for id_ in example.ids:
            spelled += [mark] * example.plans[0].num_tokens if id_ == _MARK else [id_]
        labels = pack([example])["labels"]
        return cls(torch.tensor(spelled), labels, normalised(example.tiles, mean, std))


def _padded(rows: Sequence[_Row]) -> dict[str, torch.Tensor]:
    """Collate as a plain loop does: every example as long as the longest of its batch."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    labels = torch.full((len(rows), longest), -100)
    mask = torch.zeros(len(rows), longest, dtype=torch.int64)
    for idx, row in enumerate(rows):
        ids[idx, : len(row.ids)] = row.ids
        labels[idx, : len(row.ids)] = row.labels
        mask[idx, : len(row.ids)] = 1
    return {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": mask,
        "pixel_values_videos": torch.stack([row.tiles for row in rows]),
    }
