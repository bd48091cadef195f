"""One unit of work → its row, or the error that stands in its place.

Every error becomes a record here. Knows no ledger and no other unit.
"""

import errno
import logging
import os
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llava_video.archive.answering import answer_item
from llava_video.archive.content import HashStore, content_hash, is_unchanged, local_path
from llava_video.archive.row import Asked, Maker, Row, make_row
from llava_video.archive.settings import OPTIONS_OF_PLACE, ArchiveSettings, plain_options
from llava_video.archive.sheets import frames_of, sheet_of
from llava_video.archive.unit import SUSPICIOUS, Unit, UnitError
from llava_video.errors import (
    CapacityError,
    ChangedFileError,
    LlavaVideoError,
    ServerClosedError,
    ServerError,
    ServerRefusedError,
    SourceError,
)
from llava_video.options import settings_of
from llava_video.timeline import Patience, Timeline
from llava_video.values import Description
from llava_video.video.sandbox_process import WorkerEndedError

if TYPE_CHECKING:
    from llava_video.api import LlavaVideo

_log = logging.getLogger(__name__)

# What a unit that kills its decoding process fails with.
CRASH = "WorkerCrashed"


Place = Literal["device", "server"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one try of a unit.

    Attributes:
        unit: the unit.
        row: its row; None when it failed.
        error: why it failed.
        may_pass: whether another try may succeed.
        of_place: what is broken where it was worked, so that every other unit would fail too.
        footage_s: how much of the video was looked at, s.
        sheet: a small picture of what was seen, JPEG, for reports; None where nothing was.
        frames: time, ms → a frame of each span that was answered about, JPEG, for hits.
    """

    unit: Unit
    row: Row | None = None
    error: UnitError | None = None
    may_pass: bool = False
    of_place: Place | None = None
    footage_s: float = 0.0
    sheet: bytes | None = None
    frames: Mapping[int, bytes] = field(default_factory=dict)


class Worker:
    """Works units, one at a time; any number of threads may share one.

    Args:
        model: answers.
        settings: the run's.
        options: of every request, with the run's way of reading (`sandbox`).
        maker: what rows say of the model.
        finishing: set when a run is to end; None where it ends by itself.
    """

    def __init__(
        self,
        model: "LlavaVideo",
        settings: ArchiveSettings,
        options: Mapping[str, Any],
        maker: Maker,
        finishing: threading.Event | None = None,
    ) -> None:
        self._model, self._settings = model, settings
        self._reading = {name: options[name] for name in options if name in OPTIONS_OF_PLACE}
        self._fetch = settings_of(options).fetch
        self._made_by, self._finishing = maker, finishing or threading.Event()
        self.asked = asked_of(settings, options)

    def work(self, unit: Unit) -> Outcome:
        """Try a unit once; every error becomes part of the outcome."""
        try:
            self._check_read(unit)
            reading, patience = self._reading_of(unit), self._patience_with(unit)
            results = answer_item(self._model, unit.item, self.asked, reading, patience)
            _check_same_bytes(unit, results)
            row = make_row(unit, results, self.asked, self._maker(unit))
            sheet, frames = self._pictures_of(results)
        except Exception as error:  # noqa: BLE001 - a worker's border: it becomes the unit's record
            return Outcome(
                unit=unit,
                error=error_of(error),
                may_pass=may_pass(error, unit),
                of_place=of_place(error),
            )
        return Outcome(
            unit=unit, row=row, footage_s=_footage_s(results), sheet=sheet, frames=frames
        )

    def _pictures_of(
        self, results: list[Description] | Timeline
    ) -> tuple[bytes | None, Mapping[int, bytes]]:
        """Return the sheet and the frames of spans, where pictures are wanted."""
        if not self._settings.pictures:
            return None, {}
        return sheet_of(results), frames_of(results)

    def _reading_of(self, unit: Unit) -> dict[str, Any]:
        """Return how a video is read: what whole runs keep ending over, in a process of its own."""
        if unit.interruptions < SUSPICIOUS or self._reading.get("sandbox"):
            return self._reading
        return {**self._reading, "sandbox": True}

    def _patience_with(self, unit: Unit) -> Patience:
        """Return how a unit's windows are tried again: as often as a unit is, and as late."""

        def wait(tries: int) -> bool:
            has_more = tries < self._settings.attempts
            wait_s = self._settings.retry_wait_s * 2 ** (tries - 1)
            has_next = unit.attempts + 1 < self._settings.attempts
            if has_more and self._finishing.wait(wait_s) and has_next:
                # As its last try it goes on: it would end for good without having failed.
                raise CapacityError("the run ended before a window was tried again.", "go on.")
            return has_more

        return Patience(may_pass=lambda error: may_pass(error, unit), wait=wait)

    def _check_read(self, unit: Unit) -> None:
        """See that a unit's file could be read when its key was made; if not, say why."""
        if not unit.content_hash:
            content_hash(unit.item.address, fetch_settings=self._fetch)
            raise ChangedFileError(
                f"{unit.item.address} could not be read before, and can be now.",
                "run the archive again.",
            )

    def _maker(self, unit: Unit) -> Maker:
        return replace(self._made_by, worker=str(os.getpid()), attempts=unit.attempts + 1)


def _check_same_bytes(unit: Unit, results: list[Description] | Timeline) -> None:
    """See that what was fetched to be decoded is what was fetched to be hashed.

    Raises:
        ChangedFileError: the address gave other bytes.
    """
    if local_path(unit.item.address) is not None:
        return  # a file is asked for its stamp, where the hashes are kept
    if isinstance(results, Timeline):
        answers = [caption.description for caption in results.captions]
    else:
        answers = results
    videos = [video for answer in answers for video in answer.provenance.get("videos", ())]
    if any(video["identity"] != unit.content_hash for video in videos):
        raise _changed(unit)


def _changed(unit: Unit) -> ChangedFileError:
    return ChangedFileError(
        f"{unit.item.address} became another file while it was worked.",
        "run the archive again when nobody writes to it.",
    )


def settled(outcome: Outcome, hashes: HashStore) -> Outcome:
    """See that what was decoded is what the unit's key says; of what is not there is no row.

    Asked where the hashes are kept, since the work may have been done elsewhere.

    Args:
        outcome: of a try.
        hashes: where the files' hashes are kept.
    """
    unit = outcome.unit
    if outcome.row is None or is_unchanged(unit.item.address, unit.content_hash, hashes):
        return outcome
    return Outcome(unit=unit, error=error_of(_changed(unit)))


def asked_of(settings: ArchiveSettings, options: Mapping[str, Any]) -> Asked:
    """Return what a run asks, as its rows say it."""
    is_timeline = settings.task == "timeline"
    return Asked(
        task=settings.task,
        prompts=settings.prompts,
        options=plain_options(options),
        window_s=settings.window_s if is_timeline else None,
        overlap_s=settings.overlap_s if is_timeline else None,
        has_summary=settings.summary,
    )


def error_of(error: BaseException) -> UnitError:
    """Return what an exception says; of one that nobody foresaw, where it came from too."""
    if has_killed_worker(error):
        return replace(UnitError.of(error), kind=CRASH)
    if isinstance(error, LlavaVideoError):
        return UnitError.of(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    said = UnitError.of(error)
    return replace(said, message=f"{said.message}{where}")


def has_killed_worker(error: BaseException | None) -> bool:
    """Say whether a decoding process died, hung or broke its limits over this."""
    while error is not None:
        if isinstance(error, WorkerEndedError):
            return True
        error = error.__cause__
    return False


def of_place(error: BaseException | None) -> Place | None:
    """Say what is broken where a unit was worked; None where the trouble is its own.

    After an error of CUDA a process can use its device no more; a server that does not take our
    key takes it for no unit.
    """
    while error is not None:
        if isinstance(error, ServerClosedError):
            return "server"
        is_cuda = isinstance(error, RuntimeError) and str(error).startswith("CUDA error")
        is_cuda = is_cuda or type(error).__name__ == "AcceleratorError"  # torch's, since 2.8
        if is_cuda and "out of memory" not in str(error):  # which spoils nothing
            return "device"
        error = error.__cause__
    return None


def may_pass(error: BaseException, unit: Unit) -> bool:
    """Say whether another try may succeed: no room now, a download, trouble of system or server."""
    if isinstance(error, ServerError):
        return not isinstance(error, ServerRefusedError)
    if isinstance(error, SourceError) and not isinstance(error, ChangedFileError):
        return local_path(unit.item.address) is None
    if isinstance(error, CapacityError | MemoryError):
        return True
    if isinstance(error, OSError) and not isinstance(error, LlavaVideoError):
        return error.errno not in (errno.ENOENT, errno.EACCES, errno.EISDIR)
    return type(error).__name__ == "OutOfMemoryError"


def _footage_s(results: list[Description] | Timeline) -> float:
    if isinstance(results, Timeline):
        return sum(segment.end_s - segment.start_s for segment in results.coverage)
    spans = [visual for visual in results[0].plan.visuals if visual.duration_s is not None]
    return sum(visual.duration_s or 0.0 for visual in spans)
