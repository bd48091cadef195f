"""Processes of this machine that load the model each → workers of a crew, one per GPU.

This process loads no model. Here is who starts them and hears of them; what one does stands in
`worker_process.py`. Knows no unit's state.
"""

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Final

from llava_video.archive.crew import Done, Gone, Ready
from llava_video.archive.hands import Job
from llava_video.archive.unit import Unit
from llava_video.cores import num_cores
from llava_video.errors import BackendMissingError, CapacityError, ConfigError

# The user's script is not run again, and a module is found where the parent finds it.
_START: Final = (
    "import json, sys; words = json.loads(sys.argv[1]); sys.path[:] = words['path']; "
    "from llava_video.archive.worker_process import main; main(words)"
)
_REAP_S: Final = 2.0
# A worker says something every second, whatever its units do.
SILENT_S: Final = 120.0


@dataclass(slots=True)
class _Process:
    program: "subprocess.Popen[bytes]"
    line: Connection
    heard_s: float | None = None  # when it said something last; None before its model is loaded


class Processes:
    """Worker processes; a `Staff`.

    Args:
        job: what they are told.
        number: of them; they share the cores and the bytes for decoded frames.

    Raises:
        BackendMissingError: this system has no way to start one.
        ConfigError: an option cannot be sent to another process.
    """

    def __init__(self, job: Job, number: int) -> None:
        if not hasattr(socket, "send_fds") or not sys.executable:
            raise BackendMissingError(
                "worker processes need a Unix system and a Python program to start.",
                "workers=0, or run this under Linux, macOS or WSL.",
            )
        share = max(job.settings.ahead_bytes // number, 1)
        job = replace(job, settings=replace(job.settings, ahead_bytes=share))
        try:
            self._job = pickle.dumps(job)
        except (pickle.PicklingError, TypeError, AttributeError) as cause:
            raise ConfigError(
                f"what the workers are told cannot be sent to them: {cause}.",
                "options of plain values; a model by its name.",
            ) from cause
        threads = max(num_cores() // number, 1)
        self._environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
        self._processes: dict[int, _Process] = {}

    def hire(self, idx: int) -> None:
        """See `Staff`.

        Raises:
            CapacityError: the system starts none.
        """
        ours, theirs = socket.socketpair()
        # An empty entry means the folder a program runs in.
        path = [entry or str(Path.cwd()) for entry in sys.path]
        words = {"path": path, "line": theirs.fileno(), "number": idx}
        try:
            program = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, json.dumps(words)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for the parent
            )
        except OSError as cause:
            ours.close()
            raise CapacityError(
                f"a worker cannot be started: {cause.strerror}.", "try again later."
            ) from cause
        finally:
            theirs.close()
        self._processes[idx] = _Process(program, Connection(ours.detach()))
        with contextlib.suppress(OSError):  # it has died: `events` says so
            self._processes[idx].line.send_bytes(self._job)

    def send(self, idx: int, slot: str, unit: Unit) -> None:
        """See `Staff`."""
        with contextlib.suppress(OSError):
            self._processes[idx].line.send((slot, unit))

    def events(self, timeout_s: float) -> Iterable[Ready | Done | Gone]:
        """See `Staff`."""
        heard = set(wait([process.line for process in self._processes.values()], timeout_s))
        for idx, process in list(self._processes.items()):
            has_ended = process.program.poll() is not None
            if has_ended or process.line in heard:
                yield from self._listen(idx, process, has_ended=has_ended)
            elif process.heard_s and time.monotonic() - process.heard_s > SILENT_S:
                yield self._bury(idx, process, "says nothing any more")

    def finish(self) -> None:
        """See `Staff`."""
        for process in self._processes.values():
            with contextlib.suppress(OSError):
                process.line.send(None)

    def close(self) -> None:
        """See `Staff`."""
        for process in self._processes.values():
            process.program.kill()
        for process in self._processes.values():
            process.line.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.program.wait(_REAP_S)
        self._processes.clear()

    def _listen(
        self, idx: int, process: _Process, *, has_ended: bool
    ) -> Iterator[Ready | Done | Gone]:
        """Yield what a process has said, and that it is gone."""
        gone: Gone | None = None
        # What was cut off in the midst of a message raises too, and the end of all of them.
        with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):
            while gone is None and process.line.poll():
                event = _event_of(idx, process.line.recv())
                process.heard_s = time.monotonic()
                if isinstance(event, Gone):
                    gone = event
                elif event is not None:
                    yield event
            if gone is None and not has_ended:
                return
        buried = self._bury(idx, process)
        yield gone or buried

    def _bury(self, idx: int, process: _Process, why: str = "") -> Gone:
        """End a process; return how it ended, where nothing else is known."""
        del self._processes[idx]
        process.line.close()
        process.program.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.program.wait(_REAP_S)
        return Gone(idx, why or _last_words(process.program.returncode))


def _event_of(idx: int, message: tuple[object, ...]) -> Ready | Done | Gone | None:
    kind, *fields = message
    if kind == "alive":
        return None
    makers = {"ready": Ready, "done": Done, "gone": Gone}
    return makers[str(kind)](idx, *fields)  # type: ignore[no-any-return]  # fields by kind


def _last_words(status: int | None) -> str:
    if status is None:
        return "does not answer"
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    return f"was ended by {name}"
