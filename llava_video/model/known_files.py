"""The JSON files in `known/` → the record of every public checkpoint: names, frames, sizes, words.

A record says what config.json does not hold (the frame limit, the licence of the weights, what a
part of a model is added to) and, in the original keys, what it does hold as far as a table needs
it. Fetches nothing and knows no meaning of a key.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownRecord:
    """What is written down of one public checkpoint.

    Attributes:
        name: its hub id.
        family: its line, "LLaVA-NeXT".
        size: parameters of its language model in words, "7B".
        layout: "original" or "hf", whose files it has.
        max_frames: frames of a video, unless another number is asked for.
        video_trained: whether it was trained on videos at all.
        licence: of the weights, as its model card states it, or where to read it.
        base: the weights that a delta, an adapter or a projector is added to; "" for a whole model.
        values: the keys of its config.json that shape it, in the original spelling.
    """

    name: str
    family: str
    size: str
    layout: Literal["original", "hf"]
    max_frames: int
    video_trained: bool
    licence: str
    base: str = ""
    values: Mapping[str, Any] = field(repr=False, hash=False)


@functools.cache
def known_records() -> tuple[KnownRecord, ...]:
    """Return the record of every known checkpoint, family by family, small to large."""
    folder = resources.files("llava_video.model").joinpath("known")
    decoders = json.loads(folder.joinpath("decoders.json").read_text(encoding="utf-8"))
    found: list[KnownRecord] = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name[0].isdigit():
            family = json.loads(path.read_text(encoding="utf-8"))
            found.extend(_record(family, own, decoders) for own in family["models"])
    return tuple(found)


def find_record(name: str) -> KnownRecord | None:
    """Return the record of a hub id, or of a folder whose last part is a known name."""
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()
    for record in known_records():
        if last and last == record.name.rpartition("/")[2].lower():
            return record
    return None


def _record(
    family: Mapping[str, Any], own: Mapping[str, Any], decoders: Mapping[str, Any]
) -> KnownRecord:
    shared = family["shared"]
    values = {**decoders[own["decoder"]], **shared["values"], **own.get("values", {})}
    facts = {**shared, **own, "family": family["family"], "values": values}
    return KnownRecord(**{key: value for key, value in facts.items() if key != "decoder"})
