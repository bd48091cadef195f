"""The folders of a checkpoint → the shards to load, in order, and the change they go through.

An adapter's tensors get the names that what they change has in a whole checkpoint. Reads headers
only.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from llava_video.errors import CheckpointError
from llava_video.model.changes import (
    EMBEDDING,
    HEAD,
    Change,
    Difference,
    LastRows,
    LowRank,
    Place,
)
from llava_video.model.dimensions import ModelDimensions
from llava_video.model.json_fields import JsonFields, read_json_object
from llava_video.model.names import (
    is_beside_tower,
    is_ignored,
    likeliest_names,
    our_names,
    parameter_shapes,
)
from llava_video.model.shards import Shard, find_shards, read_header, shortened
from llava_video.model.sources import ADAPTER_CONFIG, Sources

_LOW_RANK = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")
# How the module that an adapter wraps is spelled in its file; the first that gives a known name.
_WRAPPERS = ("base_model.model.", "base_model.", "model.", "")

_OTHER_BASE = "check that the adapter and its base belong together, or name the right one by base=."


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Everything a checkpoint's parameters are made of.

    Attributes:
        place: where they are, in words.
        shards: in the order they are loaded.
        over: shards whose tensors take the place of those in `shards`.
        change: what the tensors go through.
    """

    place: str
    shards: tuple[Shard, ...]
    over: tuple[Shard, ...] = ()
    change: Change = field(default_factory=Change)


def open_weights(sources: Sources, dimensions: ModelDimensions) -> Weights:
    """Read the headers of every file that takes part.

    Args:
        sources: from `find_sources`, with `files="all"`.
        dimensions: what the configuration says.

    Raises:
        CheckpointError: a file is missing or damaged, an adapter or delta does not fit, or it is of
            a kind this library does not merge.
    """
    tower = () if sources.tower is None else tuple(map(_tower_alone, find_shards(sources.tower)))
    place = str(sources.folder) if sources.base is None else f"{sources.folder} over {sources.base}"
    if sources.base is None:
        return Weights(place=place, shards=(*find_shards(sources.folder), *tower))
    base = find_shards(sources.base)
    if sources.kind == "delta":
        delta = find_shards(sources.folder)
        change: Change = _difference(base, delta, dimensions)
        return Weights(place=place, shards=(*delta, *tower), change=change)
    own = [_unwrapped(read_header(path), dimensions) for path in sources.own_files()]
    if sources.kind == "adapter":
        change, over = _low_rank(sources.folder, own[0], dimensions), tuple(own[1:])
    else:
        change, over = _without_rows(own[0], dimensions)
    for shard in over:
        _check_projector(shard, dimensions, is_needed=sources.kind == "projector")
    return Weights(place=place, shards=(*base, *tower), over=over, change=change)


def _tower_alone(shard: Shard) -> Shard:
    """Return a shard of a tower's own folder without the text model beside it."""
    return shard.renamed(lambda name: None if is_beside_tower(name) else name)


def _unwrapped(shard: Shard, dimensions: ModelDimensions) -> Shard:
    """Return a shard with its tensors under the names they have without the adapter's wrapper."""
    known = our_names(dimensions)

    def rename(name: str) -> str:
        found = _LOW_RANK.fullmatch(name)
        target = f"{found['module']}.weight" if found else name
        for wrapper in _WRAPPERS:
            bare = target.removeprefix(wrapper)
            if target.startswith(wrapper) and bare in known:
                return f"{bare} lora_{found['side']}" if found else bare
        return name

    return shard.renamed(rename)


def _check_projector(shard: Shard, dimensions: ModelDimensions, *, is_needed: bool) -> None:
    """See that a projector is whole: the base's would fill its gaps, and answer otherwise."""
    known = our_names(dimensions)
    found = {known[name] for name in shard.shapes if name in known}
    expected = [ours for ours in parameter_shapes(dimensions) if ours.startswith("projector.")]
    lacking = [ours for ours in expected if ours not in found]
    if lacking and (is_needed or len(lacking) < len(expected)):
        names = likeliest_names(dimensions, shard.shapes)
        raise CheckpointError(
            f"{shard.path} holds {len(expected) - len(lacking)} of the {len(expected)} tensors of "
            f"a projector; missing: {shortened([names[ours] for ours in lacking])}.",
            "fetch the whole file.",
        )


