"""`llava-video ask`: one video and questions → answers."""

import sys
from typing import Any

import click

from llava_video.cli.answers import remark, show, show_live
from llava_video.cli.command import command, option, progress_option
from llava_video.cli.console import Console
from llava_video.cli.inputs import ALL_WELL, FAILED, refuse_early
from llava_video.cli.loading import load_model, split_options
from llava_video.cli.options import keywords_of, model_options, request_options
from llava_video.errors import ConfigError

OUTPUT = "The result"


@command("ask")
@click.argument("file")
@click.argument("questions", nargs=-1, required=True, metavar="QUESTION...")
@option(
    "--json",
    "as_json",
    section=OUTPUT,
    is_flag=True,
    help="One line of JSON per answer: what was seen, how, and for how long.",
)
@progress_option(section=OUTPUT)
@request_options(with_answer=True)
@model_options(with_weights=True)
@click.pass_obj
def ask(
    console: Console, /, file: str, questions: tuple[str, ...], as_json: bool, **given: Any
) -> int:
    """Ask questions about one video.

    FILE is a path or a URL of a video or a picture. It is read once for all questions; each is
    answered on its own.
    """  # fmt: skip
    named, request = split_options(given)
    keywords = keywords_of(request)
    if not all(question.strip() for question in questions):
        raise ConfigError("a question is empty.", "ask something, or use `llava-video describe`.")
    if not refuse_early(console, [file], max(questions, key=len), named, keywords):
        return FAILED
    with load_model(console, named) as model:
        if len(questions) == 1 and not as_json and sys.stdout.isatty():
            stream = model.stream(file, questions[0], **keywords)
            show_live(console, stream)
            remark(console, stream.description)
            return ALL_WELL
        answers = model.ask_many(file, questions, **keywords)
    console.progress.close()
    for question, answer in zip(questions, answers, strict=True):
        heading = question if len(questions) > 1 else ""
        show(answer, as_json=as_json, heading=heading)
        remark(console, answer, heading)
    return ALL_WELL
