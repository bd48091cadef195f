"""The folders of a checkpoint → the shards to load, in order, and the change they go through.

Reads headers only, and of an adapter's base one row of each weight that it changes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from llava_video.errors import CheckpointError
from llava_video.model.adapters import OTHER_BASE, Adapter, check_numbers, read_adapter, unwrapped
from llava_video.model.changes import EMBEDDING, HEAD, Change, Difference, LastRows, LowRank
from llava_video.model.dimensions import ModelDimensions
from llava_video.model.names import (
    is_beside_tower,
    is_ignored,
    likeliest_names,
    our_names,
    parameter_shapes,
)
from llava_video.model.shards import Place, Shard, find_shards, read_header, shortened
from llava_video.model.sources import Sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Everything a checkpoint's parameters are made of.

    Attributes:
        place: where they are, in words.
        shards: in the order they are loaded.
        over: shards whose tensors take the place of those in `shards`.
        change: what the tensors go through.
        advice: what to do when they are not those of the configuration.
    """

    place: str
    shards: tuple[Shard, ...]
    over: tuple[Shard, ...] = ()
    change: Change = field(default_factory=Change)
    advice: str = (
        "check that config.json belongs to these weights and that the download is complete."
    )


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
    own = [unwrapped(read_header(path), dimensions) for path in sources.own_files()]
    if sources.kind == "adapter":
        adapter = read_adapter(sources.folder, own[0], dimensions)
        check_numbers(sources, adapter, base, dimensions)
        change, over = _low_rank(adapter), tuple(own[1:])
    else:
        change, over = _without_rows(own[0], dimensions)
    for shard in over:
        _check_projector(shard, dimensions, is_needed=sources.kind == "projector")
    weights = Weights(place=place, shards=(*base, *tower), over=over, change=change)
    return replace(weights, advice=OTHER_BASE) if sources.kind == "adapter" else weights


def _low_rank(adapter: Adapter) -> LowRank:
    return LowRank(adapter.pairs, adapter.scale, adapter.base_weights)


def _tower_alone(shard: Shard) -> Shard:
    """Return a shard of a tower's own folder without the text model beside it."""
    return shard.renamed(lambda name: None if is_beside_tower(name) else name)


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
