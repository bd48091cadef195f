"""How much faster is a step of training than transformers' LlavaOnevision with its own Trainer?

The same weights, tiles, tokens, frozen parts and batches; clips of as many frames, conversations of
different lengths. Theirs is the plain loop: padded batches, a mask, logits of every position. Ours
packs them without padding, and the head sees only rows that lead to a learned token. Both run
`Trainer.train` over the same batches, AdamW and SDPA; what is counted are tokens that are no
padding, in the steps after the first. Nothing is decoded. Compute bound. Good: at least 1.3 x their
tokens/s, the losses of the first example equal in float32.

`half_b` is LLaVA-OneVision 0.5B with SigLIP so400m, of drawn weights: bfloat16 autocast and
gradient checkpointing on both sides, once with the tower frozen and once with all parts learning.
On a GPU one side runs after the other, on a CPU they take turns.

    python benchmarks/training.py [--size tiny|small|half_b] [--device cpu|cuda] [--steps 4]
        [--append] [--check]
"""

import gc
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Timing, parser_of, report, synchronize
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
from llava_video.train.parts import compute_again, set_learning
from llava_video.train.settings import PARTS, Part, StageSettings
from llava_video.train.trainer import StageTrainer, training_arguments

LEAST_RATIO = 1.3

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
# Losses in float32 of models this deep differ by so much where only the order of sums does.
_MOST_APART = {"tiny": 1e-4, "small": 1e-4, "half_b": 2e-3}


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where ours is too slow or learns something else."""
    started_s = time.perf_counter()
    parser = parser_of(__doc__)
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--budget-s", type=float, default=900, help="no run begins after so long")
    asked = parser.parse_args(arguments)
    torch.backends.cudnn.allow_tf32 = False  # losses are compared in float32
    if asked.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the Trainer takes a GPU where it sees one
    cases = _cases(asked)
    repeats = asked.repeats or (2 if asked.check else 3 if asked.device == "cuda" else 7)
    is_good = True
    for idx, case in enumerate(cases):
        share = (idx + 1) / len(cases)
        with tempfile.TemporaryDirectory() as scratch:
            until_s = started_s + asked.budget_s * share
            row = compare(
                case, Path(scratch), repeats=2 if asked.check else repeats, until_s=until_s
            )
        report(f"training_{case.size}", {**row, "check": asked.check}, append=asked.append)
        is_good &= row["same_loss"] and (row["ratio"] >= LEAST_RATIO or asked.check)
    return 0 if is_good else 1


def _cases(asked: Any) -> list[Case]:
    """Return what is compared: two cases where the published stages differ, at toy size too."""
    if asked.check:
        case = Case(size="tiny", device=asked.device, frames=2, steps=2)
        stage = replace(case, learn=PARTS[1:], bf16=True, checkpointing=True)
        return [stage, case]
    case = Case(size=asked.size, device=asked.device, steps=asked.steps, batch=asked.batch)
    if asked.size != "half_b":
        return [replace(case, frames=asked.frames or 8)]
    case = replace(case, frames=asked.frames or 16, bf16=True, checkpointing=True)
    return [replace(case, learn=PARTS[1:]), case]


def compare(case: Case, scratch: Path, *, repeats: int, until_s: float) -> dict[str, Any]:
    """Time both loops over the same examples; return the row."""
    examples = _examples(case.config, case.frames, case.batch * (case.steps + 1))
    makers: dict[str, Callable[[], Side]] = {
        "llava_video": lambda: _our_side(case, examples, scratch / "ours"),
        "transformers": lambda: _their_side(case, examples, scratch / "theirs"),
    }
    run = _one_by_one if case.device == "cuda" else _in_turn
    timings, losses, peaks = run(makers, repeats, until_s)
    counted = examples[case.batch :]
    num_tokens = sum(example.num_rows for example in counted)
    longest = _longest(counted, case.batch)
    rates = {name: num_tokens / timing.p50_s for name, timing in timings.items()}
    theirs, ours = timings["transformers"], timings["llava_video"]
    # Taken in turn, neighbouring runs have met the same moments of the machine.
    pairs = zip(theirs.seconds, ours.seconds, strict=False)
    ratio = statistics.median(one / other for one, other in pairs)
    print(f"{case.size}, {', '.join(case.learn)} learning:")
    for name, timing in timings.items():
        print(f"  {name:<13} {rates[name]:9,.0f} tokens/s; {case.steps} steps {timing}")
    print(f"  {ratio:.2f} x; padding is {1 - num_tokens / longest:.0%} of their batches.")
    apart = abs(losses["transformers"] - losses["llava_video"])
    return {
        "size": case.size,
        "learn": list(case.learn),
        "dtype": "bfloat16 autocast" if case.bf16 else "float32",
        "checkpointing": case.checkpointing,
        "frames": case.frames,
        "batch": case.batch,
        "steps": case.steps,
        "tokens": num_tokens,
        "padded_tokens": longest,
        "ratio": ratio,
        "best_ratio": theirs.best_s / ours.best_s,
        "tokens_per_s": rates,
        "losses": losses,
        "same_loss": apart <= _MOST_APART[case.size],
        "peak_bytes": peaks,
        "timings": {name: timing.to_json() for name, timing in timings.items()},
    }


_Found = tuple[dict[str, Timing], dict[str, float], dict[str, int]]


def _in_turn(makers: Mapping[str, Callable[[], Side]], repeats: int, until_s: float) -> _Found:
    """Make all sides and run them in turn: a slow moment of the machine meets all of them."""
    sides = {name: make() for name, make in makers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):  # the first warms up
        if repeat > 1 and time.perf_counter() >= until_s:
            break
        for name, side in sides.items():
            taken_s = side.run_s()
            if repeat:
                seconds[name].append(taken_s)
    timings = {name: Timing(tuple(taken)) for name, taken in seconds.items()}
    return timings, {name: side.first_loss for name, side in sides.items()}, {}


def _one_by_one(makers: Mapping[str, Callable[[], Side]], repeats: int, until_s: float) -> _Found:
    """Make and run one side after the other: both may not fit on the device together."""
    timings: dict[str, Timing] = {}
    losses: dict[str, float] = {}
    peaks: dict[str, int] = {}
    for idx, (name, make) in enumerate(makers.items()):
        begun_s = time.perf_counter()
        share_s = (until_s - begun_s) / (len(makers) - idx)
        side = make()
        torch.cuda.reset_peak_memory_stats()
        taken: list[float] = []
        while len(taken) < repeats and (not taken or time.perf_counter() < begun_s + share_s):
            taken.append(side.run_s())
        timings[name] = Timing(tuple(taken))
        losses[name], peaks[name] = side.first_loss, torch.cuda.max_memory_allocated()
        print(
            f"  {name}: {timings[name]}, {time.perf_counter() - begun_s:.0f} s in all", flush=True
        )
        del side
        gc.collect()
        torch.cuda.empty_cache()
    return timings, losses, peaks


def _examples(config: ModelConfig, num_frames: int, num_examples: int) -> list[Example]:
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


def _our_side(case: Case, examples: Sequence[Example], folder: Path) -> Side:
    folder.mkdir()
    model, _ = twins(case.config, device=case.device)
    set_learning(model, case.learn)
    if case.checkpointing:
        compute_again(model)
    training, stage = TrainingModel(model), case.stage(folder)
    with torch.no_grad():
        loss = training(**pack(examples[:1]))["loss"]
    trainer = StageTrainer(training, Ready(examples), stage, _arguments(case, stage))
    return Side(_with_order(trainer, examples), float(loss))


def _their_side(case: Case, examples: Sequence[Example], folder: Path) -> Side:
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


def _longest(examples: Sequence[Example], batch: int) -> int:
    """Return the tokens of their batches, in the order given."""
    batches = [examples[i : i + batch] for i in range(0, len(examples), batch)]
    return sum(max(one.num_rows for one in some) * len(some) for some in batches)


if __name__ == "__main__":
    sys.exit(main())
