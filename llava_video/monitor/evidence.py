"""Frames → snapshots, sheets and clips on the disk, within age and room.

A file is written under a hidden name, flushed and renamed, then named in the spool. Where the disk
is full the oldest evidence goes first; when there is none left, the room that was held back for
alerts. Knows no rule and no sink.
"""

import contextlib
import os
import re
import statistics
import threading
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from llava_video.backends import require
from llava_video.contact_sheet import write_contact_sheet
from llava_video.errors import LedgerError, SourceError
from llava_video.files import replacing
from llava_video.monitor.message import FileKind, StoredFile, wall_text
from llava_video.monitor.retention import first_to_go, outlived
from llava_video.monitor.settings import RetentionSettings
from llava_video.monitor.spool import Spool
from llava_video.sqlite_file import is_disk_full

FOLDER: Final = "evidence"
RESERVE: Final = "reserve"
# Freed at once on a full disk, so that an alert does not wait for one deletion after another.
_FREED_BYTES = 2**20
# From one frame of a clip to the next; a step back, or of years, is that of a clock that was set.
_LEAST_STEP_S, _MOST_STEP_S = 1e-3, 3600.0
_NAME = re.compile(r"[0-9a-f]{32}-(?:snapshot|sheet|clip)\.\w+")

Frames = npt.NDArray[np.uint8]


