"""Clips of the small world and a model → records of every answer, by several processes.

Clips go round by their number, so a run that was stopped goes on, with as many processes as it
likes: every share has its own file of records. Each process has one thread of its own, for products
this small gain nothing from two, and threads that wait for one another on a busy machine lose much.
"""

import functools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava_video.api import LlavaVideo, load
from llava_video.eval.calibration import Reliability, reliability
from llava_video.eval.example import Example
from llava_video.eval.records import Record
from llava_video.eval.running import evaluate
from llava_video.eval.settings import EvalSettings
from llava_video.eval.statistics import Proportion, proportion
from llava_video.eval.tasks import find_task

NUM_SHARES = 16
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

Share = Callable[[Record], bool | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What is asked of which clips.

    Attributes:
        model: a checkpoint's folder or name.
        task: "world" or "world-captions".
        folder: of the clips, as `write_world` leaves it.
        records: folder of the files of records.
        num_clips: the first ones of the folder.
        num_blind: the first ones, that are asked about again with noise for frames.
        options: of every question.
    """

    model: str
    task: str
    folder: Path
    records: Path
    num_clips: int
    num_blind: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


def ask(asking: Asking, num_workers: int, told: Callable[[str], None] = print) -> list[Record]:
    """Ask everything; return the records, those of earlier runs among them."""
    jobs = [(asking, number) for number in range(NUM_SHARES)]
    found: list[Record] = []
    for number, records in enumerate(_mapped(_share, jobs, num_workers), 1):
        found += records
        told(f"{asking.task}: {len(found):,} answers, {number} of {NUM_SHARES} shares")
    return found


def _mapped(run: Any, jobs: Sequence[Any], num_workers: int) -> Iterable[Any]:
    if num_workers == 1:
        return map(run, jobs)
    os.environ.update({name: os.environ.get(name, one) for name, one in _ONE_THREAD.items()})
    context = multiprocessing.get_context("spawn")
    return _pooled(run, jobs, ProcessPoolExecutor(num_workers, mp_context=context))


def _pooled(run: Any, jobs: Sequence[Any], pool: ProcessPoolExecutor) -> Iterator[Any]:
    with pool:
        yield from pool.map(run, jobs)


@functools.lru_cache(maxsize=1)
def _model(name: str) -> LlavaVideo:
    return load(name, device="cpu")


@functools.lru_cache(maxsize=1)
def _examples(task: str, folder: Path) -> tuple[Example, ...]:
    return tuple(find_task(task).read(folder))


def _share(job: tuple[Asking, int]) -> list[Record]:
    """Ask one share of the clips; a process keeps the model and the questions for the next."""
    asking, number = job
    mine = [_name(idx) for idx in range(asking.num_clips) if idx % NUM_SHARES == number]
    found: list[Record] = []
    for is_blind in (True, False):
        clips = {name for name in mine if (name < _name(asking.num_blind)) is is_blind}
        examples = [e for e in _examples(asking.task, asking.folder) if e.cluster in clips]
        if examples:
            report = evaluate(
                _model(asking.model),
                asking.task,
                examples,
                settings=EvalSettings(noise=is_blind),
                records=asking.records / f"{asking.task}-{number:02d}.jsonl",
                **asking.options,
            )
            found += report.records
    return found


def _name(idx: int) -> str:
    return f"videos/{idx:06d}.mp4"


def row_of(
    shown: Sequence[Record], blind: Sequence[Record], is_right: Share, level: float = 0.95
) -> dict[str, Any] | None:
    """Return n, accuracy, its interval and what is right without the video; None of no answers.

    Args:
        shown: records of answers to the video.
        blind: of the same questions about noise.
        is_right: None of a record leaves it out.
        level: of the interval.
    """
    found = _proportion(shown, is_right, level)
    if found is None:
        return None
    unseen = _proportion(blind, is_right, level)
    return row_of_shares(found, unseen)


def row_of_shares(found: Proportion, unseen: Proportion | None) -> dict[str, Any]:
    """Return n, accuracy, its interval and the blind share as plain numbers."""
    return {
        "accuracy": found.value,
        "low": found.low,
        "high": found.high,
        "n": found.num_examples,
        "blind": None if unseen is None else unseen.value,
    }


def _proportion(records: Sequence[Record], is_right: Share, level: float) -> Proportion | None:
    told = [(is_right(record), record.cluster) for record in records]
    kept = [(outcome, cluster) for outcome, cluster in told if outcome is not None]
    if not kept:
        return None
    return proportion([outcome for outcome, _ in kept], [cluster for _, cluster in kept], level)


def calibration_of(records: Sequence[Record], num_bins: int = 10) -> Reliability | None:
    """Compare confidences with what came true; None where no answer has one."""
    told = [r for r in records if r.confidence is not None and r.correct is not None]
    if not told:
        return None
    confidences = [min(1.0, record.confidence or 0.0) for record in told]
    return reliability(confidences, [record.correct is True for record in told], num_bins)
