"""`llava-video archive`: folders, lists and buckets of videos → rows, each exactly once."""

import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llava_video.cli.command import command, option
from llava_video.cli.console import Console
from llava_video.cli.loading import (
    SERVED,
    check_engine,
    load_keywords,
    load_model,
    quiet_downloads,
    server_of,
    split_options,
)
from llava_video.cli.options import keywords_of, model_options, request_options
from llava_video.cli.stopping import INTERRUPTED, stopping
from llava_video.errors import ConfigError

if TYPE_CHECKING:
    from llava_video.api import LlavaVideo
    from llava_video.archive.progress import ArchiveProgress
    from llava_video.archive.runner import RunSummary
    from llava_video.archive.settings import ArchiveSettings
    from llava_video.archive.warned import Warned

TASK, RUN = "The task", "The run"
_FAULTY = 3
_LINE_EVERY_S = 30.0
_MOST_NAMED = 20


@command("archive")
@click.argument("inputs", nargs=-1, required=True)
@option("--out", "-o", section=RUN, metavar="DIR", help="Where everything is kept.  [required]")
@option(
    "--task",
    section=TASK,
    type=click.Choice(("caption", "ask", "timeline")),
    help="What is made of every video.  [default: caption]",
)
@option(
    "--prompt",
    "-p",
    "prompts",
    section=TASK,
    multiple=True,
    metavar="TEXT",
    help="What is asked; of ask, once for each question. {column} stands for a list's column.",
)
@option("--window", "window_s", section=TASK, type=float, metavar="X",
        help="Length of a timeline's windows, in s.  [default: 30]")  # fmt: skip
@option("--overlap", "overlap_s", section=TASK, type=float, metavar="X",
        help="What neighbouring windows share, in s.  [default: 0]")  # fmt: skip
@option("--summary/--no-summary", section=TASK, default=None,
        help="Merge a timeline's captions.  [default: on]")  # fmt: skip
@option("--column", "columns", section=RUN, multiple=True, metavar="NAME=COLUMN",
        help="What a list calls its video, prompt, start, end or name.")  # fmt: skip
@option("--shard", section=RUN, metavar="I/N",
        help="Every Nth entry from the Ith, from 0; a folder each under --out.")  # fmt: skip
@option("--parquet/--no-parquet", section=RUN, default=None,
        help="A Parquet twin of each file of rows.  [default: off]")  # fmt: skip
@option("--pictures/--no-pictures", section=RUN, default=None,
        help="Small pictures of what was seen, for reports and hits.  [default: on]")  # fmt: skip
@option("--in-flight", section=RUN, type=click.IntRange(1), metavar="N",
        help="Videos under way at once, of each worker.  [default: 8]")  # fmt: skip
@option("--workers", section=RUN, type=click.IntRange(0), metavar="N",
        help="Processes that load the model each, one per GPU; 0: none.  [default: 0]")  # fmt: skip
@option("--ray", section=RUN, metavar="auto|ADDRESS",
        help="Work on the machines of a Ray cluster.")  # fmt: skip
@option("--config", section=RUN, metavar="FILE", help="Settings, as configs/archive.yaml.")
@option("--set", "changes", section=RUN, multiple=True, metavar="NAME=VALUE",
        help="Another value of a setting of --config; may be repeated.")  # fmt: skip
@option("--json-progress", section=RUN, is_flag=True,
        help="A line of JSON on stdout about once a second, and one at the end.")  # fmt: skip
