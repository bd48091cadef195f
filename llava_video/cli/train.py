"""`llava-video train`: a stage in YAML → a trained checkpoint, or a report of its data."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import click

from llava_video.cli.command import command, option, progress_option
from llava_video.cli.console import Console
from llava_video.cli.loading import quiet_downloads
from llava_video.config import read_yaml, to_mapping
from llava_video.errors import ConfigError
from llava_video.train.settings import StageSettings

_ALL_BROKEN = 1
_SOME_BROKEN = 3


@command("train")
@option(
    "--config",
    "paths",
    metavar="FILE",
    multiple=True,
    help="A stage, as those in configs/train; several are run in turn, those done are left.",
)
@option(
    "--set",
    "changes",
    metavar="NAME=VALUE",
    multiple=True,
    help="Another value of a setting: learning_rate=1e-4, data.max_frames=8, …; may be repeated.",
)
@option("--check", is_flag=True, help="Look into the whole data set, and train nothing.")
@option("--json", "as_json", is_flag=True, help="What was found or made, as JSON.")
@progress_option()
@click.pass_obj
def train(
    console: Console,
    /,
    paths: tuple[str, ...],
    changes: tuple[str, ...],
    check: bool,
    as_json: bool,
) -> int:
    """Train stages, or check their data.

    A run that was stopped goes on where its output folder has a checkpoint, to the same weights as
    one that was not. Status 3 of --check: some examples are broken.
    """
    if not paths:
        raise ConfigError("--config is missing.", "--config configs/train/small_1_projector.yaml")
    console.keeps_names = True  # from here on errors are of the file
    stages = [read_yaml(StageSettings, path, changes) for path in paths]
    quiet_downloads(console)
    run = _check if check else _train
    is_one = len(stages) == 1
    found = [run(console, stage, as_json, is_one=is_one) for stage in stages]
    if as_json:
        values = [{"name": stage.name} | one for stage, (_, one) in zip(stages, found, strict=True)]
        _say(json.dumps(found[0][1] if is_one else values, indent=1, ensure_ascii=False))
    return max(status for status, _ in found)


def _check(
    console: Console, stage: StageSettings, as_json: bool, *, is_one: bool
) -> tuple[int, dict[str, Any]]:
    """Check a stage's data; return the status and what was found."""
    del is_one
    from llava_video.train.run import check_stage  # a second that `--help` need not pay

    report = check_stage(stage, console.progress.on_example)
    console.progress.close()
    if not as_json:
        _say("\n".join(report.lines()))
    status = _SOME_BROKEN if report.num_broken else 0
    if report.num_broken == report.num_examples:
        status = _ALL_BROKEN
    return status, to_mapping(report)


def _train(
    console: Console, stage: StageSettings, as_json: bool, *, is_one: bool
) -> tuple[int, dict[str, Any]]:
    """Train a stage; return the status and what was made."""
    from llava_video.train.run import is_done, results
    from llava_video.train.run import train as run_stage

    if not is_one and is_done(stage):
        if not as_json:
            _say(f"{stage.name}: done before.")
        folders = {name: str(folder) for name, folder in results(stage).items()}
        return 0, {"folders": folders, "is_done_before": True}

    def show(line: Mapping[str, Any]) -> None:
        console.progress.on_step(line["step"], line["steps"])
        text = f"step {line['step']}: loss {line['loss']:.4f}, {line['tokens_per_s']:,.0f} tokens/s"
        if "reward_accuracy" in line:
            text += f", {line['reward_accuracy']:.0%} of pairs right"
        console.note(text)

    done = run_stage(stage, show)
    console.progress.close()
    if as_json:
        values = to_mapping(done) | {"folders": {n: str(p) for n, p in done.folders.items()}}
        return 0, values if is_one else values | {"is_done_before": False}
    begun = f", the last {done.num_steps - done.resumed_from} now" if done.resumed_from else ""
    loss = "" if done.loss is None else f"; loss {done.loss:.4f}"
    _say(f"{stage.name}: {done.num_steps} steps{begun}{loss}.{_left_out(done.broken)}")
    for name, folder in done.folders.items():
        _say(f"  {name}: {folder}")
    return 0, {}


def _say(text: str) -> None:
    """Write a result; of several processes, the first one writes it.

    Which one this is has to be known before they have met, for stages that were done before: so it
    is read where torchrun notes it. `RANK` alone may be the number of a machine.
    """
    is_one_of_several = "LOCAL_RANK" in os.environ
    if not is_one_of_several or os.environ.get("RANK", "0") == "0":
        click.echo(text)


def _left_out(broken: Mapping[str, int]) -> str:
    """Return the sentence about what could not be learned from, the most frequent kind first.

    >>> _left_out({"empty answer": 2, "missing file": 3})
    ' 5 examples left out: 3 missing file, 2 empty answer.'
    """
    if not broken:
        return ""
    total = sum(broken.values())
    kinds = ", ".join(f"{num:,} {kind}" for kind, num in Counter(broken).most_common())
    return f" {total:,} {'example' if total == 1 else 'examples'} left out: {kinds}."
