"""`llava-video plan`: one video and a prompt → what would be done, without a model's weights."""

from typing import Any

import click

from llava_video.cli.command import command, option
from llava_video.cli.console import Console
from llava_video.cli.loading import quiet_downloads
from llava_video.cli.options import keywords_of, model_options, request_options
from llava_video.preview import plan_video


@command("plan")
@click.argument("file")
@click.argument("prompt", required=False)
@option(
    "--json",
    "as_json",
    section="The result",
    is_flag=True,
    help="The whole plan; `LlavaVideo.run` does exactly what it says.",
)
@request_options(with_answer=False)
@model_options(with_weights=False)
@click.pass_obj
def plan(
    console: Console,
    /,
    file: str,
    prompt: str | None,
    as_json: bool,
    model: str,
    revision: str | None,
    **given: Any,
) -> int:
    """Say what would be done, before any work.

    Frames, tiles, tokens and memory for FILE and PROMPT, with the reasons. Of the model only
    configuration and tokenizer are read; of the video one frame is decoded, and
    with --sampling scene or dedupe those that are looked at.
    """  # fmt: skip
    quiet_downloads(console)
    made = plan_video(file, prompt, model=model, revision=revision, **keywords_of(given))
    click.echo(made.to_json() if as_json else str(made))
    return 0
