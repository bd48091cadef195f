"""`llava-video watch`: cameras and rules → alerts; or a rehearsal over recordings; or a check."""

import os
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llava_video.cli.command import command, option
from llava_video.cli.console import Console
from llava_video.cli.loading import SERVER_NAMES, load_model, quiet_downloads, split_options
from llava_video.cli.options import keywords_of, model_options
from llava_video.cli.stopping import INTERRUPTED, stopping
from llava_video.errors import ConfigError

if TYPE_CHECKING:
    from llava_video.api import LlavaVideo
    from llava_video.monitor.check import Finding
    from llava_video.monitor.judge import Judged
    from llava_video.monitor.labels import Label
    from llava_video.monitor.rehearsal import Rehearsal
    from llava_video.monitor.settings import WatchSettings

WATCH, REHEARSAL, BEFORE = "The watch", "A rehearsal", "Before anything starts"
_FAULTY = 3
_REHEARSED = {
    "labels": "--labels",
    "slack_s": "--slack",
    "starts_at": "--starts-at",
    "with_curve": "--curve",
    "least": "--least",
}
# Rows of a still camera's frames: about 100 pictures of a 7B model, thousands of a small one's.
_KEPT_ROWS_BYTES = 2**28


@command("watch")
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@option("--rules", section=WATCH, metavar="FILE",
        help="Cameras, questions, sinks, as configs/watch.yaml.  [required]")  # fmt: skip
@option("--set", "changes", section=WATCH, multiple=True, metavar="NAME=VALUE",
        help="Another value of a setting of --rules, such as rules.0.hits=2.")  # fmt: skip
@option("--out", "-o", section=WATCH, metavar="DIR", default="watch", show_default=True,
        help="Where alerts, evidence and the trace are kept.")  # fmt: skip
@option("--page", section=WATCH, metavar="[HOST]:PORT",
        help="A page, /metrics and /health; without a host for this machine alone.")  # fmt: skip
@option("--pace", section=WATCH, type=click.Choice(("real", "fast", "follow")), default="real",
        show_default=True, help="How files are read: at their own speed, as fast as they are "
        "answered (none dropped), or on and on while they grow.")  # fmt: skip
@option("--loop", section=WATCH, multiple=True, metavar="NAME=VALUE",
        help="A setting of the loop: queue_windows, evidence_frames, trace_bytes …")  # fmt: skip
@option("--forget-sink", "forget_sinks", section=WATCH, multiple=True, metavar="NAME",
        help="Let go what waits for a sink that is no more in --rules.")  # fmt: skip
@option("--pool-stride", section=WATCH, type=int, metavar="N",
        help="Fewer visual tokens a frame.  [default: the model's]")  # fmt: skip
@option("--replay", "replays", section=REHEARSAL, multiple=True, metavar="[NAME=]FILE",
        help="Run the rules over a recording, faster than real time; nobody is told.")  # fmt: skip
@option("--labels", section=REHEARSAL, metavar="FILE",
        help="CSV of start,end,rule[,camera]: what should have been told.")  # fmt: skip
@option("--slack", "slack_s", section=REHEARSAL, type=float, metavar="X",
        help="How long after a label an alert may come, in s.  [default: a window]")  # fmt: skip
@option("--starts-at", section=REHEARSAL, metavar="TIME",
        help="When the recording began, as 2026-01-31T20:00:00, UTC; schedules go by it.  "
        "[default: what the file says]")  # fmt: skip
@option("--curve", "with_curve", section=REHEARSAL, is_flag=True,
        help="Precision and recall over confidence thresholds, each asked once.")  # fmt: skip
@option("--least", section=REHEARSAL, type=click.FloatRange(0, 1), default=1.0, show_default=True,
        metavar="X", help="Precision and recall below it are status 3.")  # fmt: skip
@option("--check", "only_check", section=BEFORE, is_flag=True,
        help="Look at rules, addresses, secrets' names, sinks and the model's plan.")  # fmt: skip
@option("--probe", "with_probe", section=BEFORE, is_flag=True,
        help="With --check: reach cameras and sinks too, and time a window.")  # fmt: skip