@option("--only", section=RUN, metavar="CLASS", help="Of `retry`: this class of error alone.")
@request_options(with_answer=True)
@model_options(with_weights=True)
@click.pass_obj
def archive(
    console: Console,
    /,
    inputs: tuple[str, ...],
    out: str | None,
    changes: tuple[str, ...],
    config: str | None,
    columns: tuple[str, ...],
    json_progress: bool,
    only: str | None,
    **given: Any,
) -> int:
    """Caption or question many videos, each exactly once.

    INPUTS are videos, folders, patterns, lists (.txt, .csv, .jsonl, .parquet) and URLs. A run that
    was stopped, however, goes on with the same command; Ctrl-C finishes what is under way, a second
    one stops at once. Instead of INPUTS: `status DIR` says how far a run is, `retry DIR` lets what
    failed be tried again by the next run, `verify DIR` holds its rows against its ledger, `report
    DIR` writes a page of it and `table DIR` its answers as CSV. Status 0: every video has a result;
    3: some have none, each named with its reason.
    """  # fmt: skip
    if inputs[0] in {*_ACTIONS, "retry"} and len(inputs) == 2 and out is None:
        return _act(console, inputs[0], Path(inputs[1]), only)
    if out is None:
        raise ConfigError("--out is missing.", "name a folder for the rows.")
    settings = _settings(given, config, changes)
    named, request = split_options(given)
    keywords = keywords_of(request)
    return _run(console, inputs, Path(out), settings, _columns(columns), named, keywords,
                as_json=json_progress)  # fmt: skip


def _run(
    console: Console,
    inputs: Sequence[str],
    out: Path,
    settings: "ArchiveSettings",
    columns: dict[str, str],
    named: dict[str, Any],
    keywords: dict[str, Any],
    *,
    as_json: bool,
) -> int:
    from llava_video.archive.crew import NotBegunError
    from llava_video.archive.runner import check_archive, run_archive

    check_archive(inputs, out, settings, columns, keywords)  # before gigabytes are loaded
    meter = _Teller(console, as_json=as_json)
    named = {**named, "max_running": settings.in_flight}
    with _model(console, named, settings) as model, stopping(console) as stop:
        try:
            summary = run_archive(
                inputs, out, settings=settings, model=model, columns=columns,
                on_progress=meter.tell, stopping=stop, **keywords,
            )  # fmt: skip
        except NotBegunError:
            return INTERRUPTED
    warned = _warned(summary.folder)
    meter.end(summary.progress, warned.num_rows)
    if not as_json:
        _tell_end(summary, warned)
    _name_failures(console, summary.folder)
    if summary.interrupted:
        console.warn(["stopped; the same command goes on."])
        return INTERRUPTED
    return summary.exit_status


@contextmanager
def _model(
    console: Console, named: dict[str, Any], settings: "ArchiveSettings"
) -> Iterator["LlavaVideo | Callable[[], LlavaVideo]"]:
    """Give the model, loaded; where others will load it, what does so."""
    if settings.workers or settings.ray is not None:
        from llava_video.archive.hands import NamedModel

        quiet_downloads(console)
        check_engine(named)
        is_served = named.get("engine") == SERVED
        yield server_of(named) if is_served else NamedModel(named["model"], load_keywords(named))
        return
    with load_model(console, named) as model:
        model.on_event = None  # bars of single requests say nothing here
        yield model


def _settings(
    given: dict[str, Any], config: str | None, changes: tuple[str, ...]
) -> "ArchiveSettings":
    """Take the settings out of what was given."""
    from llava_video.archive.settings import ArchiveSettings
    from llava_video.config import read_yaml

    if changes and config is None:
        raise ConfigError("--set without --config.", "--config configs/archive.yaml")
    settings = read_yaml(ArchiveSettings, config, changes) if config else ArchiveSettings()
    names = ("task", "prompts", "window_s", "overlap_s", "summary", "shard", "in_flight", "parquet",
             "pictures", "workers", "ray")  # fmt: skip
    own = {name: given.pop(name) for name in names}
    own = {name: value for name, value in own.items() if value not in (None, ())}
    if given.get("sandbox") is not None:
        own["sandbox"] = given.pop("sandbox")
    return dataclasses.replace(settings, **own)


def _columns(written: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in written]
    for name, is_pair, column in pairs:
        if not (name and is_pair and column):
            raise ConfigError(f"--column {name}{is_pair}{column}.", "--column video=path")
    return {name: column for name, _, column in pairs}


