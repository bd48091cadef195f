"""`llava-video search`: an archive and words → the videos and spans that say them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llava_video.cli.command import command, option
from llava_video.cli.console import Console

if TYPE_CHECKING:
    from llava_video.archive.search import Hit


@command("search")
@click.argument("folder", metavar="DIR")
@click.argument("query", nargs=-1, required=True)
@option("--limit", type=click.IntRange(1), default=20, help="Most results.  [default: 20]")
@option("--rebuild", is_flag=True, help="Make the index anew first; it is when rows are new.")
@option("--json", "as_json", is_flag=True, help="One line of JSON a result, with the whole text.")
@click.pass_obj
def search(
    console: Console,
    /,
    folder: str,
    query: tuple[str, ...],
    limit: int,
    rebuild: bool,
    as_json: bool,
) -> int:
    """Find what an archive's captions and answers say.

    All words must stand in one text, in any inflection. "A phrase" in quotes (which the shell needs
    quoted once more) and word* are taken as they stand. DIR is the --out folder of an archive. Exit
    status 3 when nothing is found.
    """
    # What rows are made of costs a second that `--help` need not pay.
    from llava_video.archive.run_rows import run_folders
    from llava_video.archive.search import build
    from llava_video.archive.search import search as find

    if rebuild:
        for run in run_folders(Path(folder)):
            build(run)
    hits = find(Path(folder), " ".join(query), limit=limit)
    for hit in hits:
        click.echo(json.dumps(asdict(hit), ensure_ascii=False) if as_json else _lines(hit))
    if not hits:
        console.warn(["nothing was found."])
    return 0 if hits else 3


def _lines(hit: "Hit") -> str:
    """Return a hit as a person reads it: where, perhaps what was asked, what is said."""
    from llava_video.contact_sheet import clock_text  # Pillow, which JSON has no need of

    snippet, done = "", 0
    for start, end in hit.marked:
        snippet += hit.snippet[done:start] + click.style(hit.snippet[start:end], bold=True)
        done = end
    said = [" ".join(words.split()) for words in (hit.prompt, snippet + hit.snippet[done:])]
    span = f"{clock_text(hit.start_s)} - {clock_text(hit.end_s)}"
    said += [f"frame: {hit.frame}" if hit.frame else ""]
    said += [f"frames: {hit.sheet}" if hit.sheet else ""]
    return "\n    ".join([f"{hit.address}  {span}  {hit.kind}", *filter(None, said)])
