"""Does an archive answer as often rightly as the model's card says, type by type?

Held-out clips of the small world, the first of those that the card was measured on, through
`run_archive`: a list with every clip's own questions, decoded in processes, eight videos under way
at once. Answers are scored as `demo_model.py` scores them, but written freely: an archive asks many
questions on one look, and choices would be the same for all. Of some clips the answers are compared
with those of a plain loop. Compute bound: 200 clips are 3,400 questions. Good: the card's accuracy
lies within the interval of every group (95 % for all groups together, clustered by video), and
every answer that was compared is the same.

    python benchmarks/archive_demo.py [--model demo] [--clips 200] [--compared 10] [--append]
        [--check]
"""

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from demo_model import EXACTLY_WHEN, GROUPS, OPTIONS, groups_of
from harness import parser_of, report

from llava_video.api import LlavaVideo, load
from llava_video.archive.runner import RunSummary, run_archive
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.shards import iter_rows
from llava_video.eval.example import Example
from llava_video.eval.records import Record
from llava_video.eval.scoring import score
from llava_video.eval.tasks import find_task
from llava_video.model.card import ModelCard
from llava_video.world.dataset import write_world

_GROUPS = (*GROUPS, EXACTLY_WHEN)
_ANSWER = {"max_new_tokens": 32}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write clips, run the archive, compare, and return 1 where it differs from the card."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="demo", help="a checkpoint's folder or name")
    parser.add_argument("--clips", type=int, default=200, help="how many, from the first")
    parser.add_argument("--seed", type=int, default=0, help="of the clips")
    parser.add_argument("--compared", type=int, default=10, help="clips asked by hand too")
    asked = parser.parse_args(arguments)
    if asked.check:
        asked.clips, asked.compared = min(asked.clips, 3), 1
    with tempfile.TemporaryDirectory() as scratch, load(asked.model, device="cpu") as model:
        row = measured(model, Path(scratch), asked.clips, asked.seed, asked.compared)
    faults = list(faults_of(row))
    print(f"{row['clips']} clips, {row['questions']:,} questions in {row['run_s']:.0f} s")
    print(f"{'':<24}{'n':>7}{'right':>8}{'interval':>17}{'card':>8}")
    for name, one in row["groups"].items():
        span = f"{100 * one['low']:.1f} to {100 * one['high']:.1f}"
        card = "-" if one["card"] is None else f"{100 * one['card']:.1f}"
        print(f"{name:<24}{one['n']:>7,}{100 * one['accuracy']:>8.1f}{span:>17}{card:>8}")
    print("\n".join(faults or ["as the card says."]))
    report("archive_demo", row | {"faults": faults, "check": asked.check}, append=asked.append)
    return 1 if faults and not asked.check else 0


def measured(
    model: LlavaVideo, folder: Path, num_clips: int, seed: int, num_compared: int
) -> dict[str, Any]:
    """Return the row of results."""
    clips = folder / "clips"
    write_world(clips, num_clips, split="heldout", seed=seed)
    examples = list(find_task("world").read(clips))
    by_clip = {
        clip: list(group) for clip, group in itertools.groupby(examples, lambda one: one.cluster)
    }
    begun_s = time.perf_counter()
    summary = run(model, clips, by_clip, folder / "run")
    run_s = time.perf_counter() - begun_s
    texts = texts_in(folder / "run")
    records = [record for clip, asked in by_clip.items() for record in _records(asked, texts[clip])]
    return {
        "model": model.spec.name,
        "clips": num_clips,
        "seed": seed,
        "questions": len(records),
        "run_s": run_s,
        "clips_per_h": 3600 * num_clips / run_s,
        "exit_status": summary.exit_status,
        "engine_busy": summary.progress.busy,
        "groups": compared(records, model.card),
        "compared_clips": num_compared,
        "other_answers": sum(
            _by_hand(model, clips / clip, asked) != texts[clip]
            for clip, asked in itertools.islice(by_clip.items(), num_compared)
        ),
    }


def run(
    model: LlavaVideo, clips: Path, by_clip: Mapping[str, Sequence[Example]], out: Path
) -> RunSummary:
    """Ask every clip its own questions, in one archive."""
    manifest = clips / "questions.jsonl"
    lines = [
        {"video": clip, "name": clip, "prompt": [example.prompt for example in asked]}
        for clip, asked in by_clip.items()
    ]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    settings = ArchiveSettings(task="ask", shard_units=50)
    return run_archive(manifest, out, settings=settings, model=model, **OPTIONS, **_ANSWER)


def texts_in(out: Path) -> dict[str, list[str]]:
    """Return clip -> its answers, in the order of its questions."""
    return {row["video"]["name"]: [a["text"] for a in row["answers"]] for row in iter_rows(out)}


def compared(records: Sequence[Record], card: ModelCard | None) -> dict[str, Any]:
    """Return group -> accuracy, its interval, n, and the card's accuracy, None where it has none.

    The level of each interval makes 95 % of all of them together (Bonferroni).
    """
    told = {one.kind: one.accuracy for one in card.results} if card else {}
    found = groups_of(records, [], 1 - 0.05 / len(_GROUPS))
    return {name: {**found[name], "card": told.get(name)} for name in _GROUPS if found.get(name)}


def faults_of(row: Mapping[str, Any]) -> Iterator[str]:
    """Say what is not as the card says."""
    if row["exit_status"] != 0:
        yield f"exit_status = {row['exit_status']}"
    if row["other_answers"]:
        yield f"{row['other_answers']} clips have other answers than a plain loop gives"
    for name, one in row["groups"].items():
        if one["card"] is not None and not one["low"] <= one["card"] <= one["high"]:
            yield f"{name}: {one['accuracy']:.3f} is not the card's {one['card']:.3f}"


def _records(asked: Sequence[Example], texts: Sequence[str]) -> Iterator[Record]:
    for example, given in zip(asked, texts, strict=True):
        told = score(replace(example, choices=()), given)
        yield Record(
            id=example.id,
            cluster=example.cluster,
            view="video",
            run="archive",
            example=example.digest,
            groups=dict(example.groups),
            answer=example.answer,
            given=given,
            correct=told.correct,
            exact=told.exact,
        )


def _by_hand(model: LlavaVideo, path: Path, asked: Sequence[Example]) -> list[str]:
    prompts = [example.prompt for example in asked]
    return [told.text for told in model.ask_many(path, prompts, **OPTIONS, **_ANSWER)]


if __name__ == "__main__":
    sys.exit(main())
