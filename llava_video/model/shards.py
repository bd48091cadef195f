"""A checkpoint folder → the files its weights lie in, and what each of them holds, headers only.

Two kinds of file, read alike: safetensors, and torch's `.bin` where a folder has none of the first.
Checks that the files are there and whole before anything is allocated, and holds one of them mapped
at a time. Knows no model; imports no torch unless a `.bin` file or a tensor is read.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from safetensors import SafetensorError, safe_open

from llava_video.errors import CheckpointError
from llava_video.model.json_fields import read_json_object

if TYPE_CHECKING:
    from torch import Tensor

SINGLE_FILE: Final = "model.safetensors"
INDEX_FILE: Final = "model.safetensors.index.json"

# One row per kind, the first that a folder has: one file, the index, and what else may be a shard.
_KINDS = (
    (SINGLE_FILE, INDEX_FILE, "*.safetensors"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model*.bin"),
)
# Safetensors files that hold no model but a change of one.
_CHANGES = frozenset({"adapter_model.safetensors"})

_FETCH = "download the checkpoint again; an interrupted download leaves such a folder."
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of weights.

    Attributes:
        path: the file.
        shapes: the shape of every tensor in it, by name.
        dtypes: the dtype of every tensor, as safetensors spells it ("BF16").
        stored: the name in the file of a tensor that goes by another name here.
        notes: texts that a safetensors file holds beside its tensors.
    """

    path: Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    stored: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def renamed(self, rename: Callable[[str], str | None]) -> "Shard":
        """Return the same file with its tensors under other names.

        Args:
            rename: the name so far → the new one; None leaves the tensor out.
        """
        names = {name: rename(name) for name in self.shapes}
        kept = {name: new for name, new in names.items() if new is not None}
        return replace(
            self,
            shapes={new: self.shapes[name] for name, new in kept.items()},
            dtypes={new: self.dtypes[name] for name, new in kept.items()},
            stored={new: self.stored.get(name, name) for name, new in kept.items()},
        )


Place = tuple[Shard, str]  # a tensor: its file, and its name there


class ShardReader:
    """Reads tensors of shards of either kind, with one file mapped at a time.

    A context manager; what it returns are views of the mapped file, to be copied before the next
    file is opened.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._get: Callable[[str], Tensor] | None = None
        self._close: Callable[..., Any] = lambda *_: None

    def read(self, shard: Shard, name: str) -> "Tensor":
        """Return one tensor, mapped, in the dtype it is stored in.

        Args:
            shard: from `find_shards` or `read_header`.
            name: as in `shard.shapes`.

        Raises:
            CheckpointError: the file has changed or is damaged.
        """
        if self._get is None or shard.path != self._path:
            self.close()
            self._open(shard.path)
        assert self._get is not None  # just opened
        return self._get(shard.stored.get(name, name))

    def close(self) -> None:
        """Let the file go."""
        self._close(None, None, None)
        self._path, self._get, self._close = None, None, lambda *_: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _open(self, path: Path) -> None:
        if path.suffix == ".bin":
            from llava_video.model.pickled import read_pickled

            tensors = read_pickled(path)
            self._get = lambda name: tensors[name].contiguous()
        else:
            try:
                opened: Any = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as cause:
                raise _damaged(path, cause) from cause
            self._get, self._close = opened.get_tensor, opened.__exit__
        self._path = path


def find_shards(folder: str | Path) -> tuple[Shard, ...]:
    """List a checkpoint's shards, in name order; safetensors where there are both kinds.

    Raises:
        CheckpointError: no weights, a shard missing or damaged, or tensors missing that the index
            promises.
    """
    paths, promised = _listed(Path(folder))
    shards = tuple(read_header(path) for path in paths)
    held = {shard.path.name: shard.shapes for shard in shards}
    absent = [name for name, file in promised.items() if name not in held[file]]
    if absent:
        raise CheckpointError(
            f"{len(absent)} tensors are not in the shard that the index of {folder} names: "
            f"{shortened(sorted(absent))}.",
            _FETCH,
        )
    return shards


def weight_paths(folder: str | Path) -> tuple[Path, ...]:
    """List the files of a checkpoint's weights, in name order, without opening any.

    Raises:
        CheckpointError: no weights, or a shard missing.
    """
    return _listed(Path(folder))[0]


def has_weights(folder: Path) -> bool:
    """Whether a folder holds a model's own weights, or part of them, of either kind."""
    return any(
        (folder / index).is_file() or _candidates(folder, pattern) for _, index, pattern in _KINDS
    )


