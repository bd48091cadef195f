"""`llava-video describe`: videos → texts."""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from llava_video.cli.answers import remark, show, show_live
from llava_video.cli.command import command, option, progress_option
from llava_video.cli.console import Console
from llava_video.cli.inputs import FAILED, exit_status, refuse_early
from llava_video.cli.loading import load_model, split_options
from llava_video.cli.options import keywords_of, model_options, request_options
from llava_video.cli.outputs import OutputFolder, output_folder
from llava_video.errors import ConfigError
from llava_video.values import Description

if TYPE_CHECKING:
    from llava_video.api import LlavaVideo

OUTPUT = "The result"


@command("describe")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@option(
    "--prompt",
    "-p",
    section=OUTPUT,
    metavar="TEXT",
    help="What to ask.  [default: a detailed description]",
)
@option(
    "--output",
    "-o",
    "folder",
    section=OUTPUT,
    metavar="DIR",
    help="Write one file per input here instead of to stdout.",
)
@option(
    "--format",
    "-f",
    "form",
    section=OUTPUT,
    type=click.Choice(("txt", "json")),
    default="txt",
    show_default=True,
    help="txt is the text; json also says what was seen, how, and for how long.",
)
@option(
    "--json",
    "as_json",
    section=OUTPUT,
    is_flag=True,
    help="Short for -f json; on stdout one line per input.",
)
@option(
    "--contact-sheet",
    "has_sheets",
    section=OUTPUT,
    is_flag=True,
    help="With -o, write a picture of the frames the model saw.",
)
@option("--overwrite", section=OUTPUT, is_flag=True, help="With -o, replace files that exist.")
@progress_option(section=OUTPUT)
@request_options(with_answer=True)
@model_options(with_weights=True)
@click.pass_obj
def describe(
    console: Console,
    /,
    files: tuple[str, ...],
    prompt: str | None,
    folder: str | None,
    form: str,
    as_json: bool,
    has_sheets: bool,
    overwrite: bool,
    **given: Any,
) -> int:
    """Describe videos, one text each.

    FILE is a path or a URL of a video or a picture. Several are described together, each on its
    own; one that fails does not stop the others.
    """  # fmt: skip
    named, request = split_options(given)
    keywords = keywords_of(request)
    as_json = as_json or form == "json"
    outputs = None
    if folder is not None:
        suffix = ".json" if as_json else ".txt"
        outputs = output_folder(files, folder, suffix=suffix, has_sheets=has_sheets)
        outputs.check(overwrite=overwrite)
    elif has_sheets or overwrite:
        raise ConfigError("no folder to write files to was given.", "add -o DIR.")
    if not refuse_early(console, files, prompt, named, keywords):
        return FAILED
    with load_model(console, named) as model:
        if len(files) == 1 and outputs is None and not as_json and sys.stdout.isatty():
            return _live(console, model, files[0], prompt, keywords)
        return _all(console, model, files, prompt, keywords, outputs, as_json=as_json)


def _live(
    console: Console,
    model: "LlavaVideo",
    file: str,
    prompt: str | None,
    keywords: Mapping[str, Any],
) -> int:
    stream = model.stream(file, prompt, **keywords)
    show_live(console, stream)
    remark(console, stream.description)
    return 0


def _all(
    console: Console,
    model: "LlavaVideo",
    files: Sequence[str],
    prompt: str | None,
    keywords: Mapping[str, Any],
    outputs: OutputFolder | None,
    *,
    as_json: bool,
) -> int:
    num_failed = 0
    console.progress.on_video(0, len(files))
    answers = model.batch(files, prompt, on_error="return", **keywords)
    for num_done, (file, answer) in enumerate(zip(files, answers, strict=True), 1):
        about = file if len(files) > 1 else ""
        if not isinstance(answer, Description):
            num_failed += 1
            console.error(answer, about)
        elif outputs is not None:
            console.note(f"wrote {outputs.write(file, answer)}")
        else:
            console.progress.close()  # stdout may be the same terminal
            show(answer, as_json=as_json, heading=about)
        console.progress.on_video(num_done, len(files))
        if isinstance(answer, Description):
            remark(console, answer, about)
    console.progress.close()
    return exit_status(num_failed, len(files))
