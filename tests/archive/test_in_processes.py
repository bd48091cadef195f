"""Worker processes work what one process does, whoever is killed when."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from archive_runs import (
    QUESTION,
    assert_only_poison_is_quarantined,
    contents_in,
    endless_model,
    poisoned_list,
    rows_in,
    sick_model,
    slow_model,
    truth,
    write_clips,
)
from chat_server import MODEL, serving

from llava_video.archive.content import content_hash
from llava_video.archive.crew import Gone, Ready
from llava_video.archive.hands import Job, NamedModel
from llava_video.archive.in_processes import Processes
from llava_video.archive.progress import ArchiveProgress
from llava_video.archive.retrying import retry_failed
from llava_video.archive.runner import run_archive
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.unit import Item, Unit
from llava_video.archive.verify import verify
from llava_video.connecting import connect
from llava_video.errors import CapacityError, CheckpointError, ConfigError
from llava_video.model.tokenizer import Tokenizer

NUM_CLIPS = 40
ALONE = ArchiveSettings(task="ask", prompts=(QUESTION,), sandbox=False, in_flight=4, shard_units=16)
TWO = dataclasses.replace(ALONE, workers=2)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes") / "clips"
    write_clips(folder, NUM_CLIPS)
    return folder


@pytest.fixture(scope="module")
def whole(clips: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the rows of a run in one process, without times and machines."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run(clips, out, slow_model(tiny_folder, 0.0), ALONE)
    return contents_in(out)


def run(inputs: Any, out: Path, model: Any, settings: ArchiveSettings = TWO, **more: Any) -> Any:
    return run_archive(inputs, out, settings=settings, model=model, max_new_tokens=64, **more)


def workers_of(pid: int) -> list[int]:
    """Return the worker processes of a process."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for path in listed for child in path.read_text().split()]
    return [child for child in children if b"worker_process" in cmdline_of(child)]


def cmdline_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_rows_are_those_of_one_process(
    clips: Path, tiny_folder: Path, whole: str, tmp_path: Path
) -> None:
    summary = run(clips, tmp_path / "out", partial(slow_model, tiny_folder, 0.01))
    assert (summary.exit_status, summary.progress.running) == (0, 0)
    assert contents_in(tmp_path / "out") == whole
    rows = rows_in(tmp_path / "out")
    workers = {row["run"]["worker"] for row in rows}
    assert len(workers) == 2
    assert str(os.getpid()) not in workers
    assert workers_of(os.getpid()) == []
    assert len(list((tmp_path / "out" / "sheets").iterdir())) == NUM_CLIPS
    assert 0.0 < summary.progress.busy <= 1.0


