"""What does a run over an archive cost beside its videos? Memory, units per second, the start.

100,000 small files, each a unit that a stand-in answers at once with a row of a caption: listing,
hashing, the ledger, threads, rows and shards are the runner's own. CPU and disk bound, in a fresh
process that loads no model. Good: at most 300 MB at any time, no more at the end than after the
first tenth, at most 5 s to find that all is done.

    python benchmarks/archive_parent.py [--units 100000] [--append] [--check]
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import (
    can_measure_memory,
    parser_of,
    peak_rss_bytes,
    report,
    reset_peak_rss,
    rss_bytes,
    run_worker,
)
from ledger import write_files

from llava_video.api import LlavaVideo
from llava_video.archive.progress import ArchiveProgress
from llava_video.archive.row import Asked, Row, make_row
from llava_video.archive.runner import run_archive
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.unit import Item, Unit
from llava_video.archive.work import Outcome, Worker
from llava_video.engine.oracle import OracleEngine
from llava_video.model.spec import read_spec
from llava_video.values import Description, FrameRef, Segment, TokenUsage
from llava_video.world.bars import paint_index

MAX_BYTES, MAX_GROWTH_BYTES, MAX_START_S = 300e6, 16e6, 5.0
_UNITS, _CHECK_UNITS = 100_000, 1_000
_CAPTION = " ".join(["a red truck reverses slowly into a yard"] * 8)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where it is too much."""
    parser = parser_of(__doc__)
    parser.add_argument("--units", type=int, default=_UNITS)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.check:
        asked.units = min(asked.units, _CHECK_UNITS)
    if asked.worker:
        print(json.dumps(work(asked.worker)))
        return 0
    if not can_measure_memory():
        print("this system does not tell a process's peak memory")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_files(folder / "videos", asked.units)
        row = run_worker(__file__, ["--worker", str(folder)])
        again = run_worker(__file__, ["--worker", str(folder)])
    row |= {"start_finished_s": again["took_s"], "finished_peak_bytes": again["peak_bytes"]}
    faults = list(faults_of(row, asked.units))
    for name in ("before_bytes", "early_bytes", "late_bytes", "peak_bytes", "finished_peak_bytes"):
        print(f"{name:20} {row[name] / 1e6:8.1f} MB")
    print(f"{row['units_per_s']:,.0f} units/s; all done already: {row['start_finished_s']:.1f} s")
    for fault in faults:
        print(fault)
    report("archive_parent", row | {"faults": faults, "check": asked.check}, append=asked.append)
    return 1 if faults else 0


def faults_of(row: dict[str, Any], num_units: int) -> Sequence[str]:
    """Say what is not as it should be."""
    limits = {
        "num_done": row["num_done"] == num_units,
        "torch_loaded": not row["torch_loaded"],
        "peak_bytes": row["peak_bytes"] <= MAX_BYTES,
        "finished_peak_bytes": row["finished_peak_bytes"] <= MAX_BYTES,
        "late_bytes": row["late_bytes"] - row["early_bytes"] <= MAX_GROWTH_BYTES,
        "start_finished_s": row["start_finished_s"] <= MAX_START_S,
    }
    return [f"{name} = {row[name]:,}" for name, is_good in limits.items() if not is_good]


def work(folder: Path) -> dict[str, Any]:
    """Run the archive of a folder and return what it cost; for a process of its own."""
    spec = read_spec("demo")
    model = LlavaVideo(spec, OracleEngine(spec.tokenizer))
    row = _row_of_caption(model, folder)
    settings = ArchiveSettings(prompts=("What happens?",), sandbox=False)
    held: dict[int, int] = {}

    def at_once(_: Worker, unit: Unit) -> Outcome:
        return Outcome(unit=unit, row=row | {"number": unit.number, "key": unit.key})

    def note(progress: ArchiveProgress) -> None:
        held[progress.ended] = rss_bytes()

    Worker.work = at_once  # type: ignore[method-assign]  # the stand-in
    reset_peak_rss()
    before_bytes, begun_s = rss_bytes(), time.perf_counter()
    summary = run_archive(
        folder / "videos", folder / "run", settings=settings, model=model, on_progress=note
    )
    took_s = time.perf_counter() - begun_s
    num_done = summary.progress.done
    early = [bytes_ for ended, bytes_ in held.items() if 0 < ended <= num_done // 10]
    return {
        "num_done": num_done,
        "took_s": took_s,
        "units_per_s": num_done / took_s,
        "row_bytes": len(json.dumps(row)),
        "before_bytes": before_bytes,
        "early_bytes": max(early, default=before_bytes),
        "late_bytes": rss_bytes(),
        "peak_bytes": peak_rss_bytes(),
        "torch_loaded": "torch" in sys.modules,
    }


def _row_of_caption(model: LlavaVideo, folder: Path) -> Row:
    """Return the row of a caption as a model gives it, with the plan of sixteen frames."""
    frames = np.stack([paint_index(idx, 32, 64) for idx in range(16)])
    answer = model.describe((frames, [float(idx) for idx in range(16)]), "What happens?")
    told = Description(
        text=_CAPTION,
        plan=answer.plan,
        frames=tuple(FrameRef(idx, float(idx)) for idx in range(16)),
        usage=TokenUsage(40, 500, 90),
        finish_reason="stop",
        coverage=(Segment(0.0, 16.0),),
    )
    unit = Unit(key="0" * 64, number=0, item=Item(number=0, address=str(folder)), content_hash="0")
    return make_row(unit, [told], Asked(task="caption"))


if __name__ == "__main__":
    sys.exit(main())
