"""A program of this library, run in a process of its own: start it, talk to it, end it.

It imports what it is told to and nothing of the user's, hears its orders over a socket, and ends
with its parent, however that ends. Knows no decoder.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llava_video.errors import BackendMissingError, CapacityError
from llava_video.video.sandbox_channel import Channel, Message

# The user's script is not run again, and a module is found where the parent finds it.
_START = (
    "import importlib, json, sys; words = json.loads(sys.argv[1]); sys.path[:] = words['path']; "
    "importlib.import_module(words['program']).main(words)"
)
_REAP_S = 1.0
# Few pools of memory for all threads: with one each, address space would say little. And pictures'
# memory is kept for the next ones: from the system, page by page, it costs 2 ms for one of 1080p.
_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_TRIM_THRESHOLD_": str(2**26),
    "OPENBLAS_NUM_THREADS": "1",
}


class Program:
    """One process, running until `kill`.

    Args:
        module: whose `main(words)` it runs, by its dotted name.
        words: plain values for it; others see them, so no secret may be among them. "line" and
            "lifeline" are added, descriptors of its socket and of a pipe that closes with us.

    Raises:
        BackendMissingError: this system has no way to start one.
        CapacityError: it cannot be started now.
    """

    def __init__(self, module: str, words: Mapping[str, Any]) -> None:
        if not hasattr(socket, "send_fds") or not sys.executable:
            raise BackendMissingError(
                "decoding in processes needs a Unix system and a Python program to start.",
                "decode without the sandbox, or run this under Linux, macOS or WSL.",
            )
        self._ending = threading.RLock()
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        told = {
            **words,
            # An empty entry means the folder a program runs in.
            "path": [entry or str(Path.cwd()) for entry in sys.path],
            "program": module,
            "line": theirs.fileno(),
            "lifeline": lifeline,
        }
        self._channel = Channel(ours)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, json.dumps(told)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), lifeline),
                env={**os.environ, **_ENVIRONMENT},
                start_new_session=True,  # Ctrl-C is for the parent
            )
        except OSError as cause:
            self._let_go()
            raise CapacityError(
                f"a decoding worker cannot be started: {cause.strerror}.", "try again later."
            ) from cause
        finally:
            theirs.close()
            os.close(lifeline)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._lifeline >= 0 and self._process.poll() is None

    def send(
        self,
        order: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray[Any, Any]] | None = None,
        descriptors: Sequence[int] = (),
        timeout_s: float | None = None,
    ) -> None:
        """Send an order; that the process has died is told by the wait for its answer."""
        with contextlib.suppress(OSError):
            self._channel.send(order, arrays, descriptors, timeout_s)

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """Return the next message; None when none has come whole in time.

        Raises:
            EOFError: the process has gone. BrokenMessageError: it does not keep to the form.
        """
        return self._channel.receive(timeout_s)

    def kill(self) -> None:
        """End the process, with all it started if it still runs, and free what it held."""
        with self._ending:
            if self._lifeline < 0:
                return
            if self._process.returncode is None:  # once reaped, its number may be another's
                with contextlib.suppress(OSError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self.reap()
            self._let_go()

    def reap(self) -> int | None:
        """Return how the process ended; None when the system does not let it end in time."""
        try:
            return self._process.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            return None

    def _let_go(self) -> None:
        self._channel.close()
        os.close(self._lifeline)
        self._lifeline = -1
