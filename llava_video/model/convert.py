"""A checkpoint in one layout → the same model in the other, tensor by tensor, and checked.

What lies in several folders becomes one: a tower fetched by name is taken in, an adapter, a
projector or a delta is merged with its base. One file is mapped and one tensor held at a time;
everything that was written is read back and compared before the folder takes its name.

Rows of vocabulary that transformers needs beyond the original's (`conversion_goal.py`) are all the
mean of those before, so that their logits never win and every run writes the same bytes. Knows no
module and no prompt.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from llava_video.errors import CheckpointError
from llava_video.model.card import CARD_FILE
from llava_video.model.changes import EMBEDDING, HEAD, Change, LowRank
from llava_video.model.conversion_goal import TEXT_ROWS, Goal, goal_of
from llava_video.model.dimensions import ModelDimensions
from llava_video.model.export import (
    DEFAULT_SHARD_BYTES,
    config_values,
    generation_values,
    new_folder,
    unused_entries,
    write_json,
)
from llava_video.model.hf_files import files_for_hf, files_for_original
from llava_video.model.json_fields import read_json_object
from llava_video.model.matching import TensorMap, match_tensors
from llava_video.model.model_config import FileFormat, ModelConfig, read_model_config
from llava_video.model.names import our_names
from llava_video.model.shards import Shard, ShardReader, weight_paths
from llava_video.model.sources import Sources, find_sources
from llava_video.model.tensor_files import DTYPES, Entry, check_shards, write_shards
from llava_video.model.weights import Weights, open_weights

_MOST_TOWER_LAYERS: Final = 64  # more than any tower has
_TORCH_DTYPES: Final = {word: dtype for dtype, word in DTYPES.items()}
_WORDS: Final = {
    "adapter": "the adapter was merged with",
    "projector": "the projector was put into",
    "delta": "the differences were added to",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What was written.

    Attributes:
        folder: the new checkpoint.
        member: which line of the family it is of.
        layout: of the new checkpoint.
        num_tensors: tensors written and read back.
        num_bytes: their bytes.
        num_files: files they are in.
        notes: what was merged, taken in, added or cut off, one sentence each.
    """

    folder: Path
    member: str
    layout: FileFormat
    num_tensors: int
    num_bytes: int
    num_files: int
    notes: tuple[str, ...]


