"""Weights in and out: every spelling, strict, cast, onto the device, and back bit by bit."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from model_runs import logits_of
from safetensors.torch import load_file, save_file

from llava_video.errors import CapacityError, CheckpointError
from llava_video.model import checkpoint
from llava_video.model.checkpoint import load_model, save_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config, with_overrides
from llava_video.model.names import SPELLINGS, file_names, parameter_shapes
from llava_video.model.tiny import write_tiny_checkpoint

SINGLE = "model.safetensors"


def load(folder: Path, **options: object) -> LlavaModel:
    options = {"device": "cpu", "config": read_model_config(folder), **options}
    return load_model(folder, **options)


def tensors_of(model: LlavaModel) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters())


def assert_equal(one: LlavaModel, other: LlavaModel) -> None:
    ours, theirs = tensors_of(one), tensors_of(other)
    assert set(ours) == set(theirs)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def rewrite(folder: Path, target: Path, change) -> Path:
    """Copy a checkpoint with its named tensors changed."""
    shutil.copytree(folder, target)
    stored = load_file(target / SINGLE)
    save_file({name: t.contiguous() for name, t in change(dict(stored)).items()}, target / SINGLE)
    return target


def test_a_tiny_checkpoint_has_exactly_the_parameters_of_the_model(tiny_folder: Path):
    model = load(tiny_folder)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors_of(model).items()}
    assert shapes == parameter_shapes(read_model_config(tiny_folder).dimensions)
    assert not model.training
    assert not any(tensor.requires_grad for tensor in model.parameters())
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])


def test_golden_layouts_load_equal(shared: Path):
    golden = shared / "golden" / "onevision_video"
    original = load(golden / "model_a")
    assert len(tensors_of(original)) == 67  # 69 in the file, two of them the unused norm
    for name in ("model_a_hf", "model_a_hf_legacy"):
        assert_equal(load(golden / name), original)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_loads_equal(tiny_folder: Path, tmp_path: Path, spelling):
    dimensions = read_model_config(tiny_folder).dimensions
    stored = load_file(tiny_folder / SINGLE)
    ours = {theirs: ours for ours, theirs in file_names(dimensions, "original").items()}
    theirs = file_names(dimensions, spelling)
    renamed = {theirs[ours[name]]: tensor for name, tensor in stored.items() if name in ours}
    shutil.copytree(tiny_folder, tmp_path / "other")
    save_file(renamed, tmp_path / "other" / SINGLE)
    assert_equal(load(tmp_path / "other"), load(tiny_folder))


def test_tensors_that_are_known_and_not_needed_are_left_out(tiny_folder: Path, tmp_path: Path):
    tower = "model.vision_tower.vision_tower.vision_model"

    def with_extras(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return stored | {
            f"{tower}.head.probe": torch.zeros(1, 1, 32),
            f"{tower}.encoder.layers.2.mlp.fc1.weight": torch.zeros(64, 32),  # layers 0 and 1 run
            "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8),
            "model.faster_token": torch.zeros(64),
        }

    other = rewrite(tiny_folder, tmp_path / "other", with_extras)
    assert_equal(load(other), load(tiny_folder))


def test_a_file_without_head_is_tied_and_says_so(
    tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    def without_head(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        del stored["lm_head.weight"]
        return stored

    other = rewrite(tiny_folder, tmp_path / "other", without_head)
    with caplog.at_level(logging.WARNING):
        model = load(other)
    assert model.dimensions.text.tie_embeddings
    assert model.language_model.lm_head is None
    assert "no head" in caplog.text


def test_a_tie_in_the_configuration_beats_a_stored_head(tiny_folder: Path, tmp_path: Path):
    shutil.copytree(tiny_folder, tmp_path / "tied")
    path = tmp_path / "tied" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": True}))
    assert load(tmp_path / "tied").language_model.lm_head is None


def test_missing_unknown_and_wrong_tensors_are_all_named(tiny_folder: Path, tmp_path: Path):
    def broken(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        del stored["model.mm_projector.0.bias"]
        stored["model.vision_resampler.query"] = torch.zeros(3)
        stored["model.norm.weight"] = torch.ones(7)
        stored["model.image_newline"] = torch.zeros(64, dtype=torch.int8)
        stored["image_newline"] = torch.zeros(64)
        return stored

    other = rewrite(tiny_folder, tmp_path / "other", broken)
    with pytest.raises(CheckpointError) as caught:
        load(other)
    message = caught.value.message
    assert "1 unknown: model.vision_resampler.query" in message
    assert "1 missing: model.mm_projector.0.bias" in message
    assert "1 of a wrong shape: model.norm.weight is [7], config.json means [64]" in message
    assert "2 doubled: " in message
    assert "1 not floating point: model.image_newline (I8)" in message
    assert "config.json belongs to these weights" in caught.value.hint


def test_weights_of_another_size_are_refused_before_anything_is_allocated(
    tiny_folder: Path, tmp_path: Path
):
    config = with_overrides(read_model_config(tiny_folder), {"hidden_size": 128})
    with pytest.raises(CheckpointError, match="of a wrong shape") as caught:
        load(tiny_folder, config=config)
    assert "more" in caught.value.message  # the first few, not hundreds


def test_a_missing_shard_is_refused(tmp_path: Path):
    folder = write_tiny_checkpoint(tmp_path / "tiny", num_shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00003"):
        load(folder)


def test_a_truncated_shard_is_refused(tmp_path: Path):
    folder = write_tiny_checkpoint(tmp_path / "tiny", num_shards=2)
    path = folder / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        load(folder)


def test_a_separator_comes_from_the_files_or_from_the_caller(tiny_folder: Path, tmp_path: Path):
    slow_fast = with_overrides(
        read_model_config(tiny_folder), {"add_faster_video": True, "faster_token_stride": 4}
    )
    with pytest.raises(CheckpointError, match=r"1 missing: model\.faster_token"):
        load(tiny_folder, config=slow_fast)
    row = torch.arange(64.0)
    assert torch.equal(load(tiny_folder, config=slow_fast, extra={"separator": row}).separator, row)
    stored = write_tiny_checkpoint(tmp_path / "stored", slow_every=4)
    assert load(stored).separator.shape == (64,)


def test_shards_are_reported_as_they_come(tmp_path: Path):
    folder = write_tiny_checkpoint(tmp_path / "tiny", num_shards=3)
    seen: list[tuple[int, int]] = []
    load(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_are_cast_to_the_asked_dtype(tiny_folder: Path, dtype: torch.dtype):
    exact, cast = tensors_of(load(tiny_folder)), tensors_of(load(tiny_folder, dtype=dtype))
    assert {tensor.dtype for tensor in cast.values()} == {dtype}
    assert all(torch.equal(exact[name].to(dtype), cast[name]) for name in exact)


def test_the_stored_dtype_is_the_default(tmp_path: Path):
    folder = write_tiny_checkpoint(tmp_path / "tiny", dtype="bfloat16")
    assert load(folder).dtype == torch.bfloat16
    config = with_overrides(read_model_config(folder), {"torch_dtype": "int8"})
    with pytest.raises(CheckpointError, match="torch_dtype = 'int8'"):
        load(folder, config=config)


def test_the_model_does_not_depend_on_the_file_afterwards(tmp_path: Path):
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    model = load(folder)
    before = {name: tensor.clone() for name, tensor in tensors_of(model).items()}
    path = folder / SINGLE
    size_bytes = path.stat().st_size
    with path.open("r+b") as file:  # in place: a view of the mapped file would change with it
        file.seek(size_bytes // 2)
        file.write(b"\x00" * (size_bytes - size_bytes // 2))
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors_of(model).items())


@pytest.mark.parametrize(
    "cause",
    [
        torch.OutOfMemoryError("tried to allocate 1 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 GiB"),
        MemoryError("no room"),
    ],
)
def test_no_room_on_the_device_is_a_capacity_error(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, cause: Exception
):
    def full(*_: object) -> None:
        raise cause

    monkeypatch.setattr(checkpoint, "_load_part", full)
    with pytest.raises(CapacityError, match="does not fit") as caught:
        load(tiny_folder)
    assert "smaller checkpoint" in caught.value.hint
    assert caught.value.__cause__ is cause


def test_another_failure_of_loading_stays_what_it_is(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object) -> None:
        raise RuntimeError("device-side assert")

    monkeypatch.setattr(checkpoint, "_load_part", broken)
    with pytest.raises(RuntimeError, match="device-side assert"):
        load(tiny_folder)


@pytest.mark.parametrize("layout", ["original", "hf"])
@pytest.mark.parametrize(
    "options", [{}, {"tie_embeddings": True, "dtype": "bfloat16"}, {"slow_every": 2}]
)
def test_saving_and_loading_is_bit_equal(tmp_path: Path, layout: str, options):
    folder = write_tiny_checkpoint(tmp_path / "tiny", **options)
    config, model = read_model_config(folder), load(folder)
    target = save_model(
        model,
        tmp_path / "saved",
        config=config,
        layout=layout,
        shard_bytes=200_000,
        tokenizer_from=folder,
    )
    again = read_model_config(target)
    assert_equal(load(target), model)
    assert again.layout == layout
    assert (again.dimensions, again.visual) == (config.dimensions, config.visual)
    assert (target / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert len(list(target.glob("*.safetensors"))) > 1


def test_converting_there_and_back_gives_the_same_file(tiny_folder: Path, tmp_path: Path):
    config = read_model_config(tiny_folder)
    save_model(load(tiny_folder), tmp_path / "hf", config=config, layout="hf")
    hf_config = read_model_config(tmp_path / "hf")
    save_model(load(tmp_path / "hf"), tmp_path / "back", config=hf_config)
    assert (tmp_path / "back" / SINGLE).read_bytes() == (tiny_folder / SINGLE).read_bytes()


@pytest.mark.gpu
def test_weights_go_straight_to_the_gpu(tiny_folder: Path):
    on_gpu, on_cpu = tensors_of(load(tiny_folder, device="cuda")), tensors_of(load(tiny_folder))
    assert {tensor.device.type for tensor in on_gpu.values()} == {"cuda"}
    assert all(torch.equal(tensor.cpu(), on_cpu[name]) for name, tensor in on_gpu.items())


@pytest.mark.gpu
def test_layers_on_two_devices_give_the_same_logits(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def split(*_: object):
        last = ("language_model.layers.1.", "language_model.norm", "language_model.lm_head")
        return lambda name: torch.device("cpu" if name.startswith(last) else "cuda")

    whole = load(tiny_folder)
    monkeypatch.setattr(checkpoint, "place", split)
    shared_out = load(tiny_folder)
    assert {device.type for device in shared_out.language_model.devices} == {"cpu", "cuda"}
    ids = torch.arange(40)
    found = logits_of(shared_out, shared_out.language_model.embed(ids))
    expected = logits_of(whole, whole.language_model.embed(ids))
    torch.testing.assert_close(found.cpu(), expected, atol=1e-3, rtol=0)