def test_a_poison_file_is_quarantined_and_no_other(
    clips: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    manifest = poisoned_list(clips, tmp_path / "inputs.jsonl", 16)
    summary = run(manifest, tmp_path / "out", partial(slow_model, tiny_folder, 0.01))
    assert (summary.exit_status, summary.progress.failures) == (3, {"WorkerCrashed": 1})
    assert_only_poison_is_quarantined(tmp_path / "out")


@pytest.mark.slow
def test_workers_that_are_killed_at_random_moments(
    clips: Path, tiny_folder: Path, whole: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(11)
    killed: list[int] = []
    done = [0]

    def kill(progress: ArchiveProgress) -> None:
        """Kill a worker, in the midst of whatever it does, where the run has got on."""
        if progress.done > done[0] and progress.running and len(killed) < 4:
            done[0] = progress.done
            time.sleep(dice.uniform(0.0, 0.3))
            killed.append(dice.choice(workers_of(os.getpid())))
            os.kill(killed[-1], signal.SIGKILL)

    monkeypatch.setattr("llava_video.archive.runner._TICK_S", 0.3)
    model = partial(slow_model, tiny_folder, 0.5)
    summary = run(clips, tmp_path / "out", model, on_progress=kill)
    assert len(killed) >= 3
    assert summary.progress.ended == NUM_CLIPS
    assert set(summary.progress.failures) <= {"WorkerCrashed"}  # killed twice over one unit
    assert len(rows_in(tmp_path / "out")) == NUM_CLIPS
    if summary.progress.failures:
        retry_failed(tmp_path / "out")
        run(clips, tmp_path / "out", model)
    assert verify(tmp_path / "out") == []
    assert contents_in(tmp_path / "out") == whole


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_no_worker(
    clips: Path, tiny_folder: Path, whole: str, tmp_path: Path
) -> None:
    arguments = [str(clips), str(tmp_path / "out"), str(tiny_folder), "0.1"]
    program = subprocess.Popen(
        [sys.executable, str(Path(__file__).parents[1] / "archive_program.py"), *arguments]
    )
    until_s = time.monotonic() + 60
    while not (workers := workers_of(program.pid)) and time.monotonic() < until_s:
        time.sleep(0.02)
    assert workers
    program.kill()
    program.wait()
    while any(cmdline_of(pid) for pid in workers) and time.monotonic() < until_s:
        time.sleep(0.02)
    assert not any(cmdline_of(pid) for pid in workers)
    run(clips, tmp_path / "out", partial(slow_model, tiny_folder, 0.0))
    assert contents_in(tmp_path / "out") == whole


@pytest.mark.slow
def test_a_stopped_run_ends_in_time_and_goes_on(
    clips: Path, tiny_folder: Path, whole: str, tmp_path: Path
) -> None:
    stop = threading.Event()

    def note(progress: Any) -> None:
        if progress.done:
            stop.set()

    settings = dataclasses.replace(TWO, finish_s=5.0)
    model = partial(slow_model, tiny_folder, 0.3)
    summary = run(clips, tmp_path / "out", model, settings, stopping=stop, on_progress=note)
    assert (summary.interrupted, summary.progress.running) == (True, 0)
    assert 0 < summary.progress.done < NUM_CLIPS
    run(clips, tmp_path / "out", partial(slow_model, tiny_folder, 0.0))
    assert contents_in(tmp_path / "out") == whole


def test_a_wait_for_a_model_can_be_given_up(clips: Path, tiny_folder: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(CapacityError, match="start it again"):
        run(clips, tmp_path / "out", NamedModel(tiny_folder, {"device": "cpu"}), stopping=stop)
    assert not (tmp_path / "out").exists()
    assert workers_of(os.getpid()) == []


def test_a_model_that_cannot_be_loaded_refuses(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        run(clips, tmp_path / "out", NamedModel(tmp_path, {"device": "cpu"}))
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_sent_is_refused(clips: Path, tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="by its name"):
        run(clips, tmp_path / "out", lambda: slow_model(tiny_folder, 0.0))


def test_a_worker_that_dies_is_told_with_its_signal(tiny_folder: Path) -> None:
    job = Job(settings=TWO, options={}, model=partial(slow_model, tiny_folder, 0.0))
    staff = Processes(job, 1)
    try:
        staff.hire(0)
        (ready,) = wait_for(staff)
        assert isinstance(ready, Ready)
        assert ready.facts["engine"] == "OracleEngine"
        (pid,) = workers_of(os.getpid())
        os.kill(pid, signal.SIGSEGV)
        assert wait_for(staff) == [Gone(0, "was ended by SIGSEGV")]
    finally:
        staff.close()


def test_a_worker_whose_model_is_served_loads_no_torch(clips: Path, tiny_folder: Path) -> None:
    import torch

    assert torch.__name__ in libraries_of(os.getpid())
    unit = Unit(
        key="k", number=0, item=Item(number=0, address=str(clips / "000.mp4")),
        content_hash=content_hash(str(clips / "000.mp4")),
    )  # fmt: skip
    with serving(Tokenizer(tiny_folder)) as server:
        model = partial(connect, server.url, MODEL, plan_as=tiny_folder)
        staff = Processes(Job(settings=TWO, options={"max_new_tokens": 64}, model=model), 1)
        try:
            staff.hire(0)
            assert isinstance(wait_for(staff)[0], Ready)
            staff.send(0, "slot", unit)
            (done,) = wait_for(staff)
            assert done.outcome.row["answers"][0]["text"] == truth(0)
            assert "torch" not in libraries_of(staff._processes[0].program.pid)
        finally:
            staff.close()


def libraries_of(pid: int) -> str:
    """Return the names of the shared libraries that a process has loaded."""
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    return " ".join({Path(line.split(maxsplit=5)[-1]).name for line in lines})


def wait_for(staff: Processes) -> list[Any]:
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        if events := list(staff.events(0.1)):
            return events
    raise AssertionError("nothing was heard")


@pytest.mark.slow
def test_the_run_itself_loads_no_torch(clips: Path, tiny_folder: Path, tmp_path: Path) -> None:
    arguments = [str(clips / "000.mp4"), str(tmp_path / "out"), str(tiny_folder), "0.0"]
    program = Path(__file__).parents[1] / "archive_program.py"
    said = subprocess.run(
        [sys.executable, str(program), *arguments], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["1", "torch-free"]


def test_a_worker_that_lost_its_device_is_replaced_and_costs_no_unit(
    clips: Path, tiny_folder: Path, whole: str, tmp_path: Path
) -> None:
    settings = dataclasses.replace(ALONE, workers=1, in_flight=1)
    model = partial(sick_model, tiny_folder, tmp_path / "healed")
    summary = run(clips, tmp_path / "out", model, settings)
    assert (summary.exit_status, summary.progress.done) == (0, NUM_CLIPS)


def test_a_worker_that_says_nothing_is_replaced(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llava_video.archive.in_processes.SILENT_S", 5.0)
    job = Job(settings=TWO, options={}, model=partial(slow_model, tiny_folder, 0.0))
    staff = Processes(job, 1)
    try:
        staff.hire(0)
        (ready,) = wait_for(staff)
        assert isinstance(ready, Ready)
        pid = staff._processes[0].program.pid
        os.kill(pid, signal.SIGSTOP)
        assert wait_for(staff) == [Gone(0, "says nothing any more")]
        assert not cmdline_of(pid)
    finally:
        staff.close()


def test_a_worker_ends_with_its_parent_while_it_loads() -> None:
    staff = Processes(Job(settings=TWO, options={}, model=endless_model), 1)
    try:
        staff.hire(0)
        staff._processes[0].line.close()  # as the system does when the parent dies
        assert staff._processes[0].program.wait(30) == 0
    finally:
        staff.close()
