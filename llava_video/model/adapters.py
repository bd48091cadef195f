"""The folder of a LoRA adapter → which weights it changes, by how much, and whether it fits.

An adapter's tensors get the names that what they change has in a whole checkpoint. Reads small
files and headers; imports no torch itself.

An adapter that this library trained says which numbers it was trained over, by a digest of the
first row of every weight it changes: shapes alone do not tell two models of one size apart. One
that was trained over integers says so: what it was added to are the numbers these stand for. How
these rows were stored is told too: a copy in float16 has no bfloat16 number in full.
"""

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llava_video.errors import CheckpointError
from llava_video.model.dimensions import ModelDimensions
from llava_video.model.json_fields import JsonFields, read_json_object
from llava_video.model.names import our_names, parameter_shapes
from llava_video.model.shards import Place, Shard, ShardReader, read_header, shortened
from llava_video.model.sources import ADAPTER_CONFIG, Sources, name_of
from llava_video.planning.memory import WEIGHT_FORMATS
from llava_video.values import WeightFormat

# A text in the adapter's file: how the base's decoder was stored in training, the digest of its
# numbers, and their dtypes in its files. One text: several would stand in another order each time.
TRAINED_OVER: Final = "trained_over"

_LOW_RANK = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")
_ROUNDED = "F16"  # has fewer small numbers than the digest tells apart
# How the module that an adapter wraps is spelled in its file; the first that gives a known name.
_WRAPPERS = ("base_model.model.", "base_model.", "model.", "")
# The only weights that are ever stored as integers, so the only ones not to merge with.
_DECODER_LAYER = "language_model.layers."

