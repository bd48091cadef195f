"""Keeps one stream coming: connects, watches for silence, and tries again, until it is stopped.

Runs in a thread of its own, which never blocks in foreign code: what may hang is a process, and is
ended when it says nothing for too long. Knows no FFmpeg.
"""

import logging
import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llava_video.errors import (
    AccessRefusedError,
    BackendMissingError,
    CapacityError,
    DecodeError,
    LlavaVideoError,
    SourceError,
)
from llava_video.video.settings import StreamSettings
from llava_video.video.stream_address import StreamAddress
from llava_video.video.stream_events import StreamState, StreamStatus
from llava_video.video.stream_process import News, StreamProcess
from llava_video.video.stream_queue import StreamQueue
from llava_video.video.stream_teller import Teller
from llava_video.video.stream_waits import Waits

_log = logging.getLogger(__name__)

# How often the reader looks whether it is stopped, and for silence.
_LOOK_S = 0.1
# A process that keeps to its own timeouts says so within this; one that does not, hangs.
_GRACE_S = 2.0
_START_S = 60.0
_CLOSE_S = 0.5
# What a decoder held is out within this.
_REST_S = 0.2


class Outcome(NamedTuple):
    """How a connection went.

    Attributes:
        why: "stopped", by us; "end", of a file; or a fault's kind.
        text: the middle of a sentence.
        was_open: whether it had been opened.
    """

    why: Literal[
        "stopped", "end", "refused", "unsupported", "missing", "cut", "timeout", "unreadable"
    ]
    text: str
    was_open: bool


