"""Inputs, a task and a model → a run folder in which every unit has exactly one row.

One thread of this process writes the ledger. Units are worked by its hands: threads beside it,
other processes, or a cluster. Whatever ends the process, the next run goes on where the ledger
says.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack

from llava_video.archive.breaker import Breaker, fault_of_place
from llava_video.archive.entries import Entries
from llava_video.archive.feeding import Feeder
from llava_video.archive.finishing import Finisher
from llava_video.archive.hands import Hands, Taken
from llava_video.archive.hiring import hands_for
from llava_video.archive.ledger import Ledger
from llava_video.archive.ledger_view import State
from llava_video.archive.model_facts import digest_of
from llava_video.archive.progress import ArchiveProgress, Meter
from llava_video.archive.row import Row, error_row
from llava_video.archive.row_schema import SCHEMA_VERSION
from llava_video.archive.run_file import check_begun, check_same, read_facts, write_facts
from llava_video.archive.settings import ArchiveSettings
from llava_video.archive.shards import shard_path, sweep
from llava_video.archive.sheets import write_frames, write_sheet
from llava_video.archive.unit import Unit, UnitError, unit_key
from llava_video.archive.work import CRASH, Outcome, asked_of, settled
from llava_video.backends import require
from llava_video.options import Options, settings_of
from llava_video.preview import DEFAULT_MODEL

if TYPE_CHECKING:
    from llava_video.api import LlavaVideo

OnProgress = Callable[[ArchiveProgress], None]

_TICK_S: Final = 1.0
_SEAL_EVERY_S: Final = 5.0
_LOOK_S: Final = 0.05

_log = logging.getLogger(__name__)


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
    model: "str | Path | LlavaVideo | Callable[[], LlavaVideo]" = DEFAULT_MODEL,
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
        model: a folder, a hub id, "demo", a loaded model, or what loads one; with `workers` or
            `ray` no loaded one, since it is loaded where it is needed.
        columns: "video", "prompt", "start", "end", "name" → what lists call that column.
        on_progress: called about once a second, from this thread.
        stopping: when set, no unit is begun any more; those under way have `finish_s` to end.
        **options: of every request, as `LlavaVideo.describe` takes them.

    Raises:
        ManifestError, ConfigError: inputs, settings or folder are refused; nothing was worked.
        LedgerBusyError: another process works on the folder.
        LedgerError, OSError: results cannot be written; what was written holds.
        BackendMissingError: Parquet without pyarrow, `ray` without Ray.
        CapacityError: there are no workers left, it was stopped before they had a model, or device,
            server or model fail whatever they are given.
        LlavaVideoError: as `load`. TypeError: an option is unknown.
    """
    settings = settings or ArchiveSettings()
    entries = check_archive(inputs, out, settings, columns, options)
    with ExitStack() as stack:
        stopping = stopping or threading.Event()
        hands = hands_for(model, settings, options, stack, stopping)
        run = _Run(entries, _folder_of(Path(out), settings), settings, hands, options)
        return run.go(on_progress or (lambda _: None), stopping)


def check_archive(
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    settings: ArchiveSettings,
    columns: Mapping[str, str] | None,
    options: Mapping[str, Any],
) -> Entries:
    """See that a run may begin, as far as that can be told without its model.

    Args:
        inputs: as of `run_archive`.
        out: the run folder, or of its shards.
        settings: the run's.
        columns: as of `run_archive`.
        options: of every request.

    Returns:
        The entries.

    Raises:
        LlavaVideoError: as `run_archive`, of inputs, settings and folder. TypeError: alike.
    """
    settings_of(options)
    if settings.parquet:
        require("pyarrow")
    given = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    entries = Entries([str(entry) for entry in given], settings, columns)
    entries.check()
    same = {"schema": SCHEMA_VERSION, **settings.facts(options, {})}
    check_begun(_folder_of(Path(out), settings), same)
    return entries


def _folder_of(out: Path, settings: ArchiveSettings) -> Path:
    own, of = settings.shard_of()
    return out if settings.shard is None else out / f"shard-{own}-of-{of}"


