"""`llava-video convert`: a checkpoint in one layout → the same model in the other."""

import json
from pathlib import Path
from typing import Any

import click

from llava_video.cli.command import command, option, progress_option
from llava_video.cli.console import Console
from llava_video.cli.loading import quiet_downloads
from llava_video.config import to_mapping
from llava_video.errors import ConfigError
from llava_video.model.model_config import FileFormat
from llava_video.planning.amount import amount_words, parse_bytes


@command("convert")
@click.argument("source", metavar="NAME|DIR")
@click.argument("target", metavar="DIR")
@option(
    "--to",
    "layout",
    type=click.Choice(["original", "hf"]),
    help="The authors' layout, or the one of transformers.",
)
@option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Of the tensors written.  [default: each keeps its own]",
)
@option("--shard-size", metavar="SIZE", default="5GB", help="Largest file.  [default: 5GB]")
@option("--base", metavar="NAME|DIR", help="What an adapter, a projector or a delta is over.")
@option("--vision-tower", metavar="NAME|DIR", help="Of a checkpoint that holds none.")
@option("--revision", metavar="NAME", help="Branch, tag or commit of a hub id.")
@option("--json", "as_json", is_flag=True, help="What was written, as JSON.")
@progress_option()
@click.pass_obj
def convert(
    console: Console,
    /,
    source: str,
    target: str,
    layout: FileFormat | None,
    dtype: str | None,
    shard_size: str,
    as_json: bool,
    **named: Any,
) -> int:
    """Write a checkpoint in the other layout.

    The folder must be new. Adapters, projectors and deltas are merged with their base, a tower
    fetched by name is taken in.
    One tensor is in memory at a time. All that was written is read back and compared: names,
    shapes, numbers.
    """
    if layout is None:
        raise ConfigError("--to is missing.", "--to original, or --to hf.")
    shard_bytes = parse_bytes(shard_size, "shard_size")
    assert shard_bytes is not None  # it has a default
    quiet_downloads(console)
    import torch  # a second that `--help` need not pay

    from llava_video.model.convert import convert_checkpoint

    done = convert_checkpoint(
        source,
        Path(target),
        layout=layout,
        dtype=None if dtype is None else getattr(torch, dtype),
        shard_bytes=shard_bytes,
        progress=console.progress.on_tensor,
        **named,
    )
    if as_json:
        click.echo(json.dumps(to_mapping(done), indent=1, ensure_ascii=False))
        return 0
    files = f"{done.num_files} file{'' if done.num_files == 1 else 's'}"
    click.echo(
        f"{done.folder}: {done.member}, {done.num_tensors:,} tensors, "
        f"{amount_words(done.num_bytes)} in {files}, read back and compared."
    )
    for note in done.notes:
        click.echo(f"  {note}")
    return 0
