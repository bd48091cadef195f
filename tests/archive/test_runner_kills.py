"""A run that is killed at any moment goes on to the rows of one that was not."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from archive_runs import contents_in, rows_in, run_slowly, truth, write_clips

from llava_video.archive.ledger_view import LedgerView
from llava_video.archive.shards import sealed
from llava_video.archive.verify import verify
from llava_video.errors import LedgerError

NUM_CLIPS = 36
KILLS = 8

Start = Callable[[Path, bool], BaseProcess]


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

    def begin(out: Path, sandbox: bool) -> BaseProcess:
        process = context.Process(target=run_slowly, args=(tiny_folder, clips, out, sandbox))
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


def test_killed_at_random_moments(start: Start, tmp_path: Path) -> None:
    dice = random.Random(7)
    out = tmp_path / "killed"
    done = 0
    for kill in range(KILLS):
        process = start(out, False)
        if kill:
            wait_for_rows(out, done + dice.randrange(3))
        time.sleep(dice.uniform(0.0, 0.03))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        assert done_in(out) >= done  # what was kept stays
        done = done_in(out)
        for path in sealed(out):  # whole, or not there
            assert path.read_bytes().count(b"\n") in (16, NUM_CLIPS % 16)
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


def test_decoding_processes_that_are_killed_cost_a_try(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(out, True)
    wait_for_rows(out, 1)
    killed = 0
    for pid in children_of(process.pid or 0):
        os.kill(pid, signal.SIGKILL)
        killed += 1
    process.join()
    assert killed > 0
    assert [row["answers"][0]["text"] for row in rows_in(out)] == [
        truth(number) for number in range(NUM_CLIPS)
    ]


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in listed for child in path.read_text().split()]
