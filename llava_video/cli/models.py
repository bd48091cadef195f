"""`llava-video models`: the known checkpoints, or what one checkpoint is and why."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from llava_video.cli.command import command, option
from llava_video.cli.console import Console
from llava_video.cli.loading import quiet_downloads
from llava_video.config import to_mapping
from llava_video.errors import CheckpointError
from llava_video.model.catalogue import (
    VIDEO_MINUTES,
    CatalogueEntry,
    by_member,
    catalogue,
    picture_words,
    usual_video,
    video_words,
)
from llava_video.model.known_models import KnownModel, find_known
from llava_video.model.matching import match_tensors
from llava_video.model.members import MEMBERS, Member, member_of
from llava_video.model.names import num_parameters, parameter_shapes
from llava_video.model.packaged import DEMO_MODEL
from llava_video.model.shards import read_header
from llava_video.model.sources import find_local
from llava_video.model.spec import ModelSpec, read_spec
from llava_video.model.weights import open_weights
from llava_video.plan_table import bytes_words
from llava_video.planning.memory import weights_bytes
from llava_video.preview import DEFAULT_MODEL
from llava_video.values import Plan

_HEADINGS = (
    "name",
    "size",
    "context",
    "frames",
    "tokens",
    "bf16",
    "int8",
    "int4",
    "video",
    "licence of the weights",
)
_NUMBERS = range(1, 9)  # columns that stand on the right
_NOTES = (
    f"frames   of a video of {VIDEO_MINUTES} minutes, unless you ask for another number",
    "tokens   visual tokens of one frame, its newlines included",
    "bf16 …   GiB of the weights: in bfloat16, and the decoder's linear layers in int8 or int4",
    "video    GiB that the video takes beside them: cache and activations",
    "*        trained on single pictures only: frames are given as pictures",
    "+        put together with the weights it is over as it loads: --base",
    f"default  {DEFAULT_MODEL}",
    f"{DEMO_MODEL}     in the package; knows a small made-up world alone: llava-video models demo",
)
_LAYOUTS = {"original": "the authors' layout", "hf": "the layout of transformers"}
_KINDS = {
    "whole": "a whole checkpoint",
    "adapter": "a LoRA adapter",
    "projector": "a projector alone",
    "delta": "the differences to another model",
}


@command("models")
@click.argument("name", required=False, metavar="[NAME|DIR]")
@option("--revision", metavar="NAME", help="Branch, tag or commit of a hub id.")
@option("--base", metavar="NAME|DIR", help="What an adapter, a projector or a delta is over.")
@option("--vision-tower", metavar="NAME|DIR", help="Of a checkpoint that holds none.")
@option("--json", "as_json", is_flag=True, help="The same facts as JSON.")
@click.pass_obj
def models(console: Console, /, name: str | None, as_json: bool, **named: Any) -> int:
    """List known checkpoints, or say what a folder is.

    Any checkpoint in the same formats works, known or not: give a hub id or a folder to see which
    member of the family it is, and why, or why it does not load. Its configuration, its tokenizer
    and, where its weights are here, their headers are read.
    """
    if name is None:
        click.echo(_json(list(map(_flat, catalogue()))) if as_json else _table())
        return 0
    quiet_downloads(console)
    try:
        facts = _facts_of(name, named)
    except CheckpointError:
        known = find_known(name)
        if known is not None and not Path(name).exists():
            click.echo(_json(to_mapping(known)) if as_json else _known_line(known))
        raise
    click.echo(_json(facts.to_mapping()) if as_json else "\n".join(facts.lines()))
    return 0


def _known_line(known: KnownModel) -> str:
    return (
        f"{known.name} is {known.family}, {known.size}, of {known.context_tokens:,} tokens of "
        f"context, template {known.template}; licence of the weights: {known.licence}."
    )


def _json(values: Any) -> str:
    return json.dumps(values, indent=1, ensure_ascii=False)


def _flat(entry: CatalogueEntry) -> dict[str, Any]:
    return to_mapping(entry.known) | {k: v for k, v in to_mapping(entry).items() if k != "known"}


def _table() -> str:
    groups = [(member, [_row(entry) for entry in entries]) for member, entries in by_member()]
    rows = [_HEADINGS, *(row for _, rows in groups for row in rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = [_line(_HEADINGS, widths)]
    for member, own in groups:
        lines += ["", f"{member.name}: {member.about}", *(_line(row, widths) for row in own)]
    return "\n".join([*lines, "", *_NOTES])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(
        cell.rjust(width) if column in _NUMBERS else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()


def _row(entry: CatalogueEntry) -> tuple[str, ...]:
    known = entry.known
    marks = (" *" if not known.video_trained else "") + (" +" if known.base else "")
    sizes = (entry.bf16_bytes, entry.int8_bytes, entry.int4_bytes, entry.video_bytes)
    return (
        known.name + marks,
        known.size,
        f"{known.context_tokens:,}",
        f"{entry.num_frames:,}",
        f"{entry.frame_tokens:,}",
        *(f"{size / 2**30:.1f}" for size in sizes),
        known.licence,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What is known of one checkpoint without its weights."""

    spec: ModelSpec
    member: Member
    why: str
    tower: str
    plan: Plan

    def to_mapping(self) -> dict[str, Any]:
        """Return the facts for JSON."""
        spec, config = self.spec, self.spec.config
        known = find_known(spec.name)
        return {
            "name": spec.name,
            "folder": str(spec.folder),
            "member": self.member.name,
            "why": self.why,
            "kind": spec.sources.kind,
            "base": None if spec.sources.base is None else str(spec.sources.base),
            "template": config.template,
            "tower_weights": self.tower,
            "layout": config.layout,
            "parameters": num_parameters(config.dimensions),
            "stored_dtype": config.stored_dtype,
            "known": None if known is None else to_mapping(known),
            "weights_bytes": self.weights_bytes(),
            "video": self.video(),
            "reusable_prefix": self.plan.reusable_prefix,
            "geometry": to_mapping(spec.geometry),
            "vision": to_mapping(config.vision),
            "text": to_mapping(config.text),
            "card": None if spec.card is None else to_mapping(spec.card),
        }

    def weights_bytes(self) -> dict[str, int]:
        """Return the bytes of the weights in every precision."""
        geometry = self.spec.geometry
        return {
            "bf16": weights_bytes(geometry, "plain"),
            "int8": weights_bytes(geometry, "int8"),
            "int4": weights_bytes(geometry, "int4"),
        }

    def video(self) -> dict[str, Any]:
        """Return what ten minutes of video become."""
        memory = self.plan.memory
        return {
            "minutes": VIDEO_MINUTES,
            "frames": self.plan.visuals[0].num_frames,
            "tokens": self.plan.visual_tokens,
            "position_scale": self.plan.position_scale,
            "bytes": memory.kv_bytes + memory.activation_bytes,
            "reasons": list(self.plan.reasons),
        }

    def lines(self) -> Iterator[str]:
        """Yield the facts for people."""
        sentences = self._identity() | self._sizes() | self._visuals()
        if str(self.spec.folder) == self.spec.name:
            del sentences["folder"]
        yield from (f"{heading:<9} {words}" for heading, words in sentences.items())
        if self.spec.card is not None:
            yield f"\n{self.spec.card}"

    def _identity(self) -> dict[str, str]:
        spec = self.spec
        over = "" if spec.sources.base is None else f" over {spec.sources.base}"
        return {
            "model": spec.name,
            "folder": str(spec.folder),
            "member": f"{self.member.name}: {self.member.about}",
            "because": self.why,
            "known as": _known_words(find_known(spec.name)),
            "holds": f"{_KINDS[spec.sources.kind]}{over}, in {_LAYOUTS[spec.config.layout]}",
            "template": spec.config.template,
        }

    def _sizes(self) -> dict[str, str]:
        config = self.spec.config
        vision, text, side = config.vision, config.text, config.vision.patches_per_side
        sizes = [f"{bytes_words(size)} as {name}" for name, size in self.weights_bytes().items()]
        tiles = f"tiles of {vision.image_px} px, {side} x {side} patches"
        context = f"{self.spec.geometry.context_tokens:,} tokens of context"
        return {
            "weights": f"{_amount(num_parameters(config.dimensions))} parameters in "
            f"{config.stored_dtype}; {', '.join(sizes)}",
            "vision": f"{vision.kind}, {vision.num_layers} layers of {vision.hidden_size} "
            f"channels, {tiles}",
            "tower": self.tower,
            "language": f"{text.num_layers} layers of {text.hidden_size} channels, {context}",
        }

    def _visuals(self) -> dict[str, str]:
        video, scale = self.video(), self.plan.position_scale
        scaled = "" if scale == 1.0 else f"; positions are divided by {scale:g}"
        again = "a second question begins with the cache of the first"
        if not self.plan.reusable_prefix:
            again = "a second question looks at every frame again: they are fused with the prompt"
        return {
            "video": video_words(self.spec.geometry),
            "example": f"{VIDEO_MINUTES} minutes become {video['frames']:,} frames, "
            f"{video['tokens']:,} visual tokens and {bytes_words(video['bytes'])} beside the "
            f"weights{scaled}",
            "again": again,
            "pictures": picture_words(self.spec.geometry),
        }