def convert_checkpoint(
    name_or_path: str | Path,
    folder: str | Path,
    *,
    layout: FileFormat,
    dtype: torch.dtype | None = None,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
    revision: str | None = None,
    base: str | Path | None = None,
    vision_tower: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Write a checkpoint in a layout.

    Args:
        name_or_path: a folder or a hub id, in either layout.
        folder: the target; must not exist, or be empty.
        layout: "original" or "hf".
        dtype: of the tensors written; None keeps each in its own.
        shard_bytes: largest size of one file.
        revision: of the hub id.
        base: what an adapter, a projector or a delta is over; None for the one it names.
        vision_tower: of a checkpoint without one; None for the one its configuration names.
        progress: called after each tensor with (tensors done, tensors in all).

    Returns:
        What was written.

    Raises:
        CheckpointError: the source cannot be read or does not fit together, its member has no class
            in transformers, the target is not empty or cannot be written, or what was written is
            not what was read. Nothing is left behind.
    """
    target = Path(folder)
    with new_folder(target) as unfinished:
        sources = find_sources(
            name_or_path, revision=revision, base=base, vision_tower=vision_tower
        )
        config = _read_config(sources, vision_tower)
        weights = open_weights(sources, config.dimensions)
        tensors = match_tensors(weights, _with_unused_layers(weights, config.dimensions))
        text = tensors.dimensions.text  # its head may turn out to be tied
        config = replace(config, dimensions=replace(config.dimensions, text=text))
        goal = goal_of(sources, config, tensors.dimensions, layout)
        with ShardReader() as reader, contextlib.closing(weights.change):
            entries = list(_entries(weights, tensors, goal, reader, dtype))
            told = _counted(entries, progress) if progress else entries
            checksums = write_shards(unfinished, told, shard_bytes)
        _write_beside(unfinished, sources, goal, entries)
        paths = weight_paths(unfinished)
        check_shards(paths, entries, checksums)
        _check_whole(unfinished, goal.config)
    return Conversion(
        folder=target,
        member=config.member,
        layout=layout,
        num_tensors=len(entries),
        num_bytes=sum(entry.num_bytes for entry in entries),
        num_files=len(paths),
        notes=(*_merged(sources), *_rounded(weights.change), *goal.notes),
    )


def _read_config(sources: Sources, vision_tower: str | Path | None) -> ModelConfig:
    """Read the configuration; a tower that is given keeps the name the checkpoint calls it by."""
    config = read_model_config(
        sources.config_folder, tower=vision_tower, generation_folder=sources.generation_folder
    )
    named = read_json_object(sources.config_folder / "config.json").get("mm_vision_tower")
    if vision_tower is None or named is None:
        return config
    return replace(config, values={**config.values, "mm_vision_tower": named})


def _with_unused_layers(weights: Weights, dimensions: ModelDimensions) -> ModelDimensions:
    """Return the sizes with the layers of a CLIP tower that are there and do not run.

    The authors' code and transformers build the whole tower and take its last layer but one.
    """
    if dimensions.vision.kind != "clip":
        return dimensions
    whole = replace(dimensions, vision=replace(dimensions.vision, num_layers=_MOST_TOWER_LAYERS))
    known = our_names(whole)
    found = {
        int(known[name].split(".")[2])
        for shard in weights.shards
        for name in shard.shapes
        if known.get(name, "").startswith("vision_tower.layers.")
    }
    num_layers = max([*found, dimensions.vision.num_layers - 1]) + 1
    return replace(dimensions, vision=replace(dimensions.vision, num_layers=num_layers))


def _entries(
    weights: Weights,
    tensors: TensorMap,
    goal: Goal,
    reader: ShardReader,
    dtype: torch.dtype | None,
) -> Iterator[Entry]:
    """Yield every tensor of the target, in the order of the source."""
    names, num_rows = goal.names, goal.config.text.vocab_size

    def read(shard: Shard, stored: str, ours: str, own: torch.dtype) -> Tensor:
        tensor = weights.change.apply(ours, reader.read(shard, stored), torch.device("cpu"))
        return (_fitted(tensor, num_rows) if ours in (EMBEDDING, HEAD) else tensor).to(own)

    for part in tensors.parts:
        for stored, ours in part.ours.items():
            own = dtype or _TORCH_DTYPES[part.shard.dtypes[stored]]
            shape = weights.change.shape(ours, part.shard.shapes[stored])
            if ours in (EMBEDDING, HEAD):
                shape = (num_rows, *shape[1:])
            yield Entry(names[ours], shape, own, partial(read, part.shard, stored, ours, own))
    yield from _last_norm(weights, goal, reader, dtype)


def _last_norm(
    weights: Weights, goal: Goal, reader: ShardReader, dtype: torch.dtype | None
) -> Iterator[Entry]:
    """Yield the tower's last norm, which nothing of the family uses and other loaders expect."""
    places = {
        name.rpartition(".")[2]: (shard, name)
        for shard in weights.shards
        for name in shard.shapes
        if "post_layernorm" in name.split(".")
    }
    for entry in unused_entries(goal.config.dimensions, goal.layout, dtype or torch.float32):
        leaf = entry.name.rpartition(".")[2]
        if leaf not in places:
            yield entry
            continue
        shard, name = places[leaf]
        own = dtype or _TORCH_DTYPES[shard.dtypes[name]]

        def read(shard: Shard = shard, name: str = name, own: torch.dtype = own) -> Tensor:
            return reader.read(shard, name).to(own)

        yield Entry(entry.name, entry.shape, own, read)


def _fitted(rows: Tensor, num_rows: int) -> Tensor:
    """Cut rows off, or append the mean of all."""
    if len(rows) >= num_rows:
        return rows[:num_rows]
    mean = rows.mean(0, keepdim=True, dtype=torch.float32).to(rows.dtype)
    return torch.cat([rows, mean.expand(num_rows - len(rows), -1)])


def _counted(entries: list[Entry], progress: Callable[[int, int], None]) -> Iterator[Entry]:
    """Yield the entries so that each tells when its turn has come."""
    done = itertools.count(1)

    def read(entry: Entry) -> Tensor:
        progress(next(done), len(entries))
        return entry.read()

    for entry in entries:
        yield replace(entry, read=partial(read, entry))


def _write_beside(folder: Path, sources: Sources, goal: Goal, entries: list[Entry]) -> None:
    """Write configuration, generation defaults, tokenizer and processors."""
    config = goal.config
    named = dict.fromkeys(goal.names, torch.empty(0))  # what the head is tied to, by its absence
    values = config_values(config, goal.layout, named)
    # A tower that was taken in may be of another dtype than the language model.
    dtype = next(entry.dtype for entry in entries if entry.name == goal.names[EMBEDDING])
    values["torch_dtype"] = str(dtype).removeprefix("torch.")
    num_unused = goal.num_tower_layers - config.vision.num_layers
    if goal.layout == "hf" and num_unused:
        values["vision_config"]["num_hidden_layers"] = goal.num_tower_layers
        values["vision_feature_layer"] = -1 - num_unused
    if goal.layout == "hf":
        values[TEXT_ROWS] = goal.num_text_rows
    write_json(folder / "config.json", values)
    write_json(folder / "generation_config.json", generation_values(config.generation))
    tokenizer = sources.tokenizer_folder
    files = (
        files_for_hf(tokenizer, config, values)
        if goal.layout == "hf"
        else files_for_original(tokenizer, goal.num_text_rows)
    )
    for name, content in files.items():
        (folder / name).write_bytes(content)
    card = sources.folder / CARD_FILE
    if sources.kind == "whole" and card.is_file():  # the same weights, as well measured
        (folder / CARD_FILE).write_bytes(card.read_bytes())


def _check_whole(folder: Path, config: ModelConfig) -> None:
    """Read the new checkpoint as any other, and see that it is the same model."""
    again = read_model_config(folder)
    match_tensors(
        open_weights(Sources(kind="whole", folder=folder), again.dimensions), again.dimensions
    )
    facts = (
        "member",
        "template",
        "dimensions",
        "visual",
        "context_tokens",
        "has_mark_ends",
        "time_instruction",
        "max_frames",
        "fps",
    )
    changed = [name for name in facts if getattr(again, name) != getattr(config, name)]
    if changed:
        raise CheckpointError(
            f"the layout cannot say the checkpoint's {', '.join(changed)}.",
            "keep it in the layout it has.",
        )


def _merged(sources: Sources) -> Iterator[str]:
    if sources.base is not None:
        yield f"{_WORDS[sources.kind]} {sources.base}."
    if sources.tower is not None:
        yield f"the vision tower of {sources.tower} was taken in."


def _rounded(change: Change) -> Iterator[str]:
    if isinstance(change, LowRank) and change.rounded != "plain":
        yield (
            f"it was trained over {change.rounded} weights: those of the decoder are the numbers "
            "that these stand for."
        )
