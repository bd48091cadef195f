"""Tensors that come one by one → safetensors files, and the proof that they lie there.

What a file will hold is known before its first tensor is there, so only one of them is in memory at
a time. Knows no model.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch
from torch import Tensor

from llava_video.errors import CheckpointError
from llava_video.model.shards import INDEX_FILE, SINGLE_FILE, shortened

DTYPES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int8: "I8",
    torch.uint8: "U8",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor that will be written.

    Attributes:
        name: its name in the file.
        shape: of it.
        dtype: of it.
        read: returns it, on any device; called once, when its turn comes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor] = field(repr=False, compare=False)

    @property
    def num_bytes(self) -> int:
        """Its size in the file."""
        return prod(self.shape) * self.dtype.itemsize


def write_shards(folder: Path, entries: Iterable[Entry], shard_bytes: int) -> dict[str, str]:
    """Write tensors to as many files as it takes, and an index where that is more than one.

    Args:
        folder: is there.
        entries: of one file they are asked for by size of a number, then by name.
        shard_bytes: largest size of one file; a larger tensor has a file of its own.

    Returns:
        The checksum of every tensor's bytes, by name.

    Raises:
        OSError: a file cannot be written. ValueError: a tensor is not what its entry says.
    """
    shards = _split(entries, shard_bytes)
    checksums: dict[str, str] = {}
    weight_map: dict[str, str] = {}
    for idx, shard in enumerate(shards):
        is_single = len(shards) == 1
        file = SINGLE_FILE if is_single else f"model-{idx + 1:05}-of-{len(shards):05}.safetensors"
        checksums |= _write_file(folder / file, shard)
        weight_map |= {entry.name: file for entry in shard}
    if len(shards) > 1:
        total_bytes = sum(entry.num_bytes for shard in shards for entry in shard)
        index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / INDEX_FILE).write_text(text, encoding="utf-8")
    return checksums


def check_shards(
    paths: Iterable[Path], entries: Iterable[Entry], checksums: Mapping[str, str]
) -> None:
    """Read files back and compare every tensor's name, shape, dtype and checksum.

    Args:
        paths: the files that `write_shards` wrote.
        entries: as they were given to it.
        checksums: what it returned.

    Raises:
        CheckpointError: they hold something else.
    """
    expected = {entry.name: (list(entry.shape), DTYPES[entry.dtype]) for entry in entries}
    wrong = []
    for path in paths:
        for name, facts, checksum in _read_back(path):
            if expected.pop(name, None) != facts or checksum != checksums[name]:
                wrong.append(name)
    wrong += expected
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} tensors were written otherwise than they were read: {shortened(wrong)}.",
            "check the disk and the memory of this machine, and write it again.",
        )


def _read_back(path: Path) -> Iterator[tuple[str, tuple[list[int], str], str]]:
    """Yield name, (shape, dtype) and checksum of every tensor of a file.

    Read and not mapped: a mapping would stay in memory, tensor after tensor.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            for name, facts in header.items():
                if name == "__metadata__":
                    continue
                start, stop = facts["data_offsets"]
                file.seek(8 + length + start)
                content = file.read(stop - start)
                if len(content) < stop - start:
                    raise ValueError(f"it ends inside {name}")
                yield name, (facts["shape"], facts["dtype"]), _checksum(content)
    except (OSError, ValueError) as cause:
        raise CheckpointError(
            f"{path} cannot be read back: {cause}.", "check the disk, and write it again."
        ) from cause


def write_header(file: BinaryIO, header: Mapping[str, Any]) -> None:
    """Write the eight bytes of the header's length, and the header, padded with blanks to eight."""
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)


def _split(entries: Iterable[Entry], shard_bytes: int) -> list[list[Entry]]:
    shards: list[list[Entry]] = [[]]
    filled_bytes = 0
    for entry in entries:
        if shards[-1] and filled_bytes + entry.num_bytes > shard_bytes:
            shards.append([])
            filled_bytes = 0
        shards[-1].append(entry)
        filled_bytes += entry.num_bytes
    # Wide numbers first: behind an odd number of narrow ones they could not be mapped.
    return [
        sorted(shard, key=lambda entry: (-entry.dtype.itemsize, entry.name)) for shard in shards
    ]


def _write_file(path: Path, shard: Sequence[Entry]) -> dict[str, str]:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    stop = 0
    for entry in shard:
        start, stop = stop, stop + entry.num_bytes
        header[entry.name] = {
            "dtype": DTYPES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [start, stop],
        }
    with path.open("wb") as file:
        write_header(file, header)
        return {entry.name: _write_tensor(file, entry) for entry in shard}


def _write_tensor(file: BinaryIO, entry: Entry) -> str:
    tensor = entry.read()
    if (tuple(tensor.shape), tensor.dtype) != (entry.shape, entry.dtype):
        found = f"{list(tensor.shape)} of {tensor.dtype}"
        raise ValueError(f"{entry.name} is {found}, not what was announced.")
    content = _raw(tensor)
    file.write(content)
    return _checksum(content)


def _raw(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor, as a file holds them."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def _checksum(content: memoryview | bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