def _facts_of(name: str, named: dict[str, Any]) -> _Facts:
    spec = read_spec(name, **named)
    _check_weights(spec)
    _, why = member_of(spec.config.values, spec.config.name)
    return _Facts(
        spec=spec,
        member=MEMBERS[spec.config.member],
        why=why,
        tower=_tower_words(spec, named),
        plan=usual_video(spec.geometry),
    )


def _check_weights(spec: ModelSpec) -> None:
    """See that weights that are here are those of the configuration; headers are enough."""
    try:
        spec.sources.weight_files()
    except CheckpointError:  # a hub id whose weights were not fetched
        return
    sizes = spec.config.dimensions
    weights = open_weights(spec.sources, sizes)
    names = [name for shard in weights.shards for name in shard.shapes]
    is_elsewhere = not any("vision_tower." in name for name in names)
    tower = [ours for ours in parameter_shapes(sizes) if ours.startswith("vision_tower.")]
    match_tensors(weights, sizes, tower if is_elsewhere and not spec.sources.tower else ())


def _tower_words(spec: ModelSpec, named: dict[str, Any]) -> str:
    """Say where the vision tower's weights come from, as far as the files here tell."""
    named_tower = named["vision_tower"] or spec.config.values.get("mm_vision_tower")
    try:
        headers = [read_header(path) for path in spec.sources.weight_files()]
    except CheckpointError:  # a hub id whose weights were not fetched
        return f"in the checkpoint, or else {named_tower}; its weights are not here to tell"
    if any("vision_tower." in name for header in headers for name in header.shapes):
        return "in the checkpoint" if spec.sources.base is None else "in the checkpoint or its base"
    found = find_local(spec.folder, named_tower or "")
    place = found or f"{named_tower}, fetched from the hub"
    return f"from {place}; the checkpoint holds none"


def _known_words(known: Any) -> str:
    if known is None:
        return "nothing in the list"
    return f"{known.name}, {known.size}, licence: {known.licence}"


def _amount(count: int) -> str:
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return str(count)
