"""Files of a checkpoint folder: found, whole, and refused by name when they are not."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from llava_video.errors import CheckpointError
from llava_video.model.shards import (
    INDEX_FILE,
    SINGLE_FILE,
    Shard,
    ShardReader,
    find_shards,
    has_weights,
    read_header,
    shortened,
    weight_paths,
)


def write_file(path: Path, **tensors: torch.Tensor) -> Path:
    save_file(tensors or {"a": torch.zeros(2, 3)}, path)
    return path


def write_index(folder: Path, weight_map: object) -> None:
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")


def test_one_file(tmp_path: Path):
    write_file(tmp_path / SINGLE_FILE, a=torch.zeros(2, 3), b=torch.zeros(4, dtype=torch.bfloat16))
    (shard,) = find_shards(tmp_path)
    assert shard.path == tmp_path / SINGLE_FILE
    assert shard.shapes == {"a": (2, 3), "b": (4,)}
    assert shard.dtypes == {"a": "F32", "b": "BF16"}


def test_one_file_of_another_name(tmp_path: Path):
    write_file(tmp_path / "weights.safetensors")
    assert [shard.path.name for shard in find_shards(tmp_path)] == ["weights.safetensors"]


def test_an_index_and_its_shards(tmp_path: Path):
    write_file(tmp_path / "two.safetensors", b=torch.zeros(1))
    write_file(tmp_path / "one.safetensors", a=torch.zeros(1))
    write_file(tmp_path / "unlisted.safetensors", c=torch.zeros(1))
    write_index(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    shards = find_shards(tmp_path)
    assert [shard.path.name for shard in shards] == ["one.safetensors", "two.safetensors"]
    assert [list(shard.shapes) for shard in shards] == [["a"], ["b"]]


def test_a_shard_that_is_missing_is_named(tmp_path: Path):
    write_file(tmp_path / "one.safetensors", a=torch.zeros(1))
    write_index(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    with pytest.raises(
        CheckpointError, match=r"names 2 shards, 1 are missing: two\.safetensors"
    ) as e:
        find_shards(tmp_path)
    assert "download" in e.value.hint


def test_a_tensor_that_the_index_promises_and_no_shard_has_is_named(tmp_path: Path):
    write_file(tmp_path / "one.safetensors", a=torch.zeros(1))
    write_index(tmp_path, {"a": "one.safetensors", "b": "one.safetensors"})
    with pytest.raises(CheckpointError, match=r"1 tensors are not in the shard .*: b\."):
        find_shards(tmp_path)


@pytest.mark.parametrize(
    "weight_map",
    [
        {"a": "../outside.safetensors"},
        {"a": "/etc/passwd"},
        {"a": "sub/one.safetensors"},
        {"a": "one.bin"},
    ],
)
def test_an_index_cannot_leave_the_folder(tmp_path: Path, weight_map: dict[str, str]):
    write_file(tmp_path / "outside.safetensors")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    write_index(folder, weight_map)
    with pytest.raises(CheckpointError, match=weight_map["a"]):
        find_shards(folder)


@pytest.mark.parametrize("weight_map", [None, {}, [1]])
def test_an_index_without_a_map_is_an_error(tmp_path: Path, weight_map: object):
    write_index(tmp_path, weight_map)
    with pytest.raises(CheckpointError, match="no weight_map"):
        find_shards(tmp_path)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_an_error(tmp_path: Path, kept: int):
    path = write_file(tmp_path / SINGLE_FILE, a=torch.zeros(64, 64))
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    with pytest.raises(CheckpointError, match="truncated or damaged") as caught:
        find_shards(tmp_path)
    assert "interrupted download" in caught.value.hint


def test_a_git_lfs_pointer_is_recognised(tmp_path: Path):
    path = tmp_path / SINGLE_FILE
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(CheckpointError, match="git-lfs pointer") as caught:
        read_header(path)
    assert "git lfs pull" in caught.value.hint


@pytest.mark.parametrize("name", ["consolidated.pth", "model.pt"])
def test_other_pickles_are_not_read_and_the_error_says_so(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match=f"{name}; this version does not read them") as caught:
        find_shards(tmp_path)
    assert "safetensors" in caught.value.hint


def test_a_folder_without_weights_is_an_error(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="holds no weights"):
        find_shards(tmp_path)


def test_shards_without_their_index_are_an_error(tmp_path: Path):
    for name in ("a", "b"):
        write_file(tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match=f"no {INDEX_FILE}"):
        find_shards(tmp_path)


def test_long_lists_are_shortened():
    assert shortened(["a", "b"]) == "a, b"
    assert shortened(list("abcdef")) == "a, b, c, d and 2 more"


def write_pickled(path: Path, **tensors: torch.Tensor) -> Path:
    torch.save(tensors or {"a": torch.zeros(2, 3)}, path)
    return path


def read_all(shards: tuple[Shard, ...]) -> dict[str, torch.Tensor]:
    with ShardReader() as reader:
        return {n: reader.read(shard, n).clone() for shard in shards for n in shard.shapes}


@pytest.mark.parametrize(
    ("write", "name"), [(write_file, SINGLE_FILE), (write_pickled, "pytorch_model.bin")]
)
def test_both_kinds_are_read_alike(tmp_path: Path, write, name: str):
    stored = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}
    write(tmp_path / name, **stored)
    (shard,) = find_shards(tmp_path)
    assert shard.shapes == {"a": (2, 3), "b": (4,)}
    assert shard.dtypes == {"a": "F32", "b": "BF16"}
    found = read_all((shard,))
    assert all(torch.equal(found[name], tensor) for name, tensor in stored.items())


def test_pickled_shards_come_by_their_index(tmp_path: Path):
    write_pickled(tmp_path / "pytorch_model-00001-of-00002.bin", a=torch.zeros(1))
    write_pickled(tmp_path / "pytorch_model-00002-of-00002.bin", b=torch.ones(1))
    write_pickled(tmp_path / "training_args.bin", c=torch.ones(1))
    weight_map = {
        letter: f"pytorch_model-0000{idx}-of-00002.bin" for idx, letter in [(1, "a"), (2, "b")]
    }
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert list(read_all(find_shards(tmp_path))) == ["a", "b"]
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(CheckpointError, match="1 are missing: pytorch_model-00002-of-00002"):
        find_shards(tmp_path)


def test_safetensors_win_where_both_kinds_are_there(tmp_path: Path):
    write_file(tmp_path / SINGLE_FILE, a=torch.zeros(1))
    write_pickled(tmp_path / "pytorch_model.bin", b=torch.zeros(1))
    assert [path.name for path in weight_paths(tmp_path)] == [SINGLE_FILE]
    assert list(read_all(find_shards(tmp_path))) == ["a"]


def test_an_adapter_is_no_model(tmp_path: Path):
    write_file(tmp_path / "adapter_model.safetensors")
    assert not has_weights(tmp_path)
    with pytest.raises(CheckpointError, match="holds no weights"):
        weight_paths(tmp_path)
    write_pickled(tmp_path / "pytorch_model.bin")
    assert has_weights(tmp_path)


def test_renamed_tensors_are_read_by_their_new_names(tmp_path: Path):
    shard = read_header(write_file(tmp_path / SINGLE_FILE, a=torch.ones(1), b=torch.zeros(2)))
    again = shard.renamed(lambda name: {"a": "x"}.get(name)).renamed(lambda name: f"part.{name}")
    assert again.shapes == {"part.x": (1,)}
    assert again.dtypes == {"part.x": "F32"}
    assert torch.equal(read_all((again,))["part.x"], torch.ones(1))


def mapped_files() -> set[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {
        Path(line.split(maxsplit=5)[5]).name for line in lines if ".bin" in line or ".safet" in line
    }


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize(("write", "suffix"), [(write_file, "safetensors"), (write_pickled, "bin")])
def test_one_file_is_mapped_at_a_time(tmp_path: Path, write, suffix: str):
    big = torch.zeros(300_000)
    names = [f"{letter}.{suffix}" for letter in "xy"]
    shards = [read_header(write(tmp_path / name, a=big)) for name in names]
    assert not mapped_files() & set(names)  # a header leaves nothing mapped
    with ShardReader() as reader:
        for shard in shards:
            reader.read(shard, "a")
            assert mapped_files() & set(names) == {shard.path.name}
    assert not mapped_files() & set(names)


def test_a_file_that_changed_since_its_header_was_read_is_an_error(tmp_path: Path):
    shard = read_header(write_file(tmp_path / SINGLE_FILE))
    shard.path.write_bytes(b"")
    with ShardReader() as reader, pytest.raises(CheckpointError, match="truncated or damaged"):
        reader.read(shard, "a")
