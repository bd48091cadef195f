"""How much faster is a step of training than transformers' LlavaOnevision with its own Trainer?

The same weights, tiles, tokens and optimiser; clips of as many frames, conversations of different
lengths. Theirs is the plain loop: padded batches, a mask, logits of every position. Ours packs them
without padding, and the head sees only rows that lead to a learned token. Both run `Trainer.train`,
in turn; what is counted are tokens that are no padding. Nothing is decoded. Compute bound. Good: at
least 1.3 x their tokens/s at the small size on a CPU, the losses of the first batch equal.

    python benchmarks/training.py [--size tiny|small] [--steps 4] [--append] [--check]
"""

import copy
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Timing, interleaved, parser_of, ratio, report
from transformers import PrinterCallback, Trainer
from twin import TINY, onevision_config, twins

from llava_video.config import from_mapping
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import ModelConfig, geometry_of
from llava_video.planning.layout import video_layout, visual_plan
from llava_video.train.batches import Examples, Made
from llava_video.train.forward import Example, TrainingModel, pack
from llava_video.train.mixture import Record
from llava_video.train.settings import StageSettings
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
_BATCH = 4
_MARK = -200


@dataclass(frozen=True, slots=True)
class Side:
    """One loop: runs some steps, and gives the loss of the first batch."""

    trainer: Any
    first_loss: float


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
    parser = parser_of(__doc__)
    parser.add_argument("--size", choices=("tiny", "small"), default="small")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args(arguments)
    if asked.check:
        asked.size, asked.frames, asked.steps, asked.repeats = "tiny", 2, 2, 2
    config = onevision_config(SMALL if asked.size == "small" else TINY)
    with tempfile.TemporaryDirectory() as scratch:
        row = compare(
            config,
            Path(scratch),
            num_frames=asked.frames,
            num_steps=asked.steps,
            repeats=asked.repeats,
        )
    row = {"size": asked.size, "dtype": "float32", **row, "check": asked.check}
    report(f"training_{asked.size}", row, append=asked.append)
    return 0 if row["same_loss"] and (row["ratio"] >= LEAST_RATIO or asked.check) else 1


def compare(
    config: ModelConfig, scratch: Path, *, num_frames: int, num_steps: int, repeats: int
) -> dict[str, Any]:
    """Time both loops over the same examples; return the row."""
    ours, theirs = twins(config)
    theirs = copy.deepcopy(theirs)  # two optimisers, two sets of weights
    examples = _examples(config, num_frames, _BATCH * num_steps)
    num_tokens = sum(example.num_rows for example in examples)
    sides = {
        "transformers": _their_side(theirs, examples, scratch / "theirs", num_steps),
        "llava_video": _our_side(ours, examples, scratch / "ours", num_steps),
    }
    timings = interleaved(
        {name: side.trainer.train for name, side in sides.items()}, repeats=repeats, budget_s=900
    )
    longest = _longest(examples)
    rates = {name: num_tokens / timing.p50_s for name, timing in timings.items()}
    losses = {name: side.first_loss for name, side in sides.items()}
    for name, timing in timings.items():
        print(f"{name:<13} {rates[name]:9,.0f} tokens/s; {num_steps} steps {timing}")
    found = ratio(timings["transformers"], timings["llava_video"])
    print(f"{found:.2f} x; padding is {1 - num_tokens / longest:.0%} of their batches.")
    return {
        "frames": num_frames,
        "batch": _BATCH,
        "steps": num_steps,
        "tokens": num_tokens,
        "padded_tokens": longest,
        "ratio": found,
        "best_ratio": _best(timings["transformers"], timings["llava_video"]),
        "tokens_per_s": rates,
        "losses": losses,
        "same_loss": abs(losses["transformers"] - losses["llava_video"]) <= 1e-4,
        "timings": {name: timing.to_json() for name, timing in timings.items()},
    }


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
        noise = generator.standard_normal((num_frames, 3, px, px), dtype=np.float32)
        made.append(
            Example(
                ids=(*ids[:8], _MARK, *ids[8:]),
                labels=(*[-100] * (length + 1 - learned), *ids[length - learned :]),
                plans=(plan,),
                tiles=torch.from_numpy(noise),
            )
        )
    return made


def _stage(folder: Path, num_steps: int) -> StageSettings:
    values = {
        "model": "twin",
        "output": str(folder),
        "learn": ["vision_tower", "projector", "learned_tokens", "language_model"],
        "batch_size": _BATCH,
        "max_steps": num_steps,
        "save_every": 10**6,
        "log_every": num_steps,
        "data": {"sources": [{"path": "none"}], "group_by": "none", "num_workers": 0},
    }
    return from_mapping(StageSettings, values)


def _our_side(model: LlavaModel, examples: Sequence[Example], folder: Path, num_steps: int) -> Side:
    folder.mkdir()
    model.requires_grad_(True)
    stage = _stage(folder, num_steps)
    training = TrainingModel(model)
    with torch.no_grad():
        loss = training(**pack(examples[:_BATCH]))["loss"]
    arguments = training_arguments(stage, bf16=False)
    arguments.save_strategy = "no"
    return Side(StageTrainer(training, Ready(examples), stage, arguments), float(loss))


def _their_side(model: Any, examples: Sequence[Example], folder: Path, num_steps: int) -> Side:
    model.requires_grad_(True)
    arguments = training_arguments(_stage(folder, num_steps), bf16=False)
    arguments.save_strategy = "no"
    collate = _Padding(model.config.video_token_id)
    with torch.no_grad():
        loss = model(**collate(examples[:_BATCH])).loss
    trainer = Trainer(
        model=model, args=arguments, train_dataset=list(examples), data_collator=collate
    )
    trainer.remove_callback(PrinterCallback)
    return Side(trainer, float(loss))


@dataclass(frozen=True, slots=True)
class _Padding:
    """Collates as a plain loop does: every example as long as the longest of its batch."""

    mark: int

    def __call__(self, examples: Sequence[Example]) -> Mapping[str, torch.Tensor]:
        longest = max(example.num_rows for example in examples)
        ids = torch.zeros(len(examples), longest, dtype=torch.int64)
        labels = torch.full((len(examples), longest), -100)
        mask = torch.zeros(len(examples), longest, dtype=torch.int64)
        for row, example in enumerate(examples):
            own = pack([example])
            count = example.plans[0].num_tokens
            spelled: list[int] = []
            for id_ in example.ids:
                spelled += [self.mark] * count if id_ == _MARK else [id_]
            ids[row, : len(spelled)] = torch.tensor(spelled)
            labels[row, : len(spelled)] = own["labels"]
            mask[row, : len(spelled)] = 1
        tiles = torch.stack([example.tiles for example in examples])
        return {
            "input_ids": ids,
            "labels": labels,
            "attention_mask": mask,
            "pixel_values_videos": tiles,
        }


def _longest(examples: Sequence[Example]) -> int:
    """Return the tokens of their batches, in the order given."""
    batches = [examples[i : i + _BATCH] for i in range(0, len(examples), _BATCH)]
    return sum(max(one.num_rows for one in batch) * len(batch) for batch in batches)


def _best(theirs: Timing, ours: Timing) -> float:
    return theirs.best_s / ours.best_s


if __name__ == "__main__":
    sys.exit(main())
