"""Does training ever wait for its data?

A small stage over real files: H.264 clips of the small world, opened, decoded, tiled and packed by
workers while the loop trains on what came before, on the same cores. What is read is what every run
notes, the share of time that a step waits for its batch (`wait_share` of metrics.jsonl), without
the first line, in which the workers begin. Beside it, what an example takes of one core. Decode
bound. Good: at most 5 %.

    python benchmarks/training_loader.py [--workers 1] [--steps 12] [--clips 24] [--side-px 64]
        [--rate-hz 2] [--append] [--check]
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from harness import parser_of, report

from llava_video.config import from_mapping
from llava_video.model.spec import read_spec
from llava_video.model.tiny import write_tiny_checkpoint
from llava_video.train.batches import Made, collate
from llava_video.train.examples import ExampleMaker
from llava_video.train.mixture import Record, read_mixture
from llava_video.train.run import train
from llava_video.train.settings import StageSettings
from llava_video.world.dataset import write_world
from llava_video.world.settings import WorldSettings

MOST_WAIT_SHARE = 0.05
_BATCH, _FRAMES = 4, 8
_LINE_STEPS = 3
# About the size of a model that two cores can train in hours.
_SIZES = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_layers": 6,
    "num_heads": 4,
    "num_kv_heads": 2,
    "vision_hidden_size": 192,
    "vision_intermediate_size": 512,
    "vision_num_layers": 4,
    "vision_num_heads": 4,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where training waits too long."""
    parser = parser_of(__doc__)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--side-px", type=int, default=64)
    parser.add_argument("--rate-hz", type=float, default=2.0)
    asked = parser.parse_args(arguments)
    if asked.check:
        asked.steps, asked.clips = 3 * _LINE_STEPS, 2
    with tempfile.TemporaryDirectory() as scratch:
        row = measure(asked, Path(scratch))
    report("training_loader", {**row, "check": asked.check}, append=asked.append)
    return 0 if asked.check or row["wait_share"] <= MOST_WAIT_SHARE else 1


def measure(asked: Any, folder: Path) -> dict[str, Any]:
    """Write clips and a model, train on them; return the row."""
    side = asked.side_px
    world = WorldSettings(sizes_px=((side, side),), rates_hz=(asked.rate_hz,), sampled_hz=2.0)
    path = write_world(folder / "world", asked.clips, settings=world)
    model = write_tiny_checkpoint(folder / "model", **({} if asked.check else _SIZES))
    stage = from_mapping(
        StageSettings,
        {
            "model": str(model),
            "output": str(folder / "run"),
            "learn": ["vision_tower", "projector", "learned_tokens", "language_model"],
            "batch_size": _BATCH,
            "max_steps": asked.steps,
            "checkpointing": False,
            "log_every": _LINE_STEPS,
            "save_every": 10**6,
            "data": {
                "sources": [{"path": str(path)}],
                "max_frames": _FRAMES,
                "share_visuals": True,
                "time_instruction": False,
                "num_workers": asked.workers,
            },
        },
    )
    examples_ms = _examples_ms(stage)
    train(stage)
    text = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    shares = [line["wait_share"] for line in lines]
    rates = [line["tokens_per_s"] for line in lines[1:]]
    waited = statistics.mean(shares[1:])
    print(f"A step waits {waited:.1%} of its time for {asked.workers} workers;")
    print(f"in the first line, in which they begin, {shares[0]:.1%}.")
    print(f"{statistics.median(rates):,.0f} tokens/s.")
    for name, value in examples_ms.items():
        print(f"  {name:<40} {value:7.2f} ms an example")
    return {
        "clips": asked.clips,
        "frame_px": [side, side],
        "frame_rate_hz": asked.rate_hz,
        "workers": asked.workers,
        "batch": _BATCH,
        "frames": _FRAMES,
        "steps": asked.steps,
        "wait_share": waited,
        "largest_wait_share": max(shares[1:]),
        "first_wait_share": shares[0],
        "tokens_per_s": statistics.median(rates),
        "example_ms": examples_ms,
    }


def _examples_ms(stage: StageSettings) -> dict[str, float]:
    """Return what an example takes of one core, milliseconds: whole, and some of its parts."""
    records = _one_of_each_video(read_mixture(stage.data.sources, stage.seed))[:48]
    maker = ExampleMaker(read_spec(stage.model), stage.data)
    ExampleMaker(read_spec(stage.model), stage.data).example(records[0])  # imports
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker

    def mean_ms(run: Any) -> float:
        before_s = time.process_time()
        for record in records:
            run(record)
        return 1e3 * (time.process_time() - before_s) / len(records)

    found = {
        "made, its video seen for the first time": mean_ms(maker.example),
        "made, its video seen again": mean_ms(maker.example),
        "opened, planned and labelled again": mean_ms(maker.measure),
    }
    made = [Made(maker.example(record), ()) for record in records]
    before_s = time.process_time()
    for start in range(0, len(made), _BATCH):
        collate(made[start : start + _BATCH])
    found["packed"] = 1e3 * (time.process_time() - before_s) / len(made)
    torch.set_num_threads(num_threads)
    return found


def _one_of_each_video(records: Sequence[Record]) -> list[Record]:
    return list({record.values["video"]: record for record in records}.values())


if __name__ == "__main__":
    sys.exit(main())
