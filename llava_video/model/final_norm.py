"""A checkpoint folder → how large the weight of its language model's last norm is.

One small tensor tells a model from the differences to one: a norm that multiplies is of order 1,
the change of one is near 0. Imports no torch unless the weights are `.bin` files.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from llava_video.errors import CheckpointError
from llava_video.model.names import final_norm_names
from llava_video.model.shards import Shard, ShardReader, read_header, weight_paths

_Numbers = np.ndarray[Any, np.dtype[Any]]

_READ: Final[dict[str, Callable[[bytes], _Numbers]]] = {
    "F64": lambda raw: np.frombuffer(raw, "<f8"),
    "F32": lambda raw: np.frombuffer(raw, "<f4"),
    "F16": lambda raw: np.frombuffer(raw, "<f2"),
    # The upper half of a float32, which NumPy has no word for.
    "BF16": lambda raw: (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4"),
}


def final_norm_size(folder: Path) -> float | None:
    """Return the mean of the absolute numbers in the weight of the last norm.

    Args:
        folder: a checkpoint's.

    Returns:
        None where the weights are not all here, cannot be read, or have no such tensor: loading
        them says why.
    """
    try:
        for path in reversed(weight_paths(folder)):  # it stands at the end
            shard = read_header(path)
            name = next(iter(final_norm_names() & shard.shapes.keys()), None)
            if name is not None:
                return _mean_size(shard, name)
    except CheckpointError:
        return None
    return None


def _mean_size(shard: Shard, name: str) -> float | None:
    if shard.path.suffix == ".bin":
        with ShardReader() as reader:
            return float(reader.read(shard, name).float().abs().mean())
    if shard.dtypes[name] not in _READ:
        return None
    numbers = _READ[shard.dtypes[name]](_bytes_of(shard.path, name))
    return float(np.abs(numbers.astype(np.float64)).mean())


def _bytes_of(path: Path, name: str) -> bytes:
    """Read one tensor of a safetensors file whose header is known to be whole."""
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        start, end = json.loads(file.read(header_bytes))[name]["data_offsets"]
        file.seek(8 + header_bytes + start)
        return file.read(end - start)
