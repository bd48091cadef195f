"""Bytes that two processes share, and what a process takes for itself.

Frames on their way back and sources that stand in memory are files without a name, passed as
descriptors: nothing is left behind however either side ends.
"""

import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from llava_video.video.source import Source

# Enough that neither side waits for the other, in memory that is small beside a decoder's.
_MOST_SLOTS, _LEAST_SLOTS, _RING_BYTES = 16, 2, 2**25

# Where memory ends, some allocation fails before the last byte is taken.
_SHORT_SHARE = 0.8


class FrameRing:
    """Slots for frames of one size, written by the worker, read here, one after the other.

    Attributes:
        shape: (height, width, 3) of a frame.
        num_slots: frames that may be on their way.
        slots: (num_slots, height, width, 3) uint8, read only.
        descriptor: what the worker is given; closed by `sent`.
    """

    def __init__(self, height_px: int, width_px: int, num_frames: int) -> None:
        self.shape = (height_px, width_px, 3)
        frame_bytes = height_px * width_px * 3
        fitting = max(_LEAST_SLOTS, min(_MOST_SLOTS, _RING_BYTES // frame_bytes))
        self.num_slots = min(fitting, num_frames)
        num_bytes = self.num_slots * frame_bytes
        self.descriptor = nameless_file(num_bytes)
        self._memory = mmap.mmap(self.descriptor, num_bytes, prot=mmap.PROT_READ)
        self.slots: npt.NDArray[np.uint8] = np.frombuffer(self._memory, dtype=np.uint8).reshape(
            self.num_slots, *self.shape
        )

    def sent(self) -> None:
        """Close the descriptor: the worker has its own."""
        os.close(self.descriptor)

    def close(self) -> None:
        """Let the memory go, though an error's traceback may still hold this object."""
        self.slots = self.slots[:0].copy()
        self._memory.close()


class LentFile:
    """A source as a worker can open it: a path, or a descriptor of its bytes.

    Attributes:
        path: where the file is; "" when the descriptor is to be used.
        descriptors: none or one, closed by `sent`.
    """

    def __init__(self, source: Source) -> None:
        self.path, self.descriptors = "", list[int]()
        # Held as long as the worker reads: a spooled file goes with its source.
        self._source, self._spool = source, None
        if source.content is None:
            # The worker stays in the folder it was started in.
            self.path = str(Path(source.path or "").absolute())
        elif hasattr(os, "memfd_create"):
            self.descriptors = [nameless_file(0)]
            with open(self.descriptors[0], "wb", closefd=False) as file:
                file.write(source.content)
        else:
            self._spool = tempfile.NamedTemporaryFile(prefix="llava_video_")  # noqa: SIM115 - held open
            self._spool.write(source.content)
            self._spool.flush()
            self.path = self._spool.name

    def sent(self) -> None:
        """Close the descriptor: the worker has its own."""
        while self.descriptors:
            os.close(self.descriptors.pop())


def nameless_file(num_bytes: int) -> int:
    """Return the descriptor of a file in memory (on a disk where the system has no such files).

    Args:
        num_bytes: its size, which the other side cannot change where the system can forbid that:
            of a file cut short, memory would vanish under the reader. 0 lets it grow.
    """
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile(prefix="llava_video_") as file:
            file.truncate(num_bytes)
            return os.dup(file.fileno())
    import fcntl

    descriptor = os.memfd_create("llava_video", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        if num_bytes:
            os.ftruncate(descriptor, num_bytes)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def status_bytes(name: str, pid: int | str = "self") -> int:
    """Return a line of a process's status, bytes; 0 where there is none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def is_short_of_memory(base_bytes: int, max_memory_bytes: int, pid: int | str = "self") -> bool:
    """Whether a process's address space has once come near the limit.

    What failed then may have been fine: a decoder that is refused memory reports damage, crashes,
    or waits for a thread that never began.

    Args:
        base_bytes: its address space at the start.
        max_memory_bytes: what it may take beyond that.
        pid: the process.
    """
    return status_bytes("VmPeak", pid) > base_bytes + _SHORT_SHARE * max_memory_bytes