def read_header(path: Path) -> Shard:
    """Read what one file holds.

    Raises:
        CheckpointError: when it is truncated, damaged, only a pointer to the real file, or a `.bin`
            with anything but tensors.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise CheckpointError(
                    f"{path} is a git-lfs pointer, not the file itself.", "run `git lfs pull`."
                )
        if path.suffix == ".bin":
            return _pickled_header(path)
        with safe_open(path, framework="np") as tensors:
            slices: dict[str, Any] = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - no mapping
            shapes = {name: tuple(one.get_shape()) for name, one in slices.items()}
            dtypes = {name: str(one.get_dtype()) for name, one in slices.items()}
            notes: dict[str, str] = dict(tensors.metadata() or {})
    except (OSError, SafetensorError) as cause:
        raise _damaged(path, cause) from cause
    return Shard(path=path, shapes=shapes, dtypes=dtypes, notes=notes)


def shortened(names: list[str], most: int = 4) -> str:
    """Join the first few names and say how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _listed(folder: Path) -> tuple[tuple[Path, ...], dict[str, str]]:
    """Return the files of the first kind that a folder has, and what its index promises of them."""
    for single, index, pattern in _KINDS:
        if (folder / single).is_file():
            return (folder / single,), {}
        if (folder / index).is_file():
            return _indexed(folder / index)
        paths = _candidates(folder, pattern)
        if len(paths) == 1:
            return (paths[0],), {}
        if paths:
            names = shortened([path.name for path in paths])
            raise CheckpointError(f"{folder} has {names}, but no {index}.", _FETCH)
    raise _no_weights(folder)


def _candidates(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.name not in _CHANGES)


def _indexed(index: Path) -> tuple[tuple[Path, ...], dict[str, str]]:
    """Return the shards an index names, and tensor → name of its shard."""
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map.", _FETCH)
    promised = {str(name): str(file) for name, file in weight_map.items()}
    files = sorted(set(promised.values()))
    # An index is untrusted: a name that leaves the folder would open any file of the machine.
    suffix = Path(index.name.removesuffix(".index.json")).suffix
    strange = [file for file in files if Path(file).name != file or not file.endswith(suffix)]
    if strange:
        raise CheckpointError(f"{index} names {shortened(strange)}.", _FETCH)
    missing = [file for file in files if not (index.parent / file).is_file()]
    if missing:
        raise CheckpointError(
            f"{index.name} of {index.parent} names {len(files)} shards, {len(missing)} are "
            f"missing: {shortened(missing)}.",
            _FETCH,
        )
    return tuple(index.parent / file for file in files), promised


def _pickled_header(path: Path) -> Shard:
    from llava_video.model.pickled import dtype_word, read_pickled

    tensors = read_pickled(path, is_header=True)
    return Shard(
        path=path,
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        dtypes={name: dtype_word(tensor.dtype) for name, tensor in tensors.items()},
    )


def _damaged(path: Path, cause: Exception) -> CheckpointError:
    size = f"{path.stat().st_size} bytes" if path.is_file() else "no file"
    return CheckpointError(f"{path} is truncated or damaged ({size}): {cause}.", _FETCH)


def _no_weights(folder: Path) -> CheckpointError:
    others = sorted(path.name for path in folder.glob("*") if path.suffix in (".pt", ".pth"))
    if others:
        return CheckpointError(
            f"{folder} holds its weights as {shortened(others)}; this version does not read them.",
            "use a revision or conversion of the checkpoint with *.safetensors files.",
        )
    return CheckpointError(
        f"{folder} holds no weights: no *.safetensors file and no pytorch_model*.bin.",
        "fetch the whole checkpoint; a plan needs its small files only, an answer needs all.",
    )
