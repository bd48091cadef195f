"""How much of what a model learned of 12 s clips does it still know of 24, 48 and 96 s?

Clips of the `long` split's sizes, rates and backgrounds, of the trained length and two, four and
eight times as long, at the trained two frames a second; the same questions with positions as they
come, and divided by the factor (linear position scaling), so that they stay in the trained range.
Intervals are 95 %, clustered by video; beside them what always saying the commonest right answer of
each type would reach. A run that was stopped goes on (`--folder`). Compute bound. Good: no less
than at the trained length.

    python benchmarks/length_generalisation.py [--model FOLDER] [--clips 150] [--workers 2]
        [--folder DIR] [--append] [--write] [--check]

`--write` puts the newest kept row into docs/length.md (`length_page.py`).
"""

import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import length_page
from demo_model import groups_of
from harness import parser_of, report
from world_runs import Asking, ask

from llava_video.eval.records import Record
from llava_video.eval.report import report_of
from llava_video.eval.settings import EvalSettings
from llava_video.world.dataset import write_world
from llava_video.world.settings import WorldSettings
from llava_video.world.splits import split_settings

TRAINED_S = 12.0
RATE_HZ = 2.0
FACTORS = (1, 2, 4, 8)
SPLIT = "long"

# group -> (kind of group, name) of the report that knows its majority.
SHOWN: dict[str, tuple[str, str]] = {
    "all questions": ("all", ""),
    "yes/no": ("skill", "yes/no"),
    "shape": ("skill", "shape"),
    "colour": ("skill", "colour"),
    "direction": ("skill", "direction"),
    "count": ("skill", "count"),
    "order of events": ("events", "in order"),
    "when, within 0.5 s": ("skill", "when"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write clips of every length, ask twice, score, and say so."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="demo", help="a checkpoint's folder or name")
    parser.add_argument("--clips", type=int, default=150, help="of each length")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--folder", type=Path, help="clips and records; kept for the next run")
    parser.add_argument("--write", action="store_true", help="rewrite docs/length.md afterwards")
    asked = parser.parse_args(arguments)
    factors = FACTORS[:2] if asked.check else FACTORS
    if asked.check:
        asked.clips = min(asked.clips, 2)
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        points = [point for factor in factors for point in measured(asked, folder, factor)]
    row = {
        "model": str(asked.model),
        "trained_s": TRAINED_S,
        "rate_hz": RATE_HZ,
        "clips": asked.clips,
        "check": asked.check,
        "points": points,
    }
    print("\n".join(length_page.table_lines(row)))
    report("length_generalisation", row, append=asked.append)
    return length_page.main(["--write"]) if asked.write else 0


def settings_of(factor: int) -> WorldSettings:
    """Return the clips that are so many times as long as those of training."""
    return dataclasses.replace(split_settings(SPLIT), lengths_s=(factor * TRAINED_S,))


def options_of(factor: int, scale: int) -> dict[str, Any]:
    """Return how such clips are shown: all their frames at the trained rate."""
    num_frames = round(factor * TRAINED_S * RATE_HZ)
    return {"fps": RATE_HZ, "max_frames": num_frames, "position_scale": float(scale)}


def measured(asked: Any, folder: Path, factor: int) -> Iterator[dict[str, Any]]:
    """Yield the figures of one length, as it comes and, where it is longer, scaled."""
    clips = folder / f"{factor}x"
    write_world(
        clips,
        asked.clips,
        split=SPLIT,
        settings=settings_of(factor),
        num_workers=asked.workers,
    )
    for scale in sorted({1, factor}):
        started_s = time.perf_counter()
        asking = Asking(
            model=str(asked.model),
            task="world",
            folder=clips,
            records=folder / f"{factor}x-records-{scale}",
            num_clips=asked.clips,
            options=options_of(factor, scale),
        )
        records = ask(asking, asked.workers)
        yield {
            "factor": factor,
            "length_s": factor * TRAINED_S,
            "position_scale": scale,
            "ask_s": time.perf_counter() - started_s,
            **point_of(records),
        }


def point_of(records: Sequence[Record]) -> dict[str, Any]:
    """Return what was shown and how often each group was right."""
    answered = [record for record in records if record.failure is None]
    majority = {
        (score.kind, score.name): score.majority
        for score in report_of("world", records, EvalSettings()).scores
    }
    groups = groups_of(records, [])
    return {
        "frames": statistics.median([record.num_frames for record in answered] or [0]),
        "visual_tokens": statistics.median([record.visual_tokens for record in answered] or [0]),
        "failed": len(records) - len(answered),
        "groups": {
            name: _with_majority(groups[name], majority.get(key))
            for name, key in SHOWN.items()
            if name in groups
        },
    }


def _with_majority(row: Mapping[str, Any], majority: float | None) -> dict[str, Any]:
    kept = {name: value for name, value in row.items() if name != "blind"}
    return kept | {"majority": majority}


if __name__ == "__main__":
    sys.exit(main())
