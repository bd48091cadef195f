"""A description → lines: the result on stdout, what to think of it on stderr.

Knows no model and writes no file.
"""

import json
from collections.abc import Iterable

import click

from llava_video.cli.console import Console
from llava_video.cli.progress import STAGES
from llava_video.values import Description


def text_of(description: Description) -> str:
    """Return the answer as text with one newline at its end."""
    return description.text.strip() + "\n"


def json_line(description: Description) -> str:
    """Return everything about the answer as one line of JSON."""
    return one_line(description.to_json())


def one_line(text: str) -> str:
    """Return JSON text as one line, so that several make JSON Lines."""
    return json.dumps(json.loads(text), ensure_ascii=False)


def show(description: Description, *, as_json: bool, heading: str = "") -> None:
    """Print one answer.

    Args:
        description: the answer.
        as_json: one line of JSON instead of the text.
        heading: tells several texts apart; "" for a single one.
    """
    if as_json:
        click.echo(json_line(description))
    elif heading:
        click.echo(f"== {heading}\n{text_of(description)}")
    else:
        click.echo(text_of(description), nl=False)


def show_live(console: Console, pieces: Iterable[str]) -> None:
    """Print an answer while it is written; the bars give way to its first words."""
    begun = False
    for piece in pieces:
        if not begun:
            piece = piece.lstrip()
            console.progress.end()
        begun = begun or bool(piece)
        click.echo(piece, nl=False)
    click.echo()


def remark(console: Console, description: Description, about: str = "") -> None:
    """Say what the reader should know of an answer, and what it took."""
    usage, timings = description.usage, description.timings
    warnings = list(description.warnings)
    if description.finish_reason == "length":
        warnings.append(
            f"the answer was cut at {usage.new_tokens:,} tokens; --max-new-tokens allows more."
        )
    console.warn(warnings, about)
    if not console.progress.is_on:
        return
    spent = ", ".join(
        f"{words} {timings[stage]:.1f} s"
        for stage, (words, _) in STAGES.items()
        if stage in timings
    )
    console.note(
        f"{_count(len(description.frames), 'frame')}, {usage.visual_tokens:,} visual and "
        f"{usage.text_tokens:,} text tokens in, {usage.new_tokens:,} out; "
        f"{timings.get('total', 0.0):.1f} s ({spent})"
    )


def _count(num: int, noun: str) -> str:
    return f"{num:,} {noun}" + ("" if num == 1 else "s")