class StreamReader:
    """Reads one stream into a queue.

    Args:
        address: what to read.
        settings: patience and rates.
        queue: takes what comes; closed at the end.
        process: reads for us.
        chance: shortens waits.

    Attributes:
        error: why it ended; None while it runs, and after a file's own end or `stop`.
    """

    def __init__(
        self,
        address: StreamAddress,
        settings: StreamSettings,
        queue: StreamQueue,
        *,
        process: StreamProcess | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._address, self._settings, self._queue = address, settings, queue
        self._process = StreamProcess() if process is None else process
        chance = random.Random() if chance is None else chance
        self._waits = Waits(settings.first_wait_s, settings.most_wait_s, chance)
        self._teller = Teller(settings, queue, self._wall_s)
        self._stopped = threading.Event()
        self._state: StreamState = "connecting"
        self._codec = self._reason = self._told_reason = ""
        self._start_s = settings.starts_at_s
        self._is_finite = self._is_stall_told = False
        self._num_failed = self._num_killed = 0
        self.error: LlavaVideoError | None = None

    def run(self) -> None:
        """Read until the stream ends for good, or `stop`."""
        try:
            self._run()
        except BackendMissingError as error:  # no processes on this system
            self.error = error
        except Exception as cause:  # noqa: BLE001 - the border of a thread: nobody else would see it
            _log.exception("%s: reading it failed", self._address.shown)
            what = f"{self._address.shown}: reading it failed: {type(cause).__name__}."
            self.error = DecodeError(what, "report it, with the log's lines.")
        finally:
            self._process.close(_CLOSE_S)
            self._state = "ended"
            text = str(self.error.message) if self.error else "no more will come."
            self._teller.mark("ended", self._now_wall_s(), text)
            self._queue.close()

    def stop(self) -> None:
        """Have `run` return soon; what waits in the queue is let go."""
        self._stopped.set()
        self._queue.abandon()

    def status(self) -> StreamStatus:
        """Say where the stream stands."""
        teller, frame = self._teller, self._teller.frame
        return StreamStatus(
            name=self._address.shown,
            state=self._state,
            counts=teller.counts(self._num_failed, self._num_killed),
            queue_depth=self._queue.depth,
            reason=self._reason,
            last_frame_wall_s=None if frame is None else frame[1],
            last_frame_pts_s=None if frame is None else frame[0],
            lag_s=teller.lag_s,
            height_px=teller.size_px[0],
            width_px=teller.size_px[1],
            codec=self._codec,
        )

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._state = "connecting"
            begun_s, num_before = time.monotonic(), self._teller.num_taken
            outcome = self._visit()
            if outcome.why == "stopped" or self._is_final(outcome):
                return
            self._reason = outcome.text
            if self._teller.num_taken > num_before:
                self._waits.lived(time.monotonic() - begun_s)
            self._tell_failure(outcome, self._teller.num_taken > num_before)
            self._state = "waiting"
            self._stopped.wait(self._waits.next_s())

    def _visit(self) -> Outcome:
        """Connect once, and take what comes until it is over."""
        self._teller.begin()
        try:
            self._process.open(self._address, self._settings)
        except CapacityError as error:
            return Outcome("cut", error.message.rstrip("."), was_open=False)
        watch = _Watch(self._settings)
        while not self._stopped.is_set():
            news = self._process.receive(_LOOK_S)
            if news is not None:
                outcome = self._hear(news, watch)
                if outcome is not None:
                    return outcome
                # After it was heard: a queue that waits for its reader is no silent stream.
                watch.heard(news)
            elif (outcome := self._look(watch)) is not None:
                return outcome
        return Outcome("stopped", "", was_open=False)

    def _hear(self, news: News, watch: "_Watch") -> Outcome | None:
        if news.kind == "ended":
            return self._ended(news.values, watch)
        if news.kind == "opened":
            was_live = not self._is_finite and self._teller.num_taken > 0
            self._opened(news.values)
            if was_live and self._is_finite:  # from its beginning it was never watched
                return Outcome("end", "it was live, and is over", was_open=True)
        if news.kind in ("frame", "pulse") and watch.is_resumed():
            text = f"pictures come again, after {watch.stalled_s:.1f} s."
            self._teller.mark("resumed", self._now_wall_s(), text, seconds=watch.stalled_s)
        if news.kind in ("frame", "pulse") and not watch.is_stalled:
            self._state, self._is_stall_told = "live", False
        if news.kind == "frame":
            self._told_reason = ""
            self._teller.tell(news)
        elif news.kind in ("pulse", "repeat"):
            self._teller.count(news.values, self._now_wall_s())
        return None

    def _look(self, watch: "_Watch") -> Outcome | None:
        """See whether the silence is too long; end a process that hangs."""
        if watch.is_silent() and watch.is_open:
            self._stall(watch)
        if not watch.is_hanging() or (watch.is_open and self._is_patient()):
            return None
        self._process.kill()
        self._num_killed += 1
        words = "it said nothing" if watch.has_begun else "its process did not start"
        text = f"{words} for {watch.mute_s():.0f} s"
        self._teller.count({}, self._now_wall_s(), is_last=True)
        return Outcome("timeout", text, watch.is_open)

    def _stall(self, watch: "_Watch") -> None:
        if not watch.is_stalled:
            watch.is_stalled, self._state = True, "stalled"
            if not self._is_stall_told:
                self._is_stall_told = True  # however often it is tried meanwhile
                text = f"nothing has come for {watch.silent_s():.1f} s."
                self._teller.mark("stalled", self._now_wall_s(), text)

    def _ended(self, values: Mapping[str, Any], watch: "_Watch") -> Outcome:
        was_open = bool(values["was_open"]) and watch.is_open
        self._num_killed += bool(values.get("died", False))
        if was_open and values["why"] == "timeout":
            self._stall(watch)
        self._teller.count(values, self._now_wall_s(), is_last=True)
        return Outcome(values["why"], str(values["text"]), was_open)

    def _opened(self, values: Mapping[str, Any]) -> None:
        self._codec = str(values["codec"])
        duration_s = float(values["duration_s"])
        # A playlist or file that says how long it is ends when it ends.
        self._is_finite = self._address.kind == "http" and duration_s > 0
        if self._start_s is None and self._is_fast():
            stated_s = values["recorded_at_s"]
            self._start_s = _written_s(self._address) - duration_s if stated_s is None else stated_s

    def _is_final(self, outcome: Outcome) -> bool:
        """Say whether there is no use in trying again; keep why."""
        name, kind = self._address.shown, self._address.kind
        if outcome.why == "refused":
            hint = "put user:password@ before the host, and start watching it anew."
            self.error = AccessRefusedError(f"{name}: {outcome.text}.", hint)
        elif outcome.why == "unsupported":
            self.error = SourceError(f"{name}: {outcome.text}.", "this FFmpeg does not read it.")
        elif kind == "file" and outcome.why != "end":
            at_s = None if self._teller.frame is None else self._teller.frame[0]
            hint = "check that it plays elsewhere."
            self.error = DecodeError(f"{name}: reading it stopped: {outcome.text}.", hint, at_s)
        elif not (outcome.why == "end" and (kind == "file" or self._is_finite)):
            return False
        self._reason = outcome.text
        return True

    def _tell_failure(self, outcome: Outcome, brought_pictures: bool) -> None:
        """Tell once of a connection that ended, and once of each reason why none can be had."""
        wall_s = self._now_wall_s()
        if brought_pictures:
            text = f"the connection is over: {outcome.text}; it is tried again."
            self._teller.mark("lost", wall_s, text)
            return
        self._num_failed += 1
        if outcome.text != self._told_reason:
            self._told_reason = outcome.text
            text = f"it cannot be reached: {outcome.text}; it is tried again."
            self._teller.mark("unreachable", wall_s, text)
            _log.warning("%s: %s", self._address.shown, text)

    def _wall_s(self, values: Mapping[str, Any], pts_s: float) -> float:
        if self._address.kind == "file" and self._start_s is not None:
            return self._start_s + pts_s
        return float(values["wall_s"])

    def _now_wall_s(self) -> float:
        """Return now as frames count it."""
        if self._address.kind == "file" and self._start_s is not None:
            frame = self._teller.frame
            return self._start_s if frame is None else frame[1]
        return time.time()

    def _is_fast(self) -> bool:
        return self._address.kind == "file" and self._settings.pace == "fast"

    def _is_patient(self) -> bool:
        return self._address.kind == "file" and self._settings.pace == "follow"


class _Watch:
    """How long a connection has been silent, and how long it may be."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._heard_s = self._moved_s = time.monotonic()
        self._resumed_s = 0.0
        self._own_timeout_s = settings.stall_timeout_s
        self.has_begun = self.is_open = self.is_stalled = False
        self.stalled_s = 0.0

    def heard(self, news: News) -> None:
        """Take note of a message; one that nothing new comes is no sign of a living stream."""
        self._heard_s = time.monotonic()
        if news.kind != "repeat":
            self._moved_s = self._heard_s
        self.has_begun = True
        self.is_open = self.is_open or news.kind in ("opened", "frame", "pulse")
        if news.kind == "opened" and news.values.get("is_playlist"):
            # FFmpeg gives up the piece it waits for, then the playlist.
            self._own_timeout_s = 2 * self._settings.stall_timeout_s

    def is_resumed(self) -> bool:
        """Say whether a stall is over, asked with each sign of life; once for each.

        The first sign may be what a decoder still held when the bytes ended.
        """
        if not self.is_stalled:
            return False
        if self.is_silent():
            self._resumed_s, self.stalled_s = time.monotonic(), self.silent_s()
        self.is_stalled = time.monotonic() - self._resumed_s < _REST_S
        return not self.is_stalled

    def silent_s(self) -> float:
        """Return how long nothing new has come."""
        return time.monotonic() - self._moved_s

    def mute_s(self) -> float:
        """Return how long the process has said nothing."""
        return time.monotonic() - self._heard_s

    def is_silent(self) -> bool:
        """Say whether that is too long for a stream that is open."""
        return self.silent_s() >= self._settings.stall_timeout_s

    def is_hanging(self) -> bool:
        """Say whether the process should have told us by itself."""
        if self.is_open:
            return self.mute_s() >= self._own_timeout_s + _GRACE_S
        patience_s = self._settings.open_timeout_s + _GRACE_S if self.has_begun else _START_S
        return self.mute_s() >= patience_s


def _written_s(address: StreamAddress) -> float:
    """Return when a file was last written, seconds since 1970; 0 where nobody knows."""
    try:
        return Path(address.url.removeprefix("file:")).stat().st_mtime
    except OSError:
        return 0.0
