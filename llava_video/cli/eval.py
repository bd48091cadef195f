"""`llava-video eval`: a local copy of a benchmark → scores that say how sure they are."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llava_video.cli.command import command, option, progress_option
from llava_video.cli.console import Console
from llava_video.cli.inputs import exit_status
from llava_video.cli.loading import load_model, split_options
from llava_video.cli.options import keywords_of, model_options, request_options
from llava_video.errors import ConfigError

if TYPE_CHECKING:
    from llava_video.eval.example import Example

OUTPUT = "The result"
ASKING = "What is asked"


@command("eval")
@click.argument("task")
@click.argument("folder", metavar="DIR")
@option(
    "--limit",
    section=ASKING,
    type=click.IntRange(min=1),
    metavar="N",
    help="Only the first N questions.",
)
@option(
    "--noise",
    section=ASKING,
    is_flag=True,
    help="Ask everything again with noise in place of every frame, for comparison.",
)
@option(
    "--out",
    "-o",
    "records",
    section=OUTPUT,
    metavar="FILE",
    help="A line of JSON per question. What stands in it already is not asked again.",
)
@option("--retry-failed", section=OUTPUT, is_flag=True, help="Ask again what failed before.")
@option("--json", "as_json", section=OUTPUT, is_flag=True, help="The scores as JSON.")
@progress_option(section=OUTPUT)
@request_options(with_answer=False)
@model_options(with_weights=True)
@click.pass_obj
def eval(
    console: Console,
    /,
    task: str,
    folder: str,
    limit: int | None,
    noise: bool,
    records: str | None,
    retry_failed: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Ask a benchmark's questions and score the answers.

    TASK is questions (this library's own files), world or world-captions (a folder of `llava-video
    world`), videomme, mvbench, nextqa, nextqa-open, activitynetqa, mlvu, longvideobench, mmbench or
    seedbench; DIR holds a local copy as it is published, files of questions and videos. Nothing is
    downloaded. Answers are greedy; questions with choices are answered with one of them.
    """  # fmt: skip
    from llava_video.eval.records import RecordFile
    from llava_video.eval.report_table import report_lines
    from llava_video.eval.running import evaluate
    from llava_video.eval.settings import EvalSettings
    from llava_video.eval.tasks import find_task

    named, request = split_options(given)
    keywords = keywords_of(request)
    settings = EvalSettings(limit=limit, noise=noise, retry_failed=retry_failed)
    console.keeps_names = True  # what is wrong now is of the copy's files
    examples = list(find_task(task).read(Path(folder)))
    _refuse_hopeless(examples[:limit], folder)
    console.keeps_names = False
    if records is not None:
        RecordFile(Path(records))  # a file of something else is told of before a model is loaded
    with load_model(console, named) as model:
        report = evaluate(
            model,
            task,
            examples,
            settings=settings,
            records=records,
            on_done=console.progress.on_answer,
            **keywords,
        )
    console.progress.close()
    if as_json:
        click.echo(json.dumps(report.to_mapping(), indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join(report_lines(report)))
    console.warn(report.warnings)
    shown = [record for record in report.records if record.view == "video"]
    return exit_status(report.overall.num_failed, len(shown))


def _refuse_hopeless(examples: Sequence["Example"], folder: str) -> None:
    """Find out whether there is anything to load a model for.

    Raises:
        ConfigError: there are no examples. LlavaVideoError: none can be asked; the first's trouble.
    """
    if not examples:
        raise ConfigError(f"{folder} holds no questions.", "name another folder.")
    troubles = [example.trouble for example in examples]
    if troubles[0] is not None and all(troubles):
        raise troubles[0]
