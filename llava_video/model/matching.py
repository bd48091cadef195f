"""The tensors that are there ↔ the parameters a model needs. Strict: each of both is accounted for.

Works on headers alone, before anything is allocated; says which member of the family the tensors
look like when they are not those of the configuration. Opens no file.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from llava_video.errors import CheckpointError
from llava_video.model.dimensions import ModelDimensions
from llava_video.model.names import (
    is_head,
    is_ignored,
    likeliest_names,
    our_names,
    parameter_shapes,
)
from llava_video.model.shards import Shard, shortened
from llava_video.model.weights import Weights

_log = logging.getLogger(__name__)

_FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})

# What only some members have, the first that is there and not meant: a piece of a name, the member,
# and whether a configuration means it.
_MARKS: tuple[tuple[str, str, Callable[[ModelDimensions], bool]], ...] = (
    ("compressor.", "LLaVA-Mini", lambda sizes: sizes.fusion is not None),
    ("prefusion_layers.", "LLaVA-Mini", lambda sizes: sizes.fusion is not None),
    (
        "patch_embedding.bias",
        "LLaVA-OneVision or LLaVA-Video (a SigLIP tower)",
        lambda sizes: sizes.vision.kind == "siglip",
    ),
    (
        "mm_projector.weight",
        "LLaVA, the first (a projector of one layer)",
        lambda sizes: sizes.projector_layers == 1,
    ),
    (
        "class_embedding",
        "LLaVA-1.5, LLaVA-NeXT or one of their kin (a CLIP tower)",
        lambda sizes: sizes.vision.kind == "clip",
    ),
    ("image_newline", "LLaVA-NeXT or one of its kin", lambda sizes: sizes.has_newline),
)
_PROJECTORS = ("mm_projector.", "multi_modal_projector.")


@dataclass(frozen=True, slots=True)
class Part:
    """What is loaded of one shard.

    Attributes:
        shard: the file.
        ours: the file's name → our name, without the tensors that are ignored.
    """

    shard: Shard
    ours: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TensorMap:
    """Which tensor of which shard becomes which parameter.

    Attributes:
        dimensions: the model's sizes; the head is tied when the files hold none.
        parts: one for each shard, in the order they are loaded.
    """

    dimensions: ModelDimensions
    parts: tuple[Part, ...]


def match_tensors(
    weights: Weights, dimensions: ModelDimensions, given: Collection[str] = ()
) -> TensorMap:
    """Find the parameter of every tensor.

    Args:
        weights: what the files hold.
        dimensions: what the configuration says.
        given: parameters, by our name, that do not come from the files.

    Raises:
        CheckpointError: naming the first few tensors that are missing, unknown, doubled or of a
            wrong shape or dtype.
    """
    names = [name for shard in (*weights.shards, *weights.over) for name in shard.shapes]
    is_siglip = dimensions.vision.kind == "siglip"  # whose files may leave it out unsaid
    if is_siglip and not dimensions.text.tie_embeddings and not any(map(is_head, names)):
        _log.warning("the weights hold no head: the embedding matrix takes its place")
        dimensions = replace(dimensions, text=replace(dimensions.text, tie_embeddings=True))
    expected, known = parameter_shapes(dimensions), our_names(dimensions)
    over = _parts(weights.over, known, set(given))
    own = _parts(weights.shards, known, set(given) | _used(over))
    parts = (*own, *over)
    lacking = set(expected) - _used(parts) - set(given)
    spelled = likeliest_names(dimensions, set(names))
    unknown = [n for n in names if n not in known and not is_ignored(n, dimensions)]
    missing = [spelled[ours] for ours in expected if ours in lacking]
    complaints = [
        ("unknown", unknown),
        ("missing", missing),
        ("doubled", _doubled(own) + _doubled(over)),
        ("of a wrong shape", _wrong_shapes(parts, weights, expected)),
        ("not floating point", _wrong_dtypes(parts)),
    ]
    found = [f"{len(found)} {what}: {shortened(found)}" for what, found in complaints if found]
    if found:
        raise CheckpointError(
            f"the weights in {weights.place} do not fit its config.json. Of the tensors, "
            + "; ".join(found)
            + ".",
            (_look_alike(names, dimensions) if unknown or missing else "") + weights.advice,
        )
    return TensorMap(dimensions=dimensions, parts=parts)


def _parts(
    shards: Sequence[Shard], known: Mapping[str, str], others: Collection[str]
) -> tuple[Part, ...]:
    """Return what is used of each shard, without the parameters that come from elsewhere."""
    return tuple(
        Part(
            shard,
            {n: known[n] for n in shard.shapes if n in known and known[n] not in others},
        )
        for shard in shards
    )


def _used(parts: Iterable[Part]) -> set[str]:
    return {ours for part in parts for ours in part.ours.values()}


def _doubled(parts: Sequence[Part]) -> list[str]:
    counts = Counter(ours for part in parts for ours in part.ours.values())
    found = (name for part in parts for name, ours in part.ours.items() if counts[ours] > 1)
    return list(dict.fromkeys(found))


def _wrong_shapes(
    parts: Iterable[Part], weights: Weights, expected: Mapping[str, tuple[int, ...]]
) -> list[str]:
    return [
        f"{name} is {list(part.shard.shapes[name])}, config.json means {list(expected[ours])}"
        for part in parts
        for name, ours in part.ours.items()
        if weights.change.shape(ours, part.shard.shapes[name]) != expected[ours]
    ]


def _wrong_dtypes(parts: Iterable[Part]) -> list[str]:
    return [
        f"{name} ({part.shard.dtypes[name]})"
        for part in parts
        for name in part.ours
        if part.shard.dtypes[name] not in _FLOAT_DTYPES
    ]


def _look_alike(names: Sequence[str], dimensions: ModelDimensions) -> str:
    """Say whose tensors these are, where their names tell that others are meant."""
    if not any(place in name for name in names for place in _PROJECTORS):
        return "the tensors are those of a language model alone (no projector); "
    for mark, member, is_meant in _MARKS:
        for name in names:
            if mark in name and not is_meant(dimensions):
                return f"the tensors are those of {member}: {name}; "
    return ""