class EvidenceStore:
    """Write and remove evidence; may be used from several threads.

    Takes the spool's `free` over.

    Attributes:
        was_full: whether room had to be made.

    Args:
        spool: names what is kept; evidence lies in a folder beside it.
        settings: ages and bytes.
    """

    def __init__(self, spool: Spool, settings: RetentionSettings) -> None:
        self._spool, self._settings = spool, settings
        self.folder = spool.folder / FOLDER
        self._reserve = spool.folder / RESERVE
        self._gone: set[str] = set()
        self.was_full = False
        self._guard = threading.RLock()
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as cause:
            raise LedgerError(f"{self.folder} cannot be made: {cause.strerror}.") from cause
        spool.free = self.free
        self._remove_strays()
        self._hold_reserve()

    def snapshot(self, alert_id: str, frame: Frames, at_s: float) -> StoredFile | None:
        """Keep one frame as a JPEG.

        Args:
            alert_id: whose.
            frame: (H, W, 3) uint8, RGB.
            at_s: wall clock, s.

        Returns:
            The file; None when the disk is full with nothing left to remove.
        """

        def write(path: Path) -> None:
            from PIL import Image  # costs 30 ms that a watch without alerts need not pay

            with path.open("xb") as file:
                picture = Image.fromarray(np.ascontiguousarray(frame))
                picture.save(file, format="JPEG", quality=85)

        return self.write(alert_id, "snapshot", ".jpg", write, at_s)

    def sheet(
        self, alert_id: str, frames: Frames, times_s: Sequence[float], at_s: float
    ) -> StoredFile | None:
        """Keep frames as one picture, each with its wall-clock time; otherwise as `snapshot`.

        Args:
            alert_id: whose.
            frames: (N, H, W, 3) uint8, RGB.
            times_s: N wall-clock times, s.
            at_s: wall clock, s.
        """
        captions = [wall_text(time_s)[11:-2] for time_s in times_s]

        def write(path: Path) -> None:
            write_contact_sheet(frames, times_s, path, captions=captions)

        return self.write(alert_id, "sheet", ".jpg", write, at_s)

    def clip(
        self, alert_id: str, frames: Frames, times_s: Sequence[float], at_s: float
    ) -> StoredFile | None:
        """Keep frames as a video of the same length; otherwise as `sheet`.

        The wall clock may have been set meanwhile: see `_ascending`.

        Raises:
            SourceError: the video cannot be written.
        """

        def write(path: Path) -> None:
            from llava_video.world.clip import write_clip

            even = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
            try:
                write_clip(path, even, times_s=_ascending(times_s))
            except require("av").error.FFmpegError as cause:
                raise SourceError(
                    f"the clip of alert {alert_id} cannot be written: {cause}."
                ) from cause

        return self.write(alert_id, "clip", ".mp4", write, at_s)

    def write(
        self,
        alert_id: str,
        kind: FileKind,
        suffix: str,
        write: Callable[[Path], None],
        at_s: float,
    ) -> StoredFile | None:
        """Keep a file that somebody else writes; otherwise as `snapshot`.

        Args:
            alert_id: whose.
            kind: what it is.
            suffix: of its name.
            write: given a path that does not exist yet.
            at_s: wall clock, s.

        Raises:
            LlavaVideoError, OSError: it cannot be written, and not for want of room.
        """
        path = self.folder / f"{alert_id}-{kind}{suffix}"
        while True:
            try:
                with replacing(path) as unfinished:
                    write(unfinished)
                    _flush(unfinished)
                break
            except Exception as error:
                if not is_disk_full(error):
                    raise
            if not self._free_evidence():
                return None
        return StoredFile(
            name=path.name, alert_id=alert_id, kind=kind, num_bytes=path.stat().st_size,
            made_at_s=at_s,
        )  # fmt: skip

    def free(self) -> bool:
        """Make room on a full disk: evidence first, then what was held back for alerts.

        Returns:
            Whether there is more room now.
        """
        if self._free_evidence():
            return True
        with self._guard, contextlib.suppress(OSError):
            had_bytes = self._reserve.stat().st_size
            self._reserve.unlink()
            return had_bytes > 0
        return False

    def tend(self, now_s: float) -> int:
        """Remove what has outlived its time or its room, and hold room for alerts again.

        Args:
            now_s: wall clock, s.

        Returns:
            How many files went.

        Raises:
            LedgerError: the spool cannot be written.
        """
        with self._guard:
            going = outlived(self.files(), now_s, self._settings)
            for one in going:
                self._remove(one)
            self._forget_gone()
            self._hold_reserve()
        return len(going)

    @property
    def has_reserve(self) -> bool:
        """Whether the room for alerts is held."""
        try:
            return self._reserve.stat().st_size == self._settings.reserve_bytes
        except FileNotFoundError:
            return False

    @property
    def num_bytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(one.num_bytes for one in self.files())

    def files(self) -> list[StoredFile]:
        """Return what is kept, oldest first."""
        return [one for one in self._spool.files() if one.name not in self._gone]

    def _free_evidence(self) -> bool:
        freed_bytes, self.was_full = 0, True
        with self._guard:
            while freed_bytes < _FREED_BYTES:
                going = first_to_go(self.files())
                if going is None:
                    break
                freed_bytes += max(1, self._remove(going))
        return freed_bytes > 0

    def _remove(self, one: StoredFile) -> int:
        """Remove a file; the list is told later, since a full disk takes no news."""
        self._gone.add(one.name)
        with contextlib.suppress(OSError):
            (self.folder / one.name).unlink()
            return one.num_bytes
        return 0

    def _forget_gone(self) -> None:
        gone = sorted(self._gone)
        if gone:
            self._spool.forget_files(gone)
            self._gone.difference_update(gone)

    def _remove_strays(self) -> None:
        """Remove what a process that was killed had not named yet, and names without a file."""
        known = {one.name for one in self._spool.files()}
        here = set()
        for path in self.folder.iterdir():
            is_ours = path.name.startswith(".") or _NAME.fullmatch(path.name)
            if path.name in known:
                here.add(path.name)
            elif is_ours and path.is_file():
                path.unlink(missing_ok=True)
        self._gone |= known - here

    def _hold_reserve(self) -> None:
        """Hold room for alerts, where there is some."""
        if self.has_reserve:
            return
        try:
            with replacing(self._reserve) as unfinished:
                unfinished.write_bytes(bytes(self._settings.reserve_bytes))
                _flush(unfinished)
        except OSError as error:
            if not is_disk_full(error):
                raise LedgerError(
                    f"{self._reserve} cannot be written: {error.strerror}.",
                    "make the folder writable.",
                ) from error


def _ascending(times_s: Sequence[float]) -> list[float]:
    """Return times from the first on, each after the one before, as a video needs them.

    A step of a clock that was set becomes as long as the others are.

    >>> _ascending([10.0, 11.0, 10.5, 12.5])
    [0.0, 1.0, 2.5, 4.5]
    """
    steps_s = [after - before for before, after in pairwise(times_s)]
    fit_s = [step_s for step_s in steps_s if _LEAST_STEP_S <= step_s <= _MOST_STEP_S]
    usual_s = statistics.median(fit_s) if fit_s else 1.0
    own_s = (one if _LEAST_STEP_S <= one <= _MOST_STEP_S else usual_s for one in steps_s)
    return list(accumulate(own_s, initial=0.0))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
