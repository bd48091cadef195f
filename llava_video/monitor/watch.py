"""Cameras and rules → alerts, around the clock: the loop that binds streams, model and desk.

    cameras   frames → gate → windows        the caller's thread; each stream reads in its own
    model     windows → answers → decisions  one thread, one shared model
    updates   alerts → descriptions          one thread
    sinks     messages → who has to know     one thread each

Between cameras and model is a bounded queue that drops the oldest windows and counts them, so a
model that is too slow costs windows and never memory. A restart goes on with the states of the
spool. Knows no rule and no pixel.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from llava_video.api import LlavaVideo
from llava_video.errors import ConfigError
from llava_video.monitor.alerts import AlertDesk
from llava_video.monitor.board import Board
from llava_video.monitor.camera_streams import CameraStreams, OpenStreams, Streams
from llava_video.monitor.delivery import Couriers
from llava_video.monitor.feed import CameraFeed
from llava_video.monitor.judge import Judge, Judged, frames_of
from llava_video.monitor.loop_settings import LoopSettings
from llava_video.monitor.notes import WindowNotes
from llava_video.monitor.page import LivePage
from llava_video.monitor.questions import AskWindow, WindowFrames, ask_window, describe_alert
from llava_video.monitor.settings import WatchSettings
from llava_video.monitor.spool import Spool
from llava_video.monitor.summary import WatchSummary
from llava_video.monitor.trace import WhyTrace
from llava_video.monitor.updates import Describe, ToTell, UpdateWriter
from llava_video.monitor.window_queue import Waiting, WindowQueue
from llava_video.video.settings import Pace
from llava_video.video.stream_events import Mark, StreamFrame

OnNote = Callable[[str, str], None]

# Marks that a person at a terminal is told of; the trace has all.
_TOLD = ("unreachable", "lost", "stalled", "reconnected", "frozen", "moving", "jumped", "resized")
_LOOK_S = 0.2
_PAGE_MESSAGES = 60
_FACTS_S = 1.0
_DEFAULT = LoopSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """What answers a watch.

    Attributes:
        ask: answers the questions of a window.
        describe: describes an alert's window; None where nobody does.
    """

    ask: AskWindow
    describe: Describe | None = None


@dataclass(slots=True, kw_only=True)
class _Counts:
    windows: dict[str, int] = field(default_factory=dict)
    alerts: int = 0


def asker_of(model: LlavaVideo, settings: WatchSettings, **options: Any) -> Asker:
    """Return a model as what answers a watch.

    Args:
        model: shared by all cameras.
        settings: whether questions are guarded.
        **options: of every question, see `Options`.
    """

    def ask(window: WindowFrames, rules: Any) -> Any:
        return ask_window(model, window, rules, guard=settings.guard, **options)

    def describe(window: WindowFrames) -> tuple[str, tuple[str, ...]]:
        return describe_alert(model, window, guard=settings.guard, **options)

    return Asker(ask=ask, describe=describe)


def run_watch(
    settings: WatchSettings,
    asker: Asker,
    folder: str | Path,
    *,
    loop: LoopSettings = _DEFAULT,
    environ: Mapping[str, str] | None = None,
    pace: Pace = "real",
    page: tuple[str, int] | None = None,
    stopping: threading.Event | None = None,
    on_note: OnNote = lambda camera, text: None,
    terminal: TextIO | None = None,
    clock: Callable[[], float] = time.time,
    open_streams: OpenStreams = CameraStreams,
    forget_sinks: Sequence[str] = (),
) -> WatchSummary:
    """Watch until every source is over, or somebody stops it.

    Args:
        settings: cameras, rules, sinks.
        asker: `asker_of` a model.
        folder: where spool, evidence and trace are kept; one watch at a time has it.
        loop: queues and patience.
        environ: has the secrets; None is the process's own.
        pace: how files are read; "fast" drops nothing and takes the recording's clock.
        page: host and port of the live page; None without.
        stopping: ends the watch when it is set: what is under way is finished, what waits is
            dropped and traced.
        on_note: told of a camera's name ("" for the watch) and what befell it.
        terminal: of terminal sinks; None for standard output.
        clock: wall clock, s since 1970, which evidence ages by.
        open_streams: opens the cameras; for tests.
        forget_sinks: sinks of an earlier watch; what waits for them is let go.

    Raises:
        ConfigError: a name of the environment is missing, the page cannot listen, or a sink that
            is to be forgotten is one of the settings.
        SourceError: an address is of an unknown kind, or names a file that is not there.
        LedgerError: the folder cannot be written, or another watch has it.
    """
    environ = os.environ if environ is None else environ
    known = {sink.name for sink in settings.sinks}
    if still := known & {*forget_sinks}:
        raise ConfigError(
            f"{sorted(still)[0]!r} is a sink still, and not to be forgotten.",
            "take it out of the rules' sinks first.",
        )
    addresses = {
        camera.name: (camera.filled_address(environ), camera.stream_settings(pace))
        for camera in settings.cameras
    }
    with contextlib.ExitStack() as undo:
        spool = undo.enter_context(Spool(folder))
        stopping = stopping or threading.Event()
        running = _Watch(settings, asker, spool, loop, pace, stopping, on_note, clock)
        undo.callback(running.trace.close)
        running.couriers = undo.enter_context(
            Couriers(spool, settings.sinks, environ, running.desk.evidence.folder, stream=terminal)
        )
        for sink in forget_sinks:
            on_note("", f"{spool.forget_sink(sink):,} messages for {sink!r} are let go.")
        running.tell_left_over()
        undo.enter_context(running.updates)
        running.streams = open_streams(addresses)
        undo.callback(running.streams.close)
        if page is not None:
            live = LivePage(running.board, running.desk.evidence.folder, *page)
            undo.enter_context(live)
            on_note("", f"page: {live.address}")
        return running.run()


class _Watch:
    """One run; made whole by `run_watch`."""

    couriers: Couriers
    streams: Streams

    def __init__(
        self,
        settings: WatchSettings,
        asker: Asker,
        spool: Spool,
        loop: LoopSettings,
        pace: Pace,
        stopping: threading.Event,
        on_note: OnNote,
        clock: Callable[[], float],
    ) -> None:
        self.settings, self.spool, self.loop = settings, spool, loop
        self.stopping, self.on_note = stopping, on_note
        names = [camera.name for camera in settings.cameras]
        self.feeds = {
            one.name: CameraFeed(one, num_waiting=loop.queue_windows) for one in settings.cameras
        }
        self.queue = WindowQueue(names, loop.queue_windows, waits=pace == "fast")
        self.desk = AlertDesk(spool, settings, on_put=self._on_put, clock=clock)
        self.trace = WhyTrace(
            spool.folder, most_bytes=loop.trace_bytes, most_files=loop.trace_files
        )
        self.judge = Judge(
            settings, asker.ask, desk=self.desk, trace=self.trace, clock=time.perf_counter
        )
        self.updates = UpdateWriter(
            self.desk, asker.describe if loop.describes else None, most=loop.queue_updates,
            with_clip=loop.with_clip, stop_s=loop.stop_s,
        )  # fmt: skip
        self.board = Board(
            names, statuses=lambda: self.streams.statuses(), depths=self.queue.depths,
            more=self._facts, messages=self._messages,
        )  # fmt: skip
        self.counts, self.notes = _Counts(), WindowNotes()
        self._said = set[str]()
        self._error: BaseException | None = None
        self._worker = threading.Thread(target=self._work, name="model", daemon=True)
        self._known: tuple[float, Mapping[str, Any]] = (-_FACTS_S, {})

    def tell_left_over(self) -> None:
        """Say of alerts whose update was lost that it is, and of sinks that are gone."""
        for lost in self.spool.without_update():
            self.desk.update(
                lost.alert_id, problem="the watch was restarted before it was described."
            )
        known = {sink.name for sink in self.settings.sinks}
        for name, number in self.spool.num_waiting().items():
            if name not in known:
                self.on_note(
                    "",
                    f"{number:,} messages wait for {name!r}, which is no sink now, and keep their "
                    f"pictures; --forget-sink {name} lets them go.",
                )

    def run(self) -> WatchSummary:
        """Run until it is over."""
        self._worker.start()
        try:
            self._look()
            is_stopped = self.stopping.is_set()
            self._finish(is_stopped=is_stopped)
        finally:
            self.queue.close(keeps=False)
            self.board.end()
        if self._error is not None:
            raise self._error
        return WatchSummary(
            windows=dict(self.counts.windows),
            alerts=self.counts.alerts,
            waiting=self._waiting(),
            held=self.desk.num_held,
            errors={name: str(error) for name, error in self.streams.errors().items()},
            num_cameras=len(self.settings.cameras),
            is_stopped=is_stopped,
        )

    def _look(self) -> None:
        """Take events in until there are no more, or the watch is to end."""
        next_tend_s = time.monotonic() + self.loop.tend_every_s
        while not (self.stopping.is_set() or self._error is not None or self.streams.is_over):
            found = self.streams.next(_LOOK_S)
            if found is not None:
                self._take(*found)
            if time.monotonic() >= next_tend_s:
                self.desk.tend()
                next_tend_s = time.monotonic() + self.loop.tend_every_s
            self._tell_of_disk()

    def _tell_of_disk(self) -> None:
        """Say once that pictures go for want of room, that alerts wait, and that there is room."""
        if self.desk.evidence.was_full and "pictures" not in self._said:
            self._said.add("pictures")
            self.on_note("", "the disk is full: the oldest pictures go.")
        problem = self.desk.problem
        if problem and "alerts" not in self._said:
            self._said.add("alerts")
            self.on_note("", f"{problem} What is to be told waits in memory until there is room.")
        elif not problem and "alerts" in self._said:
            self._said.remove("alerts")
            self.on_note("", "there is room again, and what waited for it is stored.")

    def _take(self, camera: str, event: StreamFrame | Mark) -> None:
        self.board.saw(camera, event)
        if isinstance(event, Mark):
            self.trace.befell(camera, event.kind, event.wall_s, event.text)
            error = self.streams.errors().get(camera) if event.kind == "ended" else None
            if event.kind in _TOLD or error is not None:
                self.on_note(camera, str(error or event.text or event.kind))
        for job in self.feeds[camera].take(event):
            self.queue.put(job)

    def _finish(self, *, is_stopped: bool) -> None:
        """Let the model finish: everything, or what is under way."""
        self.streams.close()
        for feed in self.feeds.values():
            for job in feed.finish():
                self.queue.put(job)
        self.queue.close(keeps=not is_stopped)
        self._worker.join()
        self.updates.close(keeps=not is_stopped)
        self.desk.tend()
        self.couriers.wake()
        until_s = time.monotonic() + self.loop.stop_s
        while self.desk.num_held and time.monotonic() < until_s:
            time.sleep(_LOOK_S)
            self.desk.tend()
        self._tell_of_disk()
        while not is_stopped and self._waiting():
            if time.monotonic() >= until_s or self.stopping.wait(0.02):
                return

    def _waiting(self) -> dict[str, int]:
        """Return how many messages wait for sinks that somebody serves."""
        known = {sink.name for sink in self.settings.sinks}
        return {name: n for name, n in self.spool.num_waiting().items() if name in known and n}

    def _work(self) -> None:
        """Judge windows, in the model's thread."""
        try:
            while not self.queue.is_over:
                waiting = self.queue.take()
                if waiting is not None:
                    self._judge(waiting)
        except BaseException as error:  # noqa: BLE001 - raised again by who waits for this thread
            self._error = error
            self.queue.close(keeps=False)

    def _judge(self, waiting: Waiting) -> None:
        job, number = waiting.job, max(1, waiting.num_dropped)
        if waiting.num_dropped:
            why = "the watch was stopped" if self.stopping.is_set() else "the model was busy"
            judged = self.judge.drop(job, why if number == 1 else f"{why}, {number} windows")
        else:
            judged = self.judge.judge(job)
        self.counts.windows[judged.kind] = self.counts.windows.get(judged.kind, 0) + number
        self.board.judged(judged, number)
        for text in self.notes.of(judged):
            self.on_note(job.camera, text)
        self._tell_more(waiting, judged)

    def _tell_more(self, waiting: Waiting, judged: Judged) -> None:
        job = waiting.job
        raised = [message for message in judged.told if message.kind == "alert"]
        if not raised:
            return
        self.counts.alerts += len(raised)
        window = frames_of(job)
        frames, times_s = self.feeds[job.camera].evidence(job, self.loop.evidence_frames)
        for message in raised:
            self.updates.put(
                ToTell(alert_id=message.alert_id, window=window, frames=frames, times_s=times_s)
            )

    def _on_put(self) -> None:
        if hasattr(self, "couriers"):
            self.couriers.wake()
            self.board.told()

    def _messages(self) -> list[Mapping[str, Any]]:
        return [message.facts for message in self.spool.messages(_PAGE_MESSAGES)]

    def _facts(self) -> Mapping[str, Any]:
        """Return what is kept and who was told, at most a second old."""
        at_s, known = self._known
        if time.monotonic() - at_s < _FACTS_S:
            return known
        kept = dict(self.desk.facts())
        waiting = kept.pop("waiting")
        sinks = [
            {
                "sink": one.sink, "delivered": one.delivered, "tries": one.tries,
                "problem": one.problem, "waiting": waiting.get(one.sink, 0),
            }
            for one in self.couriers.statuses
        ]  # fmt: skip
        known = {
            **kept, "sinks": sinks, "updates": self.updates.depth,
            "trace_lost": self.trace.num_lost,
        }  # fmt: skip
        self._known = time.monotonic(), known
        return known