def _low_rank(folder: Path, adapter: Shard, dimensions: ModelDimensions) -> LowRank:
    values = JsonFields(read_json_object(folder / ADAPTER_CONFIG), ADAPTER_CONFIG)
    _check_plain(folder, values)
    rank = values.integer("r")
    known, expected = our_names(dimensions), parameter_shapes(dimensions)
    places: dict[str, dict[str, Place]] = {}
    strange, wrong = [], []
    for name, shape in adapter.shapes.items():
        target, _, side = name.partition(" lora_")
        if not side:
            strange.append(name)
            continue
        height, width = expected[known[target]]
        fits = (rank, width) if side == "A" else (height, rank)
        if shape != fits:
            wrong.append(f"{adapter.stored[name]} is {list(shape)}, needed {list(fits)}")
        places.setdefault(known[target], {})[side] = (adapter, name)
    single = [ours for ours, pair in places.items() if len(pair) == 1]
    complaints = (
        ("meet no weight of the model", strange),
        ("are of another size", wrong),
        ("lack their other half", single),
    )
    found = [f"{len(names)} {what}: {shortened(names)}" for what, names in complaints if names]
    if found or not places:
        raise CheckpointError(
            f"the adapter {adapter.path} does not fit its base. Of its tensors "
            + ("; ".join(found) or "none is a change of a weight")
            + ".",
            _OTHER_BASE,
        )
    divisor = rank**0.5 if values.flag("use_rslora", False) else rank
    scale = values.number("lora_alpha") / divisor
    return LowRank({ours: (pair["A"], pair["B"]) for ours, pair in places.items()}, scale)


def _check_plain(folder: Path, values: JsonFields) -> None:
    """Refuse the kinds of adapter whose formula is another one."""
    allowed: dict[str, tuple[object, ...]] = {
        "peft_type": ("LORA",),
        "bias": (None, "none"),
        "fan_in_fan_out": (None, False),
        "use_dora": (None, False),
        "rank_pattern": (None, {}),
        "alpha_pattern": (None, {}),
        "modules_to_save": (None, []),
        "use_qalora": (None, False),
        "layer_replication": (None, []),
        # The others ("pissa", "olora", …) take the base apart before they begin.
        "init_lora_weights": (None, False, "gaussian", True),
    }
    for key, fits in allowed.items():
        if values.values.get(key) not in fits:
            raise CheckpointError(
                f"{ADAPTER_CONFIG} of {folder} has {key} = {values.values.get(key)!r}; only plain "
                f"LoRA is merged, which has {fits[-1]!r}.",
                "merge the adapter with the library that made it, and load the merged folder.",
            )


def _without_rows(shard: Shard, dimensions: ModelDimensions) -> tuple[Change, tuple[Shard, ...]]:
    """Split off the rows of an embedding, some or all, that were trained beside a projector."""
    known, (vocab_size, width) = our_names(dimensions), parameter_shapes(dimensions)[EMBEDDING]
    for name, shape in shard.shapes.items():
        fits = len(shape) == 2 and shape[0] <= vocab_size and shape[1] == width
        if known.get(name) == EMBEDDING and fits:
            rest = shard.renamed(lambda other: None if other == name else other)  # noqa: B023 - used at once
            return LastRows((shard, name), shape[0], vocab_size), (rest,)
    return Change(), (shard,)


def _difference(
    base: Iterable[Shard], delta: Iterable[Shard], dimensions: ModelDimensions
) -> Difference:
    known = our_names(dimensions)
    strange = [
        name
        for shard in base
        for name in shard.shapes
        if name not in known and not is_ignored(name, dimensions)
    ]
    places = {known[n]: (shard, n) for shard in base for n in shard.shapes if n in known}
    lacking, wrong = [], []
    for name, shape in ((n, shape) for shard in delta for n, shape in shard.shapes.items()):
        ours = known.get(name, "")
        if ours not in places:
            lacking += [name] if ours.startswith("language_model.") else []
        elif not _is_under(ours, _shape_at(places[ours]), shape):
            wrong.append(f"{name} is {list(_shape_at(places[ours]))}, the delta's {list(shape)}")
    complaints = (("unknown", strange), ("missing", lacking), ("of another size", wrong))
    found = [f"{len(names)} {what}: {shortened(names)}" for what, names in complaints if names]
    if found:
        raise CheckpointError(
            "the base is not the one of the delta. Tensors of the base " + "; ".join(found) + ".",
            "pass base= with the weights the delta was made from, of the same size.",
        )
    return Difference(places)


def _shape_at(place: Place) -> tuple[int, ...]:
    shard, name = place
    return shard.shapes[name]


def _is_under(ours: str, base: tuple[int, ...], delta: tuple[int, ...]) -> bool:
    """Whether a base's tensor can be added: equal, or the first rows of a vocabulary."""
    return base == delta or (
        ours in (EMBEDDING, HEAD) and base[1:] == delta[1:] and base[0] < delta[0]
    )
