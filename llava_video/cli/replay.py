"""`llava-video replay`: a row of an archive → the same again, or where it differs."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from llava_video.cli.command import command, option, progress_option
from llava_video.cli.console import Console
from llava_video.cli.loading import SERVED, load_model, split_options
from llava_video.cli.options import model_options
from llava_video.errors import ConfigError


@command("replay")
@click.argument("folder", metavar="DIR")
@click.argument("row", metavar="ROW")
@option("--video", metavar="FILE", help="Where the video is now, if it was moved.")
@option("--allow-private", is_flag=True, help="Let its URL lead to a private address.")
@option("--json", "as_json", is_flag=True, help="One line of JSON a difference.")
@progress_option()
@model_options(with_weights=True)
@click.pass_context
def replay(
    context: click.Context,
    /,
    folder: str,
    row: str,
    video: str | None,
    allow_private: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Run a row of an archive again and say where it differs.

    DIR is the --out folder of an archive; ROW the number of a row, its key or eight digits of it,
    or the video's name. The model is the row's unless -m names another. Nothing is written. Exit
    status 3 when something differs: causes come first, the file, the model, versions, the prompt,
    the plan, the frames, and then what was said.
    """
    from llava_video.archive.replay import find_row  # what rows are made of takes a second
    from llava_video.archive.replay import replay as run_again

    console = context.ensure_object(Console)
    found = find_row(Path(folder), row)
    named, _ = split_options(given)
    made_by = found["provenance"]
    if context.get_parameter_source("model") is click.core.ParameterSource.DEFAULT:
        named["model"] = made_by["model"] or named["model"]
        _check_engine(made_by["server"], named)
    with load_model(console, named) as model:
        differences = run_again(found, model, address=video, allow_private=allow_private)
    console.progress.close()
    for one in differences:
        values = asdict(one)
        click.echo(json.dumps(values, ensure_ascii=False) if as_json else str(one))
    if not differences and not as_json:
        click.echo("the same.")
    return 3 if differences else 0


def _check_engine(server: dict[str, Any] | None, named: dict[str, Any]) -> None:
    """See that a server's row is not looked for among checkpoints, nor its address trusted unasked.

    Raises:
        ConfigError: the row is a server's, and no engine was named.
    """
    if server is not None and named["engine"] != SERVED:
        raise ConfigError(
            f"{server['base_url']} answered this row, by its model {server['model']!r}.",
            f"--engine openai --base-url {server['base_url']} --plan-as "
            f"{server['planned_as'].partition(' at ')[0]}, or -m for a model to run here.",
        )