OTHER_BASE: Final = (
    "check that the adapter and its base belong together; base= names another base, or the model "
    "itself does where adapter= is given."
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """Low-rank changes of weights: W + scale * B A.

    Attributes:
        pairs: the parameter's name → where A (r, in) and B (out, r) are.
        scale: alpha / r, or alpha / sqrt(r).
        rank: r.
        file: what they lie in.
    """

    pairs: Mapping[str, tuple[Place, Place]]
    scale: float
    rank: int
    file: Shard

    @property
    def base_weights(self) -> WeightFormat:
        """How the base's decoder was stored where it was trained; "plain" where it is not told."""
        told = self.file.notes.get(TRAINED_OVER, "").partition(" ")[0]
        return next((fmt for fmt in WEIGHT_FORMATS if fmt == told), "plain")

    @property
    def num_beside(self) -> int:
        """How many numbers stand beside the decoder's weights where they are not merged."""
        sizes = (
            shard.shapes[name]
            for ours, pair in self.pairs.items()
            if is_beside(ours)
            for shard, name in pair
        )
        return sum(height * width for height, width in sizes)


def is_beside(ours: str) -> bool:
    """Say whether the change of a parameter can stand beside it: only in a decoder's layers."""
    return ours.startswith(_DECODER_LAYER)


def adapter_of(sources: Sources, dimensions: ModelDimensions) -> Adapter | None:
    """Return a checkpoint's adapter; None without one, or before its weights are fetched.

    Args:
        sources: of any checkpoint.
        dimensions: what its configuration says.

    Raises:
        CheckpointError: as `read_adapter`.
    """
    if sources.kind != "adapter" or not sources.has_own_files:
        return None
    shard = unwrapped(read_header(sources.own_files()[0]), dimensions)
    return read_adapter(sources.folder, shard, dimensions)


def unwrapped(shard: Shard, dimensions: ModelDimensions) -> Shard:
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


def read_adapter(folder: Path, shard: Shard, dimensions: ModelDimensions) -> Adapter:
    """Say what an adapter changes.

    Args:
        folder: holds adapter_config.json.
        shard: its file, from `unwrapped`.
        dimensions: the model's.

    Raises:
        CheckpointError: it does not fit, or is of a kind this library does not apply.
    """
    values = JsonFields(read_json_object(folder / ADAPTER_CONFIG), ADAPTER_CONFIG)
    _check_plain(folder, values)
    rank = values.integer("r")
    known, expected = our_names(dimensions), parameter_shapes(dimensions)
    places: dict[str, dict[str, Place]] = {}
    strange, wrong = [], []
    for name, shape in shard.shapes.items():
        target, _, side = name.partition(" lora_")
        if not side:
            strange.append(name)
            continue
        height, width = expected[known[target]]
        fits = (rank, width) if side == "A" else (height, rank)
        if shape != fits:
            wrong.append(f"{shard.stored[name]} is {list(shape)}, needed {list(fits)}")
        places.setdefault(known[target], {})[side] = (shard, name)
    single = [ours for ours, pair in places.items() if len(pair) == 1]
    complaints = (
        ("meet no weight of the model", strange),
        ("are of another size", wrong),
        ("lack their other half", single),
    )
    found = [f"{len(names)} {what}: {shortened(names)}" for what, names in complaints if names]
    if found or not places:
        raise CheckpointError(
            f"the adapter {shard.path} does not fit its base. Of its tensors "
            + ("; ".join(found) or "none is a change of a weight")
            + ".",
            OTHER_BASE,
        )
    divisor = rank**0.5 if values.flag("use_rslora", False) else rank
    return Adapter(
        pairs={ours: (pair["A"], pair["B"]) for ours, pair in places.items()},
        scale=values.number("lora_alpha") / divisor,
        rank=rank,
        file=shard,
    )


def check_numbers(
    sources: Sources, adapter: Adapter, base: Sequence[Shard], dimensions: ModelDimensions
) -> None:
    """See that the base is the one an adapter was trained over, where the adapter says it.

    Where it does not, another name than the one it gives is worth a warning; and so are other
    numbers where float16 is on one side alone, for it rounds what bfloat16 and float32 hold.

    Args:
        sources: the adapter's and the base's folders.
        adapter: what it changes.
        base: the base's files.
        dimensions: the model's.

    Raises:
        CheckpointError: the base's numbers are others.
    """
    _, told, dtypes, *_ = [*adapter.file.notes.get(TRAINED_OVER, "").split(" "), "", "", ""]
    if not told:
        named = read_json_object(sources.folder / ADAPTER_CONFIG).get("base_model_name_or_path")
        found = name_of(sources.base) if sources.base else ""
        if isinstance(named, str) and Path(named).name != found:
            _log.warning(
                "the adapter %s was trained over %r and is put over %s: shapes fit, whether the "
                "numbers do is not told.",
                sources.folder,
                named,
                sources.base,
            )
        return
    if base_digest(adapter.pairs, base, dimensions) == told:
        return
    stored = stored_dtypes(adapter.pairs, base, dimensions)
    if dtypes and dtypes != stored and _ROUNDED in f"{dtypes},{stored}".split(","):
        _log.warning(
            "the adapter %s was trained over %s numbers and is put over those of %s in %s: whether "
            "they are the same ones, rounded, is not told.",
            sources.folder,
            dtypes,
            sources.base,
            stored,
        )
    else:
        raise CheckpointError(
            f"the adapter {sources.folder} was trained over other numbers than those of "
            f"{sources.base}, whose shapes are the same.",
            OTHER_BASE,
        )


def base_digest(changed: Iterable[str], base: Iterable[Shard], dimensions: ModelDimensions) -> str:
    """Return what tells the numbers of some weights from others of the same shapes.

    Rounded to bfloat16, so that a checkpoint's copies in bfloat16 and float32 have one.

    Args:
        changed: parameters by our name, of two axes.
        base: files that hold them.
        dimensions: the model's.
    """
    import torch

    places = _places(changed, base, dimensions)
    rows: dict[str, bytes] = {}
    with ShardReader() as reader:
        for ours, place in sorted(places.items(), key=lambda one: one[1][0].path):
            row = reader.read(*place)[0].to(torch.bfloat16).view(torch.int16)
            rows[ours] = row.numpy().tobytes()
    digest = hashlib.sha256()
    for ours in sorted(rows):  # in whichever order and files they lie
        digest.update(ours.encode() + rows[ours])
    return digest.hexdigest()


def stored_dtypes(
    changed: Iterable[str], base: Iterable[Shard], dimensions: ModelDimensions
) -> str:
    """Return how some weights are stored, as safetensors spells it: "BF16", of several "BF16,F32".

    Args:
        changed: parameters by our name.
        base: files that hold them.
        dimensions: the model's.
    """
    places = _places(changed, base, dimensions)
    return ",".join(sorted({shard.dtypes[name] for shard, name in places.values()}))


def _places(
    changed: Iterable[str], base: Iterable[Shard], dimensions: ModelDimensions
) -> dict[str, Place]:
    known, wanted = our_names(dimensions), set(changed)
    return {
        known[name]: (shard, name)
        for shard in base
        for name in shard.shapes
        if known.get(name) in wanted
    }


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
