"""A run that is killed at any moment goes on to the rows of one that was not."""

import contextlib
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from archive_runs import (
    assert_only_poison_is_quarantined,
    contents_in,
    poisoned_list,
    rows_in,
    run_poisoned,
    run_slowly,
    truth,
    write_clips,
)
from PIL import Image

from llava_video.archive.ledger_view import LedgerView
from llava_video.archive.parquet import read_parquet
from llava_video.archive.row import read_row
from llava_video.archive.settings import Task
from llava_video.archive.verify import verify
from llava_video.errors import LedgerError

NUM_CLIPS = 60  # enough to be killed in the midst of every time
KILLS = 8

SLOW_KILLS = 15

Start = Callable[..., BaseProcess]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills") / "clips"
    write_clips(folder, NUM_CLIPS)
    return folder


@pytest.fixture(scope="module")
def start(clips: Path, tiny_folder: Path) -> Start:
    """Return a function that begins a run in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["archive_runs", "llava_video.archive.runner"])

    def begin(out: Path, sandbox: bool, task: Task = "ask") -> BaseProcess:
        process = context.Process(target=run_slowly, args=(tiny_folder, clips, out, sandbox, task))
        process.start()
        return process

    return begin


def done_in(out: Path) -> int:
    """Return how many units have a result; 0 before there is a ledger."""
    try:
        with LedgerView(out) as view:
            assert view.counts()["quarantined"] == view.counts()["failed"] == 0
            return view.counts()["done"]
    except LedgerError:
        return 0


def wait_for_rows(out: Path, count: int) -> None:
    """Wait until that many units have ended."""
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        if done_in(out) >= count:
            return
        time.sleep(0.002)
    raise AssertionError("the run does not get on")


def assert_nothing_is_half_there(out: Path) -> None:
    """See that every file that can be seen is whole, whatever it is."""
    for path in out.rglob("[!.]*"):
        if path.parent.name == "rows" and path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            assert [read_row(line)["number"] // 16 for line in lines] == [int(path.stem)] * len(
                lines
            )
            assert len(lines) in (16, NUM_CLIPS % 16)
        elif path.suffix == ".parquet":
            assert len(list(read_parquet(path))) in (16, NUM_CLIPS % 16)
        elif path.suffix == ".jpg":
            with Image.open(path) as picture:
                picture.load()
        elif path.suffix in (".vtt", ".srt"):
            assert path.read_text(encoding="utf-8").count("-->") == 2
        elif path.name == "run.json":
            json.loads(path.read_text(encoding="utf-8"))


def kill_at_random(start: Start, out: Path, kills: int, seed: int, task: Task = "ask") -> int:
    """Begin a run and kill it, again and again; return how many units have a result."""
    dice = random.Random(seed)
    done = 0
    for kill in range(kills):
        process = start(out, False, task)
        if kill:
            wait_for_rows(out, done + dice.randrange(3))
        time.sleep(dice.uniform(0.0, 0.03))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert done_in(out) >= done  # what was kept stays
        done = done_in(out)
        assert_nothing_is_half_there(out)
    return done


def test_killed_at_random_moments(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    done = kill_at_random(start, out, KILLS, 7)
    assert 0 < done < NUM_CLIPS

    for folder in (out, tmp_path / "whole"):
        process = start(folder, False)
        process.join()
        assert process.exitcode == 0
        assert verify(folder) == []
    assert [row["answers"][0]["text"] for row in rows_in(out)] == [
        truth(number) for number in range(NUM_CLIPS)
    ]
    assert contents_in(out) == contents_in(tmp_path / "whole")
    assert not [path for path in (out / "rows").iterdir() if path.name.startswith(".")]


def test_what_kills_the_runs_own_process_is_quarantined_in_the_end(
    clips: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    manifest = poisoned_list(clips, tmp_path / "inputs.jsonl", 8)
    context = multiprocessing.get_context("forkserver")
    ends: list[int | None] = []
    while len(ends) < 10:
        words = (tiny_folder, manifest, tmp_path / "out")
        process = context.Process(target=run_poisoned, args=words)
        process.start()
        process.join(60)
        ends.append(process.exitcode)
        if process.exitcode == 0:
            break
    # Killed among others twice, alone twice; then the rest is there, and it is given up.
    assert ends == [-signal.SIGKILL] * 4 + [0]
    assert_only_poison_is_quarantined(tmp_path / "out")


@pytest.mark.slow
def test_a_timeline_that_is_killed_ends_with_the_same_files(start: Start, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="twins in Parquet need it")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    done = kill_at_random(start, killed, SLOW_KILLS, 11, "timeline")
    assert 0 < done < NUM_CLIPS
    for folder in (killed, whole):
        process = start(folder, False, "timeline")
        process.join()
        assert process.exitcode == 0
        assert verify(folder) == []
        assert_nothing_is_half_there(folder)
    assert contents_in(killed) == contents_in(whole)
    for place in ("rows", "videos", "sheets", "frames"):
        ours, theirs = (sorted((folder / place).rglob("*.*")) for folder in (killed, whole))
        assert [path.name for path in ours] == [path.name for path in theirs]
        if place != "rows":  # they say when they were made
            assert [path.read_bytes() for path in ours] == [path.read_bytes() for path in theirs]


def test_decoding_processes_that_are_killed_cost_a_try(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(out, True)
    wait_for_rows(out, 1)
    # Held until all are dead: a unit that was tried again in the next one would lose its second
    # process.
    os.kill(process.pid or 0, signal.SIGSTOP)
    killed = children_of(process.pid or 0)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    until_s = time.monotonic() + 60
    while any(map(is_running, killed)) and time.monotonic() < until_s:
        time.sleep(0.002)
    os.kill(process.pid or 0, signal.SIGCONT)
    process.join()
    assert killed
    assert [row["answers"][0]["text"] for row in rows_in(out)] == [
        truth(number) for number in range(NUM_CLIPS)
    ]


def is_running(pid: int) -> bool:
    """Say whether a process that was killed has not died yet."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in listed for child in path.read_text().split()]
