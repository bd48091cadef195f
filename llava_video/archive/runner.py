"""Inputs, a task and a model → a run folder in which every unit has exactly one row.

One thread of this process writes the ledger. Others each work one unit at a time: their videos are
decoded in processes of their own, and the engine batches whatever they ask at once. Whatever ends
the process, the next run goes on where the ledger says.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, Unpack

from llava_video.api import LlavaVideo, load
from llava_video.archive.entries import Entries
from llava_video.archive.feeding import Feeder
from llava_video.archive.finishing import Finisher
from llava_video.archive.ledger import Ledger
from llava_video.archive.ledger_view import State
from llava_video.archive.model_facts import digest_of, model_facts
from llava_video.archive.progress import ArchiveProgress, Meter
from llava_video.archive.room import Room, RoomyEngine
from llava_video.archive.row import Maker, Row, error_row
from llava_video.archive.row_schema import SCHEMA_VERSION
from llava_video.archive.run_file import check_same, read_facts, write_facts
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.shards import sweep
from llava_video.archive.unit import Unit, UnitError, unit_key
from llava_video.archive.work import CRASH, Outcome, Worker, asked_of
from llava_video.backends import require
from llava_video.options import Options, settings_of
from llava_video.preview import DEFAULT_MODEL
from llava_video.video.sandbox import DecoderPool
from llava_video.video.settings import SandboxSettings

OnProgress = Callable[[ArchiveProgress], None]

_TICK_S: Final = 1.0
_SEAL_EVERY_S: Final = 5.0
_LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a run left behind.

    Attributes:
        folder: with the rows.
        progress: counts and rates at the end.
        interrupted: whether it was asked to stop before all units had ended.
    """

    folder: Path
    progress: ArchiveProgress
    interrupted: bool = False

    @property
    def exit_status(self) -> int:
        """0 when every unit has a result, 3 when some have not."""
        progress = self.progress
        return 0 if progress.done == progress.total and progress.total_is_final else 3


def run_archive(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    settings: ArchiveSettings | None = None,
    model: str | Path | LlavaVideo = DEFAULT_MODEL,
    columns: Mapping[str, str] | None = None,
    on_progress: OnProgress | None = None,
    stopping: threading.Event | None = None,
    **options: Unpack[Options],
) -> RunSummary:
    """Work every video of the inputs, and go on where an earlier run ended.

    Args:
        inputs: files, folders, globs, manifests or URLs.
        out: the run folder; made where there is none.
        settings: the task and how it is run; None captions.
        model: a folder, a hub id, "demo", or a loaded model.
        columns: "video", "prompt", "start", "end", "name" → what lists call that column.
        on_progress: called about once a second, from this thread.
        stopping: when set, no unit is begun any more; those under way have `finish_s` to end.
        **options: of every request, as `LlavaVideo.describe` takes them.

    Raises:
        ManifestError, ConfigError: inputs, settings or folder are refused; nothing was worked.
        LedgerBusyError: another process works on the folder.
        LedgerError, OSError: results cannot be written; what was written holds.
        BackendMissingError: Parquet without pyarrow.
        LlavaVideoError: as `load`. TypeError: an option is unknown.
    """
    settings = settings or ArchiveSettings()
    settings_of(options)
    if settings.parquet:
        require("pyarrow")
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    entries = Entries([str(entry) for entry in given], settings, columns)
    entries.check()
    with ExitStack() as stack:
        if not isinstance(model, LlavaVideo):
            model = stack.enter_context(load(model))
        run = _Run(entries, _folder_of(Path(out), settings), settings, model, options)
        return run.go(on_progress or (lambda _: None), stopping or threading.Event())


def _folder_of(out: Path, settings: ArchiveSettings) -> Path:
    own, of = settings.shard_of()
    return out if settings.shard is None else out / f"shard-{own}-of-{of}"