@model_options(with_weights=True)
@click.pass_obj
def watch(
    console: Console,
    /,
    sources: tuple[str, ...],
    rules: str | None,
    changes: tuple[str, ...],
    replays: tuple[str, ...],
    only_check: bool,
    **given: Any,
) -> int:
    """Ask questions of cameras around the clock, and raise alerts.

    SOURCE is an address or a file in place of those of the rules' cameras: NAME=ADDRESS, or the
    address alone where there is one camera. Ctrl-C finishes what is under way, a second one stops
    at once; the same command goes on where it was. Every window and rule leaves a line in
    DIR/why.jsonl. Status: 0; 3 when some cameras ended with an error or alerts found no room on the
    disk, 1 when all cameras did or no question had an answer; 130 when it was stopped, by Ctrl-C or
    SIGTERM. Of a rehearsal: 0 when precision and recall reach --least, else 3; 1 when no question
    had an answer. Of --check: 1 when a watch would not work.
    """
    from llava_video.monitor.settings import read_rules

    if only_check and rules is None and len(sources) == 1:
        rules, sources = sources[0], ()  # watch --check rules.yaml
    if rules is None:
        raise ConfigError("--rules is missing.", "--rules configs/watch.yaml is an example.")
    if sources and replays:
        raise ConfigError("SOURCE and --replay are both given.", "give one of them.")
    if not replays:
        _refuse_others()
    settings = read_rules(rules, changes, replays or sources)
    named, own = split_options(given)
    if own["page"] is not None:
        _warn_of_others(console, own["page"])
    if only_check:
        return _check(console, settings, named, own)
    if replays:
        return _rehearse(console, settings, named, own)
    return _watch(console, settings, named, own)


def _refuse_others() -> None:
    """Refuse options of a rehearsal where there is none: a watch would start instead.

    Raises:
        ConfigError: there is one.
    """
    context = click.get_current_context()
    for name, words in _REHEARSED.items():
        source = context.get_parameter_source(name)
        if source is not None and source is not click.core.ParameterSource.DEFAULT:
            raise ConfigError(f"{words} is of a rehearsal.", "--replay FILE runs one.")


def _watch(
    console: Console, settings: "WatchSettings", named: dict[str, Any], own: dict[str, Any]
) -> int:
    from llava_video.config import from_mapping
    from llava_video.monitor.loop_settings import LoopSettings
    from llava_video.monitor.page import page_address
    from llava_video.monitor.watch import asker_of, run_watch

    loop = from_mapping(LoopSettings, _plain(own["loop"]))
    page = None if own["page"] is None else page_address(own["page"])
    missing = settings.missing_names(os.environ)
    if missing:
        raise ConfigError(
            f"the environment has no {', '.join(missing)}.", "export them, and start again."
        )

    def note(camera: str, text: str) -> None:
        console.warn([text], about=camera) if camera else click.echo(text, err=True)

    with _loaded(console, named) as model, stopping(console) as stop:
        _warn_of_guard(console, model, settings)
        summary = run_watch(
            settings, asker_of(model, settings, **_options(own)), own["out"], loop=loop,
            pace=own["pace"], page=page, stopping=stop, on_note=note,
            forget_sinks=own["forget_sinks"],
        )  # fmt: skip
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(summary.windows.items()))
    words = f"{summary.alerts:,} alerts; windows: {kinds or 'none'}; {own['out']}/why.jsonl"
    click.echo(words, err=True)
    for sink, number in summary.waiting.items():
        console.warn([f"{number:,} messages wait; the next watch delivers them."], about=sink)
    if summary.held:
        console.warn([f"{summary.held:,} messages found no room on the disk and are lost."])
    for camera, error in summary.errors.items():
        console.warn([error], about=camera)
    return INTERRUPTED if summary.is_stopped and not summary.held else summary.exit_status


def _rehearse(
    console: Console, settings: "WatchSettings", named: dict[str, Any], own: dict[str, Any]
) -> int:
    from llava_video.monitor.notes import FailureNotes, WarningNotes
    from llava_video.monitor.rehearsal import rehearse
    from llava_video.monitor.summary import is_unanswered
    from llava_video.monitor.trace import WhyTrace
    from llava_video.monitor.watch import asker_of

    labels = _labels(settings, own)
    failures, warnings = FailureNotes(), WarningNotes()

    def note(judged: "Judged") -> None:
        console.warn(failures.of(judged), about=judged.camera)
        warnings.of(judged)  # told at the end, with how often

    starts_at_s = None if own["starts_at"] is None else _moment(own["starts_at"])
    folder = Path(own["out"]) / "rehearsal"  # beside the trace of a watch, not in it
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("why*.jsonl"):
        earlier.unlink()
    started_s = time.perf_counter()
    with ExitStack() as undo:
        model: LlavaVideo = undo.enter_context(_loaded(console, named))
        _warn_of_guard(console, model, settings)
        trace = undo.enter_context(WhyTrace(folder, most_bytes=2**26, most_files=64))
        made = rehearse(
            settings, asker_of(model, settings, **_options(own)).ask, starts_at_s=starts_at_s,
            trace=trace, clock=time.perf_counter, on_judged=note,
        )  # fmt: skip
    took_s = time.perf_counter() - started_s
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(made.windows.items()))
    click.echo(
        f"{made.seconds:,.0f} s of footage in {took_s:,.0f} s; windows: {kinds}; "
        f"{made.questions:,} questions; {folder}/why.jsonl", err=True,
    )  # fmt: skip
    for camera, text in warnings.told():
        console.warn([text], about=camera)
    status = _told(settings, made, labels, own)
    return 1 if is_unanswered(made.windows) else status