class _Teller:
    """Shows how far a run is: a line that changes, lines now and then, or JSON."""

    def __init__(self, console: Console, *, as_json: bool) -> None:
        self._console, self._as_json = console, as_json
        self._is_live = sys.stderr.isatty() and not console.quiet
        self._told_s = time.monotonic()

    def tell(self, progress: "ArchiveProgress") -> None:
        """Show it, where it is time."""
        if self._as_json:
            click.echo(json.dumps({"event": "progress", **progress.to_mapping()}))
        elif self._is_live:
            click.echo(f"\r\x1b[K{progress.line}", err=True, nl=False)
        elif not self._console.quiet and time.monotonic() - self._told_s >= _LINE_EVERY_S:
            self._told_s = time.monotonic()
            click.echo(progress.line, err=True)

    def end(self, progress: "ArchiveProgress", num_warned: int) -> None:
        """Take the line away, or tell the last one."""
        if self._as_json:
            more = {"with_warnings": num_warned}
            click.echo(json.dumps({"event": "end", **progress.to_mapping(), **more}))
        elif self._is_live:
            click.echo("\r\x1b[K", err=True, nl=False)


def _warned(folder: Path) -> "Warned":
    """Count the warnings of all rows, those of earlier runs too."""
    from llava_video.archive.run_rows import run_rows
    from llava_video.archive.warned import Warned

    warned = Warned()
    for row in run_rows(folder):
        warned.add(row)
    return warned


def _tell_end(summary: "RunSummary", warned: "Warned") -> None:
    """Say how far it came, where the rows are, and what is to be known before they are believed."""
    from llava_video.archive.shards import ROWS

    rows = summary.folder / ROWS
    # Before the first shard has ended whole, they stand in the ledger alone.
    place = rows if rows.is_dir() else summary.folder
    click.echo("; ".join(filter(None, (summary.progress.line, f"rows in {place}", warned.line))))


def _name_failures(console: Console, folder: Path) -> None:
    """Say of what has no result why."""
    from llava_video.archive.ledger_view import LedgerView

    with LedgerView(folder) as view:
        ended_ones = view.ended() if view.failures() else ()
        failed = (ended for ended in ended_ones if ended.state != "done")
        for ended in itertools.islice(failed, _MOST_NAMED):
            error = ended.row["error"]
            console.warn([f"{error['kind']}: {error['message']}"], about=ended.item.address)
        num_more = sum(1 for _ in failed)
    if num_more:
        console.warn([f"and {num_more} more; `archive report` names them all."])


def _act(console: Console, action: str, folder: Path, only: str | None) -> int:
    """Do one of the actions with a run folder, or with each of a folder of shards."""
    from llava_video.archive.run_rows import run_folders

    if action == "retry":
        return _retry(folder, only)
    folders, status = run_folders(folder), 0
    for one in folders:
        if len(folders) > 1:
            click.echo(f"{one.name}:")
        status = max(status, _ACTIONS[action](console, one))
    return status


def _status(console: Console, folder: Path) -> int:
    del console
    from llava_video.archive.ledger_view import LedgerView

    with LedgerView(folder) as view:
        counts, failures = view.counts(), view.failures()
        num_duplicates = view.num_inputs - sum(counts.values())
    for state, count in counts.items():
        click.echo(f"{state:12}{count:10,}")
    click.echo(f"{'duplicates':12}{num_duplicates:10,}")
    for kind, count in failures.items():
        click.echo(f"  {kind:24}{count:10,}")
    return 0


def _retry(folder: Path, only: str | None) -> int:
    from llava_video.archive.retrying import retry_failed

    count = retry_failed(folder, only)
    click.echo(f"{count} wait again; the command that made {folder} works them.")
    return 0


def _verify(console: Console, folder: Path) -> int:
    from llava_video.archive.verify import verify

    faults = verify(folder)
    console.warn(faults)
    click.echo(f"{len(faults)} faults." if faults else "ledger and rows agree.")
    return _FAULTY if faults else 0


def _report(console: Console, folder: Path) -> int:
    del console
    from llava_video.archive.report import write_report

    click.echo(str(write_report(folder)))
    return 0


def _table(console: Console, folder: Path) -> int:
    del console
    from llava_video.archive.answer_table import write_answer_table

    click.echo(str(write_answer_table(folder)))
    return 0


_ACTIONS = {
    "status": _status,
    "verify": _verify,
    "report": _report,
    "table": _table,
}