@dataclass(slots=True)
class _Hands:
    """The threads that work units.

    Attributes:
        tasks: (slot, unit) for whoever is free; None ends a thread.
        results: (slot, outcome).
        free: slots without a unit.
    """

    tasks: "SimpleQueue[tuple[str, Unit] | None]" = field(default_factory=SimpleQueue)
    results: "SimpleQueue[tuple[str, Outcome]]" = field(default_factory=SimpleQueue)
    free: list[str] = field(default_factory=list)


class _Run:
    """One run over one folder."""

    def __init__(
        self,
        entries: Entries,
        folder: Path,
        settings: ArchiveSettings,
        model: LlavaVideo,
        options: Mapping[str, Any],
    ) -> None:
        self._entries, self._folder, self._settings = entries, folder, settings
        self._model = model
        self._options = dict(options)
        self._asked = asked_of(settings, options)
        self._model_facts = model_facts(model)
        self._revision = digest_of(self._model_facts)
        self._hands = _Hands()
        self._meter = Meter()

    def go(self, on_progress: OnProgress, stop: threading.Event) -> RunSummary:
        """Work until everything has ended, or somebody wants it to stop."""
        same, before = self._facts(), read_facts(self._folder)
        if before is not None:
            check_same(self._folder, before["same"], same)
        with ExitStack() as stack:
            self._ledger = stack.enter_context(self._open_ledger(same))
            sweep(self._folder)
            more = {"prompts": self._settings.prompts, "name": self._model.spec.name}
            write_facts(self._folder, same, more)
            self._engine = RoomyEngine(self._model.engine, Room(self._settings.ahead_bytes))
            worker = self._worker(stack)
            feeder = self._feeder()
            stack.callback(feeder.stop)
            stack.callback(self._dismiss)
            self._finisher = Finisher(
                self._ledger,
                self._settings.shard_units,
                has_tracks=self._settings.task == "timeline",
                has_parquet=self._settings.parquet,
            )
            feeder.start()
            self._hire(worker, stop)
            interrupted = self._loop(feeder, on_progress, stop)
            progress = self._progress(feeder)
            on_progress(progress)
        return RunSummary(folder=self._folder, progress=progress, interrupted=interrupted)

    def _facts(self) -> dict[str, Any]:
        facts = self._settings.facts(self._options, self._model_facts)
        return {"schema": SCHEMA_VERSION, **facts}

    def _open_ledger(self, same: Mapping[str, Any]) -> Ledger:
        def row(unit: Unit, error: UnitError, attempts: int, state: State) -> Row:
            name, revision = self._model.spec.name, self._revision
            server = self._model_facts.get("server")
            maker = Maker(attempts=attempts, model=name, revision=revision, server=server)
            return error_row(unit, error, self._asked, maker, quarantined=state == "quarantined")

        return Ledger(
            self._folder,
            settings_digest=digest_of(same),
            error_row=row,
            shard_units=self._settings.shard_units,
        )

    def _worker(self, stack: ExitStack) -> Worker:
        options = dict(self._options)
        asked = options.setdefault("sandbox", self._settings.sandbox)
        if asked is True or isinstance(asked, SandboxSettings):
            limits = asked if isinstance(asked, SandboxSettings) else SandboxSettings()
            if self._settings.task == "timeline":
                # Windows of one video are open side by side; a pool of one each would starve.
                options["sandbox"] = limits
            else:
                limits = replace(limits, num_workers=self._settings.in_flight)
                options["sandbox"] = stack.enter_context(DecoderPool(limits))
        model = LlavaVideo(self._model.spec, self._engine, on_event=self._model.on_event)
        return Worker(model, self._settings, options, self._revision, self._ledger, self._folder)

    def _feeder(self) -> Feeder:
        digest = self._settings.task_digest(self._options)
        return Feeder(
            self._ledger,
            self._entries,
            lambda content, item: unit_key(content, item, digest, self._revision),
            tries=self._settings.attempts,
            wait_s=self._settings.retry_wait_s,
        )

    def _hire(self, worker: Worker, stop: threading.Event) -> None:
        for number in range(self._settings.in_flight):
            self._hands.free.append(f"worker {number}")
            name = f"llava-video archive {number}"
            # Daemons: one that hangs must not keep a program from ending.
            threading.Thread(
                target=_labour, args=(self._hands, worker, self._settings, stop),
                name=name, daemon=True,
            ).start()  # fmt: skip

    def _dismiss(self) -> None:
        self._engine.stop()
        for _ in range(self._settings.in_flight):
            self._hands.tasks.put(None)

    def _loop(self, feeder: Feeder, on_progress: OnProgress, stop: threading.Event) -> bool:
        """Give out units and take in outcomes; return whether it was stopped before the end."""
        hands, number = self._hands, self._settings.in_flight
        told_s = sealed_s = time.monotonic()
        until_s: float | None = None
        while True:
            is_fed = feeder.is_done
            if feeder.error is not None:
                raise feeder.error
            if stop.is_set():
                until_s = until_s or time.monotonic() + self._settings.finish_s
            elif not self._give_out(feeder) and is_fed and len(hands.free) == number:
                self._finisher.seal_ready()
                return False
            self._take_in()
            now_s = time.monotonic()
            if until_s is not None and (len(hands.free) == number or now_s >= until_s):
                self._finisher.seal_ready()
                return True
            if now_s - told_s >= _TICK_S:
                told_s = now_s
                on_progress(self._progress(feeder))
            if now_s - sealed_s >= _SEAL_EVERY_S:
                self._finisher.seal_ready()
                sealed_s = time.monotonic()

    def _give_out(self, feeder: Feeder) -> bool:
        """Give units to the free; return whether there was one."""
        hands, has_given = self._hands, False
        while hands.free:
            units = self._ledger.claim(1, hands.free[-1])
            if not units:
                break
            if units[0].number >= feeder.count:  # perhaps of older inputs: its turn will come
                self._ledger.release(hands.free[-1], crashed=False)
                break
            hands.tasks.put((hands.free.pop(), units[0]))
            has_given = True
        return has_given

    def _take_in(self) -> None:
        """Record outcomes, after waiting a moment for the first."""
        timeout_s: float | None = _LOOK_S
        while True:
            try:
                slot, outcome = self._hands.results.get(timeout=timeout_s)
            except Empty:
                return
            self._record(slot, outcome)
            self._hands.free.append(slot)
            if len(self._hands.free) > self._settings.in_flight // 2:
                return
            timeout_s = 0.0

    def _record(self, slot: str, outcome: Outcome) -> None:
        unit, error = outcome.unit, outcome.error
        if error is None:
            self._ledger.finish(unit.key, outcome.row or {})
        elif error.kind == CRASH:
            if not self._ledger.release(slot, crashed=True).quarantined:
                return
        else:
            is_last = not outcome.may_pass or unit.attempts + 1 >= self._settings.attempts
            self._ledger.fail(unit.key, error, final=is_last)
            if not is_last:
                return
        self._meter.note_end(outcome.footage_s)

    def _progress(self, feeder: Feeder) -> ArchiveProgress:
        counts = self._ledger.counts()
        total = sum(counts.values())
        return self._meter.progress(
            total=total,
            total_is_final=feeder.is_done,
            done=counts["done"],
            failed=counts["failed"],
            quarantined=counts["quarantined"],
            running=self._settings.in_flight - len(self._hands.free),
            duplicates=self._ledger.num_inputs - total,
            failures=self._ledger.failures(),
            busy=self._engine.busy.share,
        )


def _labour(
    hands: _Hands, worker: Worker, settings: ArchiveSettings, stop: threading.Event
) -> None:
    """Work units until there are no more."""
    while (task := hands.tasks.get()) is not None:
        slot, unit = task
        outcome = worker.work(unit)
        if outcome.may_pass and unit.attempts + 1 < settings.attempts:
            stop.wait(settings.retry_wait_s * 2**unit.attempts)
        hands.results.put((slot, outcome))