def _labels(settings: "WatchSettings", own: dict[str, Any]) -> "list[Label] | None":
    from llava_video.monitor.labels import read_labels

    if own["labels"] is not None:
        names = [rule.name for rule in settings.rules], [one.name for one in settings.cameras]
        return read_labels(own["labels"], *names)
    if own["with_curve"]:
        raise ConfigError("--curve without --labels.", "--labels day.csv")
    return None


def _loaded(console: Console, named: dict[str, Any]) -> "LlavaVideo":
    """Load the model so that what a still camera shows again is not encoded again."""
    from llava_video.engine.settings import EngineSettings

    model = load_model(console, named, engine=EngineSettings(kept_rows_bytes=_KEPT_ROWS_BYTES))
    model.on_event = None  # bars of single requests say nothing here
    return model


def _told(
    settings: "WatchSettings",
    made: "Rehearsal",
    labels: "list[Label] | None",
    own: dict[str, Any],
) -> int:
    """Write scores, what was missed and told wrongly, and the curve; return the status.

    Without labels: what would have been told.
    """
    from llava_video.monitor.score_table import curve_table, faults_of, score_table

    if labels is None:
        for decision in made.decisions:
            if decision.signal:
                click.echo(decision.words)
        return 0
    slack_s = own["slack_s"]
    if slack_s is None:
        slack_s = max(camera.window_s for camera in settings.cameras)
    scores = made.scores(labels, slack_s)
    click.echo(score_table(scores))
    for line in faults_of(made, labels, slack_s):
        click.echo(line)
    if own["with_curve"]:
        for rule, points in made.curve(settings, labels, slack_s).items():
            click.echo(f"\n{rule}\n{curve_table(points)}")
    total = scores[""]
    rates = [1.0 if rate is None else rate for rate in (total.precision, total.recall)]
    return 0 if min(rates) >= own["least"] else _FAULTY


def _check(
    console: Console, settings: "WatchSettings", named: dict[str, Any], own: dict[str, Any]
) -> int:
    from llava_video.monitor.check import check_watch, probe_watch
    from llava_video.monitor.watch import asker_of
    from llava_video.preview import plan_video

    quiet_downloads(console)
    facts = {name: value for name, value in named.items() if name not in ("attn", *SERVER_NAMES)}
    if facts.get("quantize", "") is None:
        del facts["quantize"]

    def plan(video: Any, question: str) -> Any:
        return plan_video(video, question, **facts, **_options(own))

    is_fit = all(map(_show, check_watch(settings, os.environ, plan)))
    if own["with_probe"] and is_fit:
        with _loaded(console, named) as model:
            ask = asker_of(model, settings, **_options(own)).ask
            is_fit = all(map(_show, probe_watch(settings, os.environ, ask)))
    return 0 if is_fit else 1


def _show(finding: "Finding") -> bool:
    """Write a finding; return whether a watch would work."""
    click.echo(f"{finding.level:8}{finding.about}: {finding.words}")
    return finding.level != "error"


def _options(own: dict[str, Any]) -> dict[str, Any]:
    return keywords_of({"pool_stride": own["pool_stride"]})


def _plain(written: tuple[str, ...]) -> dict[str, Any]:
    """Read NAME=VALUE pairs as YAML does."""
    import yaml

    pairs = [text.partition("=") for text in written]
    for name, is_pair, value in pairs:
        if not (name and is_pair and value):
            raise ConfigError(f"--loop {name}{is_pair}{value}.", "--loop queue_windows=8")
    return {name: yaml.safe_load(value) for name, _, value in pairs}


def _moment(written: str) -> float:
    try:
        moment = datetime.fromisoformat(written)
    except ValueError as cause:
        raise ConfigError(f"--starts-at {written}.", "2026-01-31T20:00:00") from cause
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _warn_of_others(console: Console, page: str) -> None:
    from llava_video.monitor.page import is_local, page_address

    host, _ = page_address(page)
    if not is_local(host):
        console.warn(
            [f"the page on {host} has no password: whoever reaches it sees cameras and alerts."]
        )


def _warn_of_guard(console: Console, model: "LlavaVideo", settings: "WatchSettings") -> None:
    if model.card is not None and settings.guard:
        console.warn([f"{model.card.name} was taught its own questions alone: guard: false"])
