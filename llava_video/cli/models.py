"""`llava-video models`: the known checkpoints, or what one checkpoint is."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import click

from llava_video.cli.command import command, option
from llava_video.cli.console import Console
from llava_video.cli.loading import quiet_downloads
from llava_video.config import to_mapping
from llava_video.model.known_models import KnownModel, find_known, known_models
from llava_video.model.names import num_parameters
from llava_video.model.spec import ModelSpec, read_spec
from llava_video.preview import DEFAULT_MODEL
from llava_video.values import Newline

_HEADINGS = ("name", "size", "frames", "tokens", "context", "licence of the weights")
_NUMBERS = (1, 2, 3, 4)  # columns that stand on the right
_NOTES = (
    "frames   of a video, unless you ask for another number",
    "tokens   visual tokens of a video of so many frames, of the context's",
    "*        trained on single pictures only",
    f"default  {DEFAULT_MODEL}",
)
_NEWLINES = {
    Newline.ROW: "a newline after each row of a frame",
    Newline.FRAME: "a newline after each frame",
    Newline.CLIP: "one newline after the last frame",
    Newline.NONE: "no newlines",
}


@command("models")
@click.argument("name", required=False, metavar="[NAME|DIR]")
@option("--revision", metavar="NAME", help="Branch, tag or commit of a hub id.")
@option("--json", "as_json", is_flag=True, help="The same facts as JSON.")
@click.pass_obj
def models(console: Console, /, name: str | None, revision: str | None, as_json: bool) -> int:
    """List known checkpoints, or say what a folder is.

    Any checkpoint in the same formats works, known or not: give a hub id or a folder to see what it
    is. Only its configuration and tokenizer are read.
    """
    if name is None:
        known = known_models()
        click.echo(_json([to_mapping(one) for one in known]) if as_json else _table(known))
        return 0
    quiet_downloads(console)
    spec = read_spec(name, revision=revision)
    click.echo(_json(_facts(spec)) if as_json else "\n".join(_lines(spec)))
    return 0


def _json(values: Any) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False)


def _table(known: Sequence[KnownModel]) -> str:
    rows = [_HEADINGS, *map(_row, known)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = [
        "  ".join(
            cell.rjust(width) if column in _NUMBERS else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", *_NOTES])


def _row(model: KnownModel) -> tuple[str, ...]:
    name = model.name if model.video_trained else f"{model.name} *"
    frames, tokens = f"{model.max_frames:,}", f"{model.tokens_per_video:,}"
    return name, model.size, frames, tokens, f"{model.context_tokens:,}", model.licence


def _facts(spec: ModelSpec) -> dict[str, Any]:
    config, geometry = spec.config, spec.geometry
    known = find_known(spec.name)
    return {
        "name": spec.name,
        "folder": str(spec.folder),
        "layout": config.layout,
        "parameters": num_parameters(config.dimensions),
        "stored_dtype": config.stored_dtype,
        "known": None if known is None else to_mapping(known),
        "geometry": to_mapping(geometry),
        "vision": to_mapping(config.vision),
        "text": to_mapping(config.text),
    }


def _lines(spec: ModelSpec) -> Iterator[str]:
    config, geometry = spec.config, spec.geometry
    vision, text, known = config.vision, config.text, find_known(spec.name)
    layouts = {"original": "the original layout", "hf": "the layout of transformers"}
    yield _line("model", spec.name)
    if str(spec.folder) != spec.name:
        yield _line("folder", str(spec.folder))
    yield _line(
        "known as", "nothing in the list" if known is None else f"{known.name}, {known.size}"
    )
    yield _line("weights", f"{_amount(num_parameters(config.dimensions))} parameters in "
                f"{config.stored_dtype}, {layouts[config.layout]}")  # fmt: skip
    yield _line("vision", f"{vision.kind}, {vision.num_layers} layers of {vision.hidden_size} "
                f"channels, tiles of {vision.image_px} px, {vision.patches_per_side} x "
                f"{vision.patches_per_side} patches")  # fmt: skip
    yield _line("language", f"{text.num_layers} layers of {text.hidden_size} channels, "
                f"{geometry.context_tokens:,} tokens of context")  # fmt: skip
    yield _line("video", f"{geometry.max_frames} frames unless asked for more; "
                f"{geometry.pool_mode} pooling, stride {geometry.pool_stride}; "
                f"{_NEWLINES[geometry.newline]}; "
                f"{'told' if geometry.time_instruction else 'not told'} the times")  # fmt: skip
    yield _line("pictures", _pictures_words(spec))


def _pictures_words(spec: ModelSpec) -> str:
    geometry = spec.geometry
    if geometry.aspect != "anyres":
        return {"pad": "padded to a square", "square": "squeezed to a square"}[geometry.aspect]
    most = "" if geometry.anyres_max is None else f", shrunk to about {geometry.anyres_max} tiles"
    return f"tiles on one of {len(geometry.canvases)} canvases{most}"


def _amount(count: int) -> str:
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return str(count)


def _line(heading: str, words: str) -> str:
    return f"{heading:<9} {words}"
