"""How often is the demo model right about clips of the small world that it never saw, by type?

Writes held-out clips as H.264 files and asks every question about each on one look at it; of the
first ones again with noise in the place of every frame: what is right blindly stands beside every
figure. Intervals are 95 %, clustered by video; captions are scored by what they claim; confidences
are held against what came true. A run that was stopped goes on (`--folder`). Compute bound: 2,000
clips are 34,000 questions. Good, where a GPU trained: the targets of the table.

    python benchmarks/demo_model.py [--model FOLDER] [--clips 2000] [--split heldout] [--workers 2]
        [--captions 300] [--blind 500] [--folder DIR] [--card FOLDER] [--append] [--check]

`--card FOLDER` also writes FOLDER/measured.json: group -> accuracy, low, high, n, blind.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import parser_of, report
from world_runs import NUM_SHARES, Asking, ask, calibration_of, row_of, row_of_shares

from llava_video.config import to_mapping
from llava_video.eval.records import Record
from llava_video.eval.report import report_of
from llava_video.eval.settings import EvalSettings
from llava_video.world.dataset import write_world

# As the model was trained: two frames a second, no more than 24.
OPTIONS: dict[str, Any] = {"fps": 2.0, "max_frames": 24}

# group -> what a model that a GPU trained is to reach at least; "invented" at most.
TARGETS = {
    "yes/no": 0.97,
    "shape": 0.97,
    "colour": 0.97,
    "direction": 0.95,
    "count": 0.92,
    "order of events": 0.92,
    "when, within 0.5 s": 0.85,
    "captions: objects named": 0.90,
    "captions: events named": 0.85,
    "captions: invented": 0.03,
}
# group -> the kind of group and its name in the records; () is everything.
GROUPS: dict[str, tuple[tuple[str, str], ...]] = {
    "all questions": (),
    "yes/no": (("skill", "yes/no"),),
    "shape": (("skill", "shape"),),
    "colour": (("skill", "colour"),),
    "direction": (("skill", "direction"),),
    "count": (("skill", "count"),),
    "order of events": (("events", "in order"),),
    "when, within 0.5 s": (("skill", "when"),),
    "sign": (("skill", "sign"),),
    "side": (("skill", "side"),),
    "place": (("skill", "place"),),
    "size": (("skill", "size"),),
    "action": (("skill", "action"),),
    "which": (("skill", "which"),),
    "hits": (("skill", "hits"),),
}
EXACTLY_WHEN = "when, exactly"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write clips, ask, score, and say so."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="demo", help="a checkpoint's folder or name")
    parser.add_argument("--clips", type=int, default=2000, help="how many, from the first")
    parser.add_argument("--split", default="heldout")
    parser.add_argument("--seed", type=int, default=0, help="of the clips")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--captions", type=int, default=300, help="clips that are described too")
    parser.add_argument("--blind", type=int, default=500, help="clips asked about blindly too")
    parser.add_argument("--folder", type=Path, help="clips and records; kept for the next run")
    parser.add_argument("--card", type=Path, help="folder that gets measured.json")
    asked = parser.parse_args(arguments)
    if asked.check:
        asked.clips, asked.captions = min(asked.clips, NUM_SHARES), min(asked.captions, 2)
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        row = measured(asked, folder)
    if asked.card:
        asked.card.mkdir(parents=True, exist_ok=True)
        path = asked.card / "measured.json"
        path.write_text(json.dumps(row["groups"], indent=1) + "\n", encoding="utf-8")
    print("\n".join(table_lines(row)))
    report("demo_model", row, append=asked.append)
    return 0


def measured(asked: Any, folder: Path) -> dict[str, Any]:
    """Return the row of results."""
    started_s = time.perf_counter()
    clips = folder / f"{asked.split}-{asked.seed}"
    write_world(clips, asked.clips, split=asked.split, seed=asked.seed, num_workers=asked.workers)
    written_s = time.perf_counter() - started_s
    base = {"model": str(asked.model), "folder": clips, "records": folder / "records"}
    base |= {"options": OPTIONS, "num_blind": asked.blind}
    questions = ask(Asking(task="world", num_clips=asked.clips, **base), asked.workers)
    asked_s = time.perf_counter() - started_s - written_s
    captions: list[Record] = []
    if asked.captions:
        wanted = Asking(task="world-captions", num_clips=asked.captions, **base)
        captions = ask(wanted, asked.workers)
    shown = [record for record in questions if record.view == "video"]
    found = calibration_of(shown)
    return {
        "model": shown[0].model if shown else str(asked.model),
        "split": asked.split,
        "seed": asked.seed,
        "clips": asked.clips,
        "caption_clips": asked.captions,
        "blind_clips": min(asked.blind, asked.clips),
        "check": asked.check,
        "options": OPTIONS,
        "groups": groups_of(questions, captions),
        "calibration": None if found is None else to_mapping(found),
        "calibration_of": calibration_errors(shown),
        "failed": sum(record.failure is not None for record in shown),
        "cut": sum(record.finish_reason == "length" for record in shown),
        "write_s": written_s,
        "ask_s": asked_s,
        "caption_s": time.perf_counter() - started_s - written_s - asked_s,
        "workers": asked.workers,
    }


def groups_of(
    questions: Sequence[Record], captions: Sequence[Record], level: float = 0.95
) -> dict[str, Any]:
    """Return group -> accuracy, low, high, n and blind; groups first, then every type.

    Args:
        questions: records of answers to questions, about the video and about noise.
        captions: records of captions.
        level: of the intervals of questions.
    """
    views = [[r for r in questions if r.view == view] for view in ("video", "noise")]
    found: dict[str, Any] = {}
    for name, keys in GROUPS.items():
        own = [[r for r in v if _is_in(r, keys)] for v in views]
        found[name] = row_of(*own, _is_right, level)
        if name.startswith("when"):
            found[EXACTLY_WHEN] = row_of(*own, _exact, level)
    for kind in sorted({record.groups["type"] for record in views[0] if record.groups}):
        own = [[r for r in v if _is_in(r, (("type", kind),))] for v in views]
        found[f"type: {kind}"] = row_of(*own, _is_right, level)
    return {name: row for name, row in found.items() if row} | dict(_caption_rows(captions))


def _caption_rows(captions: Sequence[Record]) -> Iterator[tuple[str, Any]]:
    if not captions:
        return
    for score in report_of("captions", captions, EvalSettings()).scores:
        front = "captions" if score.kind == "all" else f"{score.name} captions"
        for one in score.measures:
            yield f"{front}: {one.name}", row_of_shares(one.share, one.noise)


def _is_in(record: Record, keys: tuple[tuple[str, str], ...]) -> bool:
    return all(record.groups.get(kind) == name for kind, name in keys)


def _is_right(record: Record) -> bool | None:
    return None if record.answer is None else record.correct is True


def _exact(record: Record) -> bool | None:
    return None if record.answer is None else record.exact is True


def calibration_errors(shown: Sequence[Record]) -> dict[str, Any]:
    """Return skill -> n and calibration error, of answers that are one of some choices."""
    skills = sorted({record.groups.get("skill", "") for record in shown})
    found = {
        skill: calibration_of([r for r in shown if r.groups.get("skill") == skill])
        for skill in skills
    }
    return {
        skill: {"n": one.num_examples, "error": one.error} for skill, one in found.items() if one
    }


def table_lines(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table a person reads."""
    yield f"{row['model']}: {row['clips']:,} clips of {row['split']}"
    parts = f"{row['caption_clips']:,} of them described in three ways"
    yield f"{parts}, {row['blind_clips']:,} asked about blindly too"
    yield f"{'':<32}{'n':>8}{'right':>8}   95 % interval   blind  target"
    for name, one in row["groups"].items():
        interval = f"{100 * one['low']:.1f} to {100 * one['high']:.1f}"
        blind = "-" if one["blind"] is None else f"{100 * one['blind']:.1f}"
        target = f"{100 * TARGETS[name]:.0f}" if name in TARGETS else ""
        share = f"{100 * one['accuracy']:.1f}"
        yield f"{name:<32}{one['n']:>8,}{share:>8}{interval:>16}{blind:>8}{target:>8}".rstrip()
    if row["calibration"]:
        error = 100 * row["calibration"]["error"]
        yield f"confidence         n    said   right   (calibration error {error:.1f})"
        for one in row["calibration"]["bins"]:
            if one["num_examples"]:
                span, count = f"{one['low']:.1f} to {one['high']:.1f}", one["num_examples"]
                yield f"{span:<12}{count:>8,}{100 * one['said']:>8.1f}{100 * one['right']:>8.1f}"
    times = (row["write_s"], row["ask_s"], row["caption_s"])
    yield "written in {:.0f} s, asked in {:.0f} s, described in {:.0f} s".format(*times)
    yield f"{row['failed']} questions failed, {row['cut']} answers were cut"


if __name__ == "__main__":
    sys.exit(main())
