"""Tensors are written one at a time, as others read them, and read back bit for bit."""

import json
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from llava_video.errors import CheckpointError
from llava_video.model.shards import INDEX_FILE, find_shards
from llava_video.model.tensor_files import Entry, check_shards, write_shards

TENSORS = {
    "a": torch.arange(7, dtype=torch.float32).bfloat16(),
    "b": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)),
    "c": torch.zeros(0, 4),
    "d": torch.tensor(2.5),
    "e": torch.arange(24.0).reshape(2, 3, 4).transpose(0, 2),
    "f": torch.tensor([float("nan"), -0.0, float("inf")], dtype=torch.float16),
}


def entries(tensors: dict[str, Tensor] = TENSORS) -> list[Entry]:
    return [
        Entry(name, tuple(tensor.shape), tensor.dtype, lambda tensor=tensor: tensor)
        for name, tensor in tensors.items()
    ]


def same(left: Tensor, right: Tensor) -> bool:
    """Compare bits: a NaN equals itself, and zero has a sign."""
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and (
            left.contiguous().reshape(-1).view(torch.uint8).tolist()
            == right.contiguous().reshape(-1).view(torch.uint8).tolist()
        )
    )


@pytest.mark.parametrize("shard_bytes", [10**9, 64, 1])
def test_others_read_what_was_written(tmp_path: Path, shard_bytes: int) -> None:
    checksums = write_shards(tmp_path, entries(), shard_bytes)
    paths = sorted(tmp_path.glob("*.safetensors"))
    stored = {name: tensor for path in paths for name, tensor in load_file(path).items()}
    assert stored.keys() == TENSORS.keys()
    assert all(same(stored[name], tensor) for name, tensor in TENSORS.items())
    check_shards(paths, entries(), checksums)
    assert len({path.name for path in paths}) == len(find_shards(tmp_path))
    assert (tmp_path / INDEX_FILE).exists() == (len(paths) > 1)


def test_numbers_stand_where_they_can_be_mapped(tmp_path: Path) -> None:
    # Seven numbers of two bytes before one of four: as given, it would begin at byte 14.
    write_shards(tmp_path, entries(), 10**9)
    content = (tmp_path / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    for name, tensor in TENSORS.items():
        assert header[name]["data_offsets"][0] % tensor.dtype.itemsize == 0


def test_one_tensor_is_in_memory_at_a_time(tmp_path: Path) -> None:
    held: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def read() -> Tensor:
        alive.append(sum(one() is not None for one in held))
        tensor = torch.zeros(4)
        held.append(weakref.ref(tensor))
        return tensor

    write_shards(tmp_path, [Entry(f"{idx}", (4,), torch.float32, read) for idx in range(5)], 32)
    assert alive == [0] * 5
    assert len(find_shards(tmp_path)) == 3  # two of 16 bytes each, and one


def test_a_tensor_that_is_not_what_was_announced_is_an_error(tmp_path: Path) -> None:
    wrong = Entry("a", (2,), torch.float32, lambda: torch.zeros(3))
    with pytest.raises(ValueError, match="not what was announced"):
        write_shards(tmp_path, [wrong], 10**9)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stored: stored | {"b": stored["b"] + 1e-6},
        lambda stored: stored | {"b": stored["b"].reshape(5, 3)},
        lambda stored: stored | {"b": stored["b"].half()},
        lambda stored: {name: one for name, one in stored.items() if name != "b"},
        lambda stored: stored | {"d": -stored["d"]},
    ],
)
def test_what_is_not_there_as_written_is_noticed(tmp_path: Path, spoil) -> None:
    checksums = write_shards(tmp_path / ".", entries(), 10**9)
    write_shards(tmp_path, entries(spoil(dict(TENSORS))), 10**9)
    with pytest.raises(CheckpointError, match="1 tensors were written otherwise"):
        check_shards([tmp_path / "model.safetensors"], entries(), checksums)


def test_a_file_that_cannot_be_read_back_is_an_error(tmp_path: Path) -> None:
    checksums = write_shards(tmp_path, entries(), 10**9)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="cannot be read back"):
        check_shards([path], entries(), checksums)
