"""One process holds a run folder, until it ends in whatever way."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llava_video.errors import LedgerBusyError, LedgerError
from llava_video.lock import NAME, RunLock

HOLD = """
import os, sys, time
from pathlib import Path
from llava_video.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
ours, theirs = os.pipe()
child = os.fork() if sys.argv[2] == "forks" else None
if child == 0:
    os.write(theirs, b"started")
else:
    if child:
        os.read(ours, 7)
    print(child, flush=True)
time.sleep(60)
"""


def holder(folder: Path, how: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLD, str(folder), how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_second_process_is_refused_by_the_firsts_number(tmp_path: Path) -> None:
    with holder(tmp_path, "alone") as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "None\n"
            with pytest.raises(LedgerBusyError, match=rf"process {other.pid}\."):
                RunLock(tmp_path)
        finally:
            other.kill()
        other.wait()
        # Nothing has to be cleaned up after a kill.
        RunLock(tmp_path).release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_does_not_hold_on(tmp_path: Path) -> None:
    with holder(tmp_path, "forks") as other:
        assert other.stdout is not None
        child = int(other.stdout.readline())
        try:
            other.kill()
            other.wait()
            os.kill(child, 0)  # it lives
            RunLock(tmp_path).release()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_lock_ends_with_its_block(tmp_path: Path) -> None:
    with RunLock(tmp_path) as lock, pytest.raises(LedgerBusyError, match=f"process {os.getpid()}"):
        RunLock(tmp_path)
    lock.release()
    RunLock(tmp_path).release()


def test_what_is_left_in_the_file_means_nothing(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("999999999999\nmore")
    with RunLock(tmp_path):
        assert (tmp_path / NAME).read_text() == f"{os.getpid()} {socket.gethostname()}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [("12 elsewhere\n", r"process 12 on elsewhere\."), ("", "another process"), ("x", "another")],
)
def test_who_holds_it_is_said_as_far_as_it_is_known(tmp_path: Path, text: str, said: str) -> None:
    with RunLock(tmp_path):
        (tmp_path / NAME).write_text(text)
        with pytest.raises(LedgerBusyError, match=f"is worked on by {said}"):
            RunLock(tmp_path)


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be written"):
        RunLock(tmp_path / "none")
