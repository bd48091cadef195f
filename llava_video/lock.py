"""A run folder → the right to write in it, held by one process until it ends, however it ends.

The system's own lock on a file: a process that is killed loses it at once, and no clock and no file
that was left behind says otherwise. Knows nothing of what is written there.
"""

import os
import socket
import sys
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

from llava_video.errors import LedgerBusyError, LedgerError

NAME = "lock"


class RunLock:
    """Hold a run folder for this process; a context manager.

    Args:
        folder: it exists.

    Raises:
        LedgerBusyError: another process, or another part of this one, holds it.
        LedgerError: the file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / NAME
        try:
            self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as cause:
            raise LedgerError(
                f"{path} cannot be written: {cause.strerror}.", "name another folder."
            ) from cause
        if not _take(self._descriptor):
            holder = _holder(self._descriptor)
            self.release()
            raise LedgerBusyError(
                f"{folder} is worked on by {holder}.",
                "wait until it ends, end it, or name another folder.",
            )
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        if hasattr(os, "register_at_fork"):
            # A forked child would hold the lock on when this process is killed.
            mine = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _leave(mine()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let others have it; nothing happens the second time."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _leave(lock: RunLock | None) -> None:
    if lock is not None:
        lock.release()


def _holder(descriptor: int) -> str:
    number, _, host = os.pread(descriptor, 300, 0).decode("utf-8", "replace").strip().partition(" ")
    if not number.isdecimal():
        return "another process"
    # A shared file system passes locks on between machines.
    return f"process {number}" + ("" if host == socket.gethostname() else f" on {host}")


def _take(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            # Far behind the number that others read: a locked byte cannot be read there.
            os.lseek(descriptor, 2**20, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
