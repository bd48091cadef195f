"""A checkpoint folder → its safetensors shards and what each of them holds, headers only.

Checks that the files are there and whole before anything is allocated. Knows no model, and that a
pickle file (`.bin`) is never opened.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from llava_video.errors import CheckpointError
from llava_video.model.json_fields import read_json_object

SINGLE_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"

_FETCH = "download the checkpoint again; an interrupted download leaves such a folder."
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class Shard:
    """One safetensors file.

    Attributes:
        path: the file.
        shapes: the shape of every tensor in it, by its name in the file.
        dtypes: the dtype of every tensor, as the file spells it ("BF16").
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]


def find_shards(folder: str | Path) -> tuple[Shard, ...]:
    """List a checkpoint's shards, in name order.

    Raises:
        CheckpointError: no safetensors files, a shard missing or damaged, or tensors missing that
            the index promises.
    """
    folder = Path(folder)
    if (folder / SINGLE_FILE).is_file():
        return (read_header(folder / SINGLE_FILE),)
    if (folder / INDEX_FILE).is_file():
        return _indexed_shards(folder)
    paths = sorted(folder.glob("*.safetensors"))
    if len(paths) == 1:
        return (read_header(paths[0]),)
    if paths:
        names = shortened([path.name for path in paths])
        raise CheckpointError(f"{folder} has {names}, but no {INDEX_FILE}.", _FETCH)
    raise _no_weights(folder)


def read_header(path: Path) -> Shard:
    """Read what one file holds.

    Raises:
        CheckpointError: when it is truncated, damaged, or only a pointer to the real file.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise CheckpointError(
                    f"{path} is a git-lfs pointer, not the file itself.", "run `git lfs pull`."
                )
        with safe_open(path, framework="np") as tensors:
            slices: dict[str, Any] = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - no mapping
            shapes = {name: tuple(one.get_shape()) for name, one in slices.items()}
            dtypes = {name: str(one.get_dtype()) for name, one in slices.items()}
    except (OSError, SafetensorError) as cause:
        size = f"{path.stat().st_size} bytes" if path.is_file() else "no file"
        raise CheckpointError(
            f"{path} is truncated or damaged ({size}): {cause}.", _FETCH
        ) from cause
    return Shard(path=path, shapes=shapes, dtypes=dtypes)


def shortened(names: list[str], most: int = 4) -> str:
    """Join the first few names and say how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _indexed_shards(folder: Path) -> tuple[Shard, ...]:
    weight_map = read_json_object(folder / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{folder / INDEX_FILE} has no weight_map.", _FETCH)
    files = sorted({str(file) for file in weight_map.values()})
    # An index is untrusted: a name that leaves the folder would open any file of the machine.
    strange = [
        file for file in files if Path(file).name != file or not file.endswith(".safetensors")
    ]
    if strange:
        raise CheckpointError(f"{INDEX_FILE} of {folder} names {shortened(strange)}.", _FETCH)
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise CheckpointError(
            f"{INDEX_FILE} of {folder} names {len(files)} shards, {len(missing)} are missing: "
            f"{shortened(missing)}.",
            _FETCH,
        )
    shards = tuple(read_header(folder / file) for file in files)
    held = {shard.path.name: shard.shapes for shard in shards}
    absent = [name for name, file in weight_map.items() if name not in held[str(file)]]
    if absent:
        raise CheckpointError(
            f"{len(absent)} tensors are not in the shard that {INDEX_FILE} of {folder} names: "
            f"{shortened(sorted(absent))}.",
            _FETCH,
        )
    return shards


def _no_weights(folder: Path) -> CheckpointError:
    pickles = sorted(
        path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt", ".pth")
    )
    if pickles:
        return CheckpointError(
            f"{folder} holds its weights as {shortened(pickles)}; this version does not read them.",
            "use a revision or conversion of the checkpoint with *.safetensors files.",
        )
    return CheckpointError(
        f"{folder} holds no weights: no *.safetensors file.",
        "fetch the whole checkpoint; a plan needs its small files only, an answer needs all.",
    )
