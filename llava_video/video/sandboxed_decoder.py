"""One video in one worker → a `Decoder`: orders out, facts and frames in, errors in our own words.

Frames come through memory that both processes map. Frames that came before a limit or a crash are
given before the error. Knows neither backends nor who lends workers.
"""

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from llava_video.errors import ConfigError, DecodeError, LlavaVideoError
from llava_video.values import Clip, VideoInfo
from llava_video.video.clips import Frame, checked_times, clip_frames
from llava_video.video.probe import TrackInfo
from llava_video.video.sandbox_channel import (
    BrokenMessageError,
    Message,
    pack_info,
    unpack_error,
    unpack_info,
)
from llava_video.video.sandbox_memory import FrameRing, LentFile
from llava_video.video.sandbox_process import WorkerEndedError, WorkerProcess
from llava_video.video.settings import BackendName, more_of
from llava_video.video.source import Source

# A worker that is in the middle of something is not waited for: a new one takes less time.
_CLOSE_S = 1.0

GiveBack = Callable[[WorkerProcess], None]


def _abandon(worker: WorkerProcess, give_back: GiveBack) -> None:
    """End the worker of a decoder that nobody closed."""
    worker.kill()
    give_back(worker)


class SandboxedDecoder:
    """One video in one worker; see `Decoder`.

    One reading at a time: a new call of `clips_at` ends the one before.

    Args:
        worker: lent until `close`.
        give_back: called once, with the worker, alive or dead.
        source: what to open; no frames that are decoded already.
        backend: as `open_decoder`.
        info: as `open_decoder`.

    Raises:
        SourceError, DecodeError, BackendMissingError, ConfigError: as `open_decoder`.
        DecodeError: a limit, a hang or a crash.
    """

    def __init__(
        self,
        worker: WorkerProcess,
        give_back: GiveBack,
        source: Source,
        backend: BackendName,
        info: VideoInfo | None,
    ) -> None:
        self._worker, self._give_back, self._source = worker, give_back, source
        self._lock = threading.RLock()
        self._finalizer = weakref.finalize(self, _abandon, worker, give_back)
        self._account = worker.begin_video()
        self._turn = 0
        self._is_reading = False
        self._ended = ""
        self._cause: WorkerEndedError | None = None
        self._lent: LentFile | None = None
        self.backend = self.reason = ""
        try:
            self.info: VideoInfo = self._open(backend, info)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"Decoder({self.backend}, in a process of its own: {self.reason})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The worker's process."""
        return self._worker.pid

    def clips_at(self, times_s: Sequence[float], *, chunk_frames: int = 8) -> Iterator[Clip]:
        """See `Decoder`. Frames that came before a limit or a crash are given before the error."""
        return self._clips(checked_times(times_s, chunk_frames), chunk_frames)

    def close(self) -> None:
        """See `Decoder`."""
        # Whoever reads in another thread, perhaps for long, is told by the end of the worker.
        has_lock = self._lock.acquire(timeout=_CLOSE_S)
        try:
            if self._finalizer.detach() is None:
                return
            if not has_lock or not self._has_closed():
                self._worker.kill()
            self._ended = self._ended or "it was closed"
            self._is_reading = False
            self._give_back(self._worker)
            self._lent = None
        finally:
            if has_lock:
                self._lock.release()

    def _has_closed(self) -> bool:
        """Have the worker close the video; return whether it did, and is fit for the next one."""
        if not self._worker.is_alive:
            return False
        if self._is_reading:
            self._worker.send({"do": "stop"})
        self._worker.send({"do": "close"})
        while (message := self._worker.try_answer(_CLOSE_S)) is not None:
            if message.values.get("is") == "closed":
                return not message.values.get("is_worn")
        return False

    def _open(self, backend: BackendName, info: VideoInfo | None) -> TrackInfo:
        self._lent = LentFile(self._source)
        order: dict[str, Any] = {
            "do": "open",
            "name": self._source.name,
            "path": self._lent.path,
            "backend": backend,
            "info": None,
        }
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        if isinstance(info, TrackInfo):
            order["info"], arrays = pack_info(info)
        self._worker.send(order, arrays, self._lent.descriptors)
        self._lent.sent()
        message = self._answer(None)
        try:
            opened = unpack_info(message.values["info"], message.arrays)
            self._note_choice(message)
            if opened.height_px * opened.width_px > self._account.limits.max_pixels:
                raise BrokenMessageError("frames larger than allowed")
        except (BrokenMessageError, KeyError) as cause:
            raise self._nonsense(None) from cause
        return info if isinstance(info, TrackInfo) else opened

    def _clips(self, times: npt.NDArray[np.float64], chunk_frames: int) -> Iterator[Clip]:
        wanted = self.info.frame_idxs_at(times)
        if not len(wanted):
            return
        with self._lock:
            turn, ring = self._begin(times)
        reading = _Reading(turn, ring, wanted)
        chunk: Frame | None = None
        idxs: list[int] = []
        most = min(clip_frames(self.info, chunk_frames), len(wanted))
        error: LlavaVideoError | None = None
        try:
            while error is None:
                if chunk is None:  # a new one each time: the last clip may still be in use
                    chunk = np.empty((most, *ring.shape), dtype=np.uint8)
                try:
                    idx = self._frame_into(chunk[len(idxs)], reading)
                except LlavaVideoError as raised:
                    error, idx = raised, None
                if idx is not None:
                    idxs.append(idx)
                if idxs and (idx is None or len(idxs) == most):
                    yield self._clip(chunk, idxs)
                    chunk, idxs = None, []
                if idx is None:
                    break
        finally:
            self._end(reading)
        if error is not None:
            raise error

    def _clip(self, chunk: Frame, idxs: list[int]) -> Clip:
        frame_idxs = np.array(idxs, dtype=np.int64)
        return Clip(
            frames=chunk[: len(idxs)], pts_s=self.info.pts_s[frame_idxs], frame_idxs=frame_idxs
        )

    def _begin(self, times: npt.NDArray[np.float64]) -> tuple[int, FrameRing]:
        """Order frames; return whose turn it is and where they will stand."""
        self._check_open(0.0)
        while self._is_reading:  # what the reading before this one still has to say
            self._worker.send({"do": "stop"})
            try:
                self._is_reading = self._answer(0.0).values.get("is") == "frame"
            except LlavaVideoError:  # what that one came to is nothing to this one
                if self._ended:
                    raise
        self._turn += 1
        ring = FrameRing(self.info.height_px, self.info.width_px, len(times))
        order = {"do": "read", "shape": [ring.num_slots, *ring.shape]}
        self._worker.send(order, {"times_s": times}, [ring.descriptor])
        ring.sent()
        self._is_reading = True
        return self._turn, ring

    def _frame_into(self, place: Frame, reading: "_Reading") -> int | None:
        """Copy the next frame; return its index, or None after the last one."""
        with self._lock:
            if reading.turn != self._turn:
                raise ConfigError(
                    f"{self._source.name}: another reading of this decoder began meanwhile.",
                    "open it once for each reading.",
                )
            pts_s = float(self.info.pts_s[reading.next_idx])
            message = self._answer(pts_s)
            if message.values.get("is") == "end":
                self._is_reading = False
                try:
                    self._note_choice(message)
                except KeyError as cause:
                    raise self._nonsense(pts_s) from cause
                return None
            idx = reading.take(message)
            if idx is None:
                raise self._nonsense(pts_s)
            np.copyto(place, reading.ring.slots[reading.num_taken % reading.ring.num_slots])
            reading.num_taken += 1
            self._worker.send({"do": "free"})
            return idx

    def _end(self, reading: "_Reading") -> None:
        with self._lock:
            # After its end, the worker may be reading another video.
            if self._is_reading and not self._ended and reading.turn == self._turn:
                self._worker.send({"do": "stop"})
        reading.ring.close()

    def _answer(self, pts_s: float | None) -> Message:
        """Wait for an answer; what is wrong becomes one of our errors.

        Args:
            pts_s: where in the video the worker is; None when it is being opened.
        """
        self._check_open(pts_s)
        try:
            message = self._worker.answer(self._account)
        except WorkerEndedError as cause:
            self._ended, self._cause = cause.found, cause
            where = "while it was opened" if pts_s is None else f"before the frame at {pts_s:.2f} s"
            message_text = f"{self._source.name}: {cause.found}, {where}."
            raise DecodeError(message_text, cause.hint, pts_s) from cause
        if message.values.get("was_short"):
            raise self._short_of_memory(pts_s)
        if message.values.get("is") == "error":
            self._is_reading = False
            raise self._told(message)
        return message

    def _check_open(self, pts_s: float | None) -> None:
        if self._ended:
            hint = "open it again."
            raise DecodeError(f"{self._source.name}: {self._ended}.", hint, pts_s) from self._cause

    def _told(self, message: Message) -> LlavaVideoError:
        if message.values.get("error"):
            error = unpack_error(message.values)
            if self._source.name not in error.message:  # which of many files it was
                error.message = f"{self._source.name}: {error.message}"
                error.args = (error.message, *error.args[1:])
            return error
        return DecodeError(
            f"{self._source.name}: reading it failed in a way that was not foreseen: "
            f"{message.values.get('message')}.",
            "report it, with the file.",
        )

    def _short_of_memory(self, pts_s: float | None) -> DecodeError:
        self._worker.kill()
        most_bytes = self._account.limits.max_memory_bytes
        self._ended = f"decoding took more than {most_bytes:,} bytes (max_memory_bytes)"
        hint = f"if the file is to be trusted: {more_of('max_memory_bytes')}."
        return DecodeError(f"{self._source.name}: {self._ended}.", hint, pts_s)

    def _nonsense(self, pts_s: float | None) -> DecodeError:
        self._worker.kill()
        self._ended = "the worker's answer makes no sense"
        return DecodeError(
            f"{self._source.name}: {self._ended}.", "leave the file out, or report it.", pts_s
        )

    def _note_choice(self, message: Message) -> None:
        self.backend, self.reason = str(message.values["backend"]), str(message.values["reason"])


class _Reading:
    """How far one call of `clips_at` has come."""

    def __init__(self, turn: int, ring: FrameRing, wanted: npt.NDArray[np.int64]) -> None:
        self.turn, self.ring = turn, ring
        self.num_taken = self._position = 0
        self._wanted = wanted.tolist()

    @property
    def next_idx(self) -> int:
        """The frame that should come next."""
        return int(self._wanted[min(self._position, len(self._wanted) - 1)])

    def take(self, message: Message) -> int | None:
        """Return the index of a frame that was asked for and is due; None of anything else."""
        idx = message.values.get("idx")
        if not isinstance(idx, int):
            return None
        try:
            self._position = self._wanted.index(idx, self._position) + 1
        except ValueError:
            return None
        return idx