class _Run:
    """One run over one folder."""

    def __init__(
        self,
        entries: Entries,
        folder: Path,
        settings: ArchiveSettings,
        hands: Hands,
        options: Mapping[str, Any],
    ) -> None:
        self._entries, self._folder, self._settings = entries, folder, settings
        self._hands = hands
        self._options = dict(options)
        self._asked = asked_of(settings, options)
        self._revision = digest_of(hands.facts)
        self._meter, self._breaker = Meter(), Breaker()

    def go(self, on_progress: OnProgress, stop: threading.Event) -> RunSummary:
        """Work until everything has ended, or somebody wants it to stop."""
        same, before = self._facts(), read_facts(self._folder)
        if before is not None:
            check_same(self._folder, before["same"], same)
        with ExitStack() as stack:
            self._ledger = stack.enter_context(self._open_ledger(same))
            sweep(self._folder)
            more = {"prompts": self._settings.prompts, "name": self._hands.maker.model}
            write_facts(self._folder, same, more)
            feeder = self._feeder()
            stack.callback(feeder.stop)
            self._finisher = Finisher(
                self._ledger,
                self._settings.shard_units,
                has_tracks=self._settings.task == "timeline",
                has_parquet=self._settings.parquet,
            )
            for shard in self._finisher.unseal_lost():
                _log.warning("%s is not whole: written again.", shard_path(self._folder, shard))
            feeder.start()
            interrupted = self._loop(feeder, on_progress, stop)
            progress = self._progress(feeder)
            on_progress(progress)
        return RunSummary(folder=self._folder, progress=progress, interrupted=interrupted)

    def _facts(self) -> dict[str, Any]:
        facts = self._settings.facts(self._options, self._hands.facts)
        return {"schema": SCHEMA_VERSION, **facts}

    def _open_ledger(self, same: Mapping[str, Any]) -> Ledger:
        def row(unit: Unit, error: UnitError, attempts: int, state: State) -> Row:
            maker = replace(self._hands.maker, attempts=attempts)
            return error_row(unit, error, self._asked, maker, quarantined=state == "quarantined")

        return Ledger(
            self._folder,
            settings_digest=digest_of(same),
            error_row=row,
            shard_units=self._settings.shard_units,
        )

    def _feeder(self) -> Feeder:
        digest = self._settings.task_digest(self._options)
        return Feeder(
            self._ledger,
            self._entries,
            lambda content, item: unit_key(content, item, digest, self._revision),
            tries=self._settings.attempts,
            wait_s=self._settings.retry_wait_s,
            fetch=settings_of(self._options).fetch,
        )

    def _loop(self, feeder: Feeder, on_progress: OnProgress, stop: threading.Event) -> bool:
        """Give out units and take in outcomes; return whether it was stopped before the end."""
        hands = self._hands
        told_s = sealed_s = time.monotonic()
        until_s: float | None = None
        while True:
            is_fed = feeder.is_done
            if feeder.error is not None:
                raise feeder.error
            if stop.is_set():
                until_s = until_s or time.monotonic() + self._settings.finish_s
                hands.finish()
            elif not self._give_out(feeder) and is_fed and not hands.num_held:
                self._finisher.seal_ready()
                self._finisher.sweep()
                return False
            self._take_in()
            now_s = time.monotonic()
            if until_s is not None and (not hands.num_held or now_s >= until_s):
                self._finisher.seal_ready()
                return True
            if now_s - told_s >= _TICK_S:
                told_s = now_s
                on_progress(self._progress(feeder))
            if now_s - sealed_s >= _SEAL_EVERY_S:
                self._finisher.seal_ready()
                sealed_s = time.monotonic()

    def _give_out(self, feeder: Feeder) -> bool:
        """Give units to the free; return False when none is waiting, as far as that can be told."""
        hands, may_have_more = self._hands, False
        while True:
            slot = hands.free_slot()
            if slot is None:  # all are at work, or gone and not yet replaced
                return hands.num_held > 0 or self._ledger.counts()["waiting"] > 0
            units = self._ledger.claim(1, slot, is_wary=hands.is_own_process)
            if not units:
                return may_have_more
            if units[0].number >= feeder.count:  # perhaps of older inputs: its turn will come
                self._ledger.release(slot, crashed=False)
                return may_have_more
            hands.give(slot, units[0])
            may_have_more = True

    def _take_in(self) -> None:
        """Record what came back, after waiting a moment for the first."""
        timeout_s = _LOOK_S
        for _ in range(max(self._settings.in_flight // 2, 1)):
            taken = self._hands.take(timeout_s)
            if taken is None:
                return
            self._record(taken)
            timeout_s = 0.0

    def _record(self, taken: Taken) -> None:
        if taken.outcome is None:
            lost = self._ledger.release(taken.slot, crashed=taken.is_suspect)
            footage_s = 0.0 if lost.quarantined else None
        else:
            footage_s = self._end(taken.slot, settled(taken.outcome, self._ledger))
        if footage_s is not None:
            self._meter.note_end(footage_s)

    def _end(self, slot: str, outcome: Outcome) -> float | None:
        """Record a try; return what was looked at, s, or None when the unit has not ended."""
        unit, error = outcome.unit, outcome.error
        if error is not None and outcome.of_place:
            self._ledger.release(slot, crashed=False)
            raise fault_of_place(outcome.of_place, error)
        if error is None:
            self._keep_pictures(outcome)
            self._ledger.finish(unit.key, outcome.row or {})
            self._breaker.note_result()
        elif error.kind == CRASH:
            if not self._ledger.release(slot, crashed=True).quarantined:
                return None
        else:
            is_last = not outcome.may_pass or unit.attempts + 1 >= self._settings.attempts
            self._ledger.fail(unit.key, error, final=is_last)
            if not is_last:
                return None
            self._breaker.note_failure(error, self._folder)
        return outcome.footage_s

    def _keep_pictures(self, outcome: Outcome) -> None:
        """Leave pictures of what was seen; where they cannot be written the row is whole."""
        try:
            if outcome.sheet is not None:
                write_sheet(self._folder, outcome.unit.key, outcome.sheet)
            write_frames(self._folder, outcome.unit.key, outcome.frames)
        except OSError as error:
            _log.warning("no picture of %s: %s", outcome.unit.item.address, error)

    def _progress(self, feeder: Feeder) -> ArchiveProgress:
        counts = self._ledger.counts()
        total = sum(counts.values())
        busy = self._hands.busy
        return self._meter.progress(
            total=total,
            total_is_final=feeder.is_done,
            done=counts["done"],
            failed=counts["failed"],
            quarantined=counts["quarantined"],
            running=self._hands.num_held,
            duplicates=self._ledger.num_inputs - total,
            failures=self._ledger.failures(),
            busy=busy.engine,
            device_busy=busy.device,
        )
