"""A worker process as its parent sees it: start it, send it orders, wait for answers, end it.

Waiting is where limits are kept: a worker that is silent, slow, reads too much, dies or talks
nonsense is killed, and a `WorkerEndedError` says why. Knows no pool and no frame.
"""

import contextlib
import logging
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llava_video.config import to_mapping
from llava_video.errors import CapacityError
from llava_video.video.program import Program
from llava_video.video.sandbox_channel import BrokenMessageError, Message
from llava_video.video.sandbox_memory import is_short_of_memory, status_bytes
from llava_video.video.settings import SandboxSettings, more_of

_START_TIMEOUT_S = 60.0
# Limits that the kernel does not keep are looked at so often.
_LOOK_S = 0.1


class WorkerEndedError(Exception):
    """A worker was killed, or died.

    Args:
        found: what happened, for the middle of a sentence.
        hint: what to do.
    """

    def __init__(self, found: str, hint: str) -> None:
        super().__init__(found, hint)
        self.found, self.hint = found, hint


@dataclass(slots=True)
class Account:
    """What one video has cost so far.

    Attributes:
        waited_s: seconds that somebody waited for the worker.
        read_before_bytes: what the worker had read when the video was opened.
        looked_s: when its reading was last looked at.
        limits: the worker's.
    """

    limits: SandboxSettings
    waited_s: float = 0.0
    read_before_bytes: int = 0
    looked_s: float = 0.0


class WorkerProcess:
    """One worker, running until `kill`.

    Args:
        settings: the limits.
        opener: which function the worker opens sources with, "module:function".

    Raises:
        BackendMissingError: this system has no way to start one.
        CapacityError: it did not start.
    """

    def __init__(self, settings: SandboxSettings, opener: str) -> None:
        self._settings = settings
        self._base_bytes = 0
        self.num_videos = 0
        words = {"settings": to_mapping(settings), "opener": opener}
        self._program = Program("llava_video.video.sandbox_worker", words)
        try:
            self._await_start()
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The process."""
        return self._program.pid

    @property
    def is_alive(self) -> bool:
        """Whether it can be given another video."""
        return self._program.is_alive

    def send(
        self,
        order: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray[Any, Any]] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Send an order; that the worker has died is told by the wait for its answer."""
        self._program.send(order, arrays, descriptors, self._settings.stall_timeout_s)

    def begin_video(self) -> Account:
        """Count another video, and return its account."""
        self.num_videos += 1
        return Account(self._settings, read_before_bytes=self._read_bytes())

    def answer(self, account: Account) -> Message:
        """Wait for the next answer, within the limits.

        Raises:
            WorkerEndedError: a limit, a crash or nonsense; the worker is dead by then.
        """
        before_s = silent_since_s = time.monotonic()
        while True:
            message = self._next(_LOOK_S)
            now_s = time.monotonic()
            account.waited_s, before_s = account.waited_s + now_s - before_s, now_s
            if message is not None:
                silent_since_s = now_s
            self._check_times(account, now_s - silent_since_s)
            if now_s - account.looked_s >= _LOOK_S:
                account.looked_s = now_s
                self._check_reading(account)
            if message is not None and not self._is_aside(message):
                return message

    def try_answer(self, timeout_s: float) -> Message | None:
        """Wait for an answer for a while, on nobody's account; None when it does not come."""
        until_s = time.monotonic() + timeout_s
        with contextlib.suppress(WorkerEndedError):
            while (left_s := until_s - time.monotonic()) > 0:
                message = self._next(left_s)
                if message is not None and not self._is_aside(message):
                    return message
        return None

    def kill(self) -> None:
        """End the process, with all it started if it still runs, and free what it held."""
        self._program.kill()

    def _next(self, timeout_s: float) -> Message | None:
        try:
            return self._program.receive(timeout_s)
        except EOFError:
            status = self._program.reap()
            raise self._ended(last_words(status), _CRASHES) from None
        except BrokenMessageError as cause:
            raise self._ended(f"the worker sent {cause}", _CRASHES) from cause

    def _is_aside(self, message: Message) -> bool:
        """Take what is no answer: signs of life, and lines of the log."""
        kind = message.values.get("is")
        if kind == "log":
            logger, text = str(message.values.get("logger")), str(message.values.get("text"))
            if logger.startswith("llava_video."):
                logging.getLogger(logger).warning("%s", text[:2000])
        return kind in ("log", "pulse")

    def _check_times(self, account: Account, silent_s: float) -> None:
        limits = self._settings
        if silent_s >= limits.stall_timeout_s:
            if is_short_of_memory(self._base_bytes, limits.max_memory_bytes, self.pid):
                raise self._ended(
                    f"the decoder hangs after taking {limits.max_memory_bytes:,} bytes "
                    "(max_memory_bytes)",
                    _HANGS.format(more_of("max_memory_bytes")),
                )
            raise self._ended(
                f"the decoder said nothing for {limits.stall_timeout_s:g} s (stall_timeout_s)",
                _HANGS.format(more_of("stall_timeout_s")),
            )
        if account.waited_s >= limits.video_timeout_s:
            raise self._ended(
                f"decoding took longer than {limits.video_timeout_s:g} s (video_timeout_s)",
                _HANGS.format(more_of("video_timeout_s")),
            )

    def _check_reading(self, account: Account) -> None:
        most_bytes = self._settings.max_read_bytes
        if self._read_bytes() - account.read_before_bytes > most_bytes:
            raise self._ended(
                f"more than {most_bytes:,} bytes of it were read (max_read_bytes)",
                f"if the file is to be trusted: {more_of('max_read_bytes')}.",
            )

    def _read_bytes(self) -> int:
        """Return what the process has read since it began; 0 where the system does not say."""
        try:
            lines = Path(f"/proc/{self.pid}/io").read_text(encoding="ascii")
        except OSError:
            return 0
        return int(lines.split()[1])

    def _ended(self, found: str, hint: str) -> WorkerEndedError:
        self.kill()
        return WorkerEndedError(found, hint)

    def _await_start(self) -> None:
        until_s = time.monotonic() + _START_TIMEOUT_S
        try:
            message = self._next(max(0.0, until_s - time.monotonic()))
        except WorkerEndedError as cause:
            raise CapacityError(
                f"a decoding worker does not start: {cause.found}.",
                f"see why: {sys.executable} -c 'import llava_video.video.sandbox_worker'.",
            ) from cause
        if message is None:
            raise CapacityError(
                f"a decoding worker did not start in {_START_TIMEOUT_S:g} s.",
                "try again when the machine is less busy.",
            )
        if message.values.get("is") != "ready":
            found = message.values.get("message")
            raise CapacityError(f"a decoding worker does not start: {found}.", "check the opener.")
        self._base_bytes = status_bytes("VmSize", self.pid)


def last_words(status: int | None) -> str:
    """Say how a process ended, for the middle of a sentence."""
    if status is None:
        return "the worker closed its line"
    if status >= 0:
        return f"the worker ended by itself (exit status {status})"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if name == "SIGKILL":
        return "the worker was killed from outside (SIGKILL), as for want of memory"
    return f"the decoder crashed ({name})"


_HANGS = "leave the file out, or, if it is to be trusted: {}."
_CRASHES = (
    "leave the file out, or convert it: damage can bring a decoder down. So can want of memory: "
    f"{more_of('max_memory_bytes')}."
)
