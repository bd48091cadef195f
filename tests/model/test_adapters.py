"""What an adapter changes, and whether the model it is put over is the one it was trained over."""

import logging
import shutil
from pathlib import Path

import overlay_cases as cases
import pytest
import torch
from safetensors.torch import save_file

from llava_video.errors import CheckpointError
from llava_video.model.adapters import (
    TRAINED_OVER,
    adapter_of,
    base_digest,
    is_beside,
    stored_dtypes,
)
from llava_video.model.dimensions import ModelDimensions
from llava_video.model.matching import match_tensors
from llava_video.model.model_config import read_model_config
from llava_video.model.shards import find_shards
from llava_video.model.sources import find_sources
from llava_video.model.tiny import write_tiny_checkpoint
from llava_video.model.weights import open_weights

Q_WEIGHT = "language_model.layers.0.q_proj.weight"
LINEAR = "model.mm_projector.0"


@pytest.fixture
def base(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "base"))


@pytest.fixture
def dimensions(tiny_folder: Path) -> ModelDimensions:
    return read_model_config(tiny_folder).dimensions


def write_told(base: Path, target: Path, notes: dict[str, str] | None) -> Path:
    """Write an adapter whose file tells what it was trained over."""
    down, up = cases.low_rank(4, 64, 64, 1)
    folder = cases.write_adapter(base, target, {cases.Q_PROJ: (down, up)})
    (folder / "adapter_model.bin").unlink()
    names = {side: f"base_model.model.{cases.Q_PROJ}.lora_{side}.weight" for side in "AB"}
    save_file({names["A"]: down, names["B"]: up}, folder / "adapter_model.safetensors", notes)
    return folder


def test_only_a_decoders_layers_take_a_change_beside_them():
    assert is_beside(Q_WEIGHT)
    assert not is_beside("language_model.lm_head.weight")
    assert not is_beside("vision_tower.layers.0.q_proj.weight")
    assert not is_beside("fusion.layers.0.q_proj.weight")


def test_the_numbers_beside_by_hand(base: Path, tmp_path: Path, dimensions: ModelDimensions):
    pairs = {
        cases.Q_PROJ: cases.low_rank(4, 64, 64, 1),
        cases.DOWN_PROJ: cases.low_rank(4, 64, 128, 2),
        LINEAR: cases.low_rank(4, 64, dimensions.vision.hidden_size, 3),
    }
    folder = cases.write_adapter(base, tmp_path / "adapter", pairs)
    sources = find_sources(folder)
    adapter = adapter_of(sources, dimensions)
    assert adapter is not None
    assert (len(adapter.pairs), adapter.scale, adapter.rank) == (3, 2.0, 4)
    # 4 (64 + 64) and 4 (128 + 64); the projector's is merged whatever is asked.
    assert adapter.num_beside == 4 * (64 + 64) + 4 * (128 + 64)
    (folder / "adapter_model.bin").unlink()  # not fetched yet
    assert adapter_of(sources, dimensions) is None
    assert adapter_of(find_sources(base), dimensions) is None


@pytest.mark.parametrize(
    ("told", "found"), [("int4", "int4"), ("plain", "plain"), ("nf4", "plain")]
)
def test_how_the_base_was_stored_is_told(
    base: Path, tmp_path: Path, dimensions: ModelDimensions, told: str, found: str
):
    folder = write_told(base, tmp_path / "adapter", {TRAINED_OVER: f"{told} 0a1b"})
    adapter = adapter_of(find_sources(folder), dimensions)
    assert adapter is not None
    assert adapter.base_weights == found


def test_a_digest_tells_numbers_apart_and_not_precisions(
    base: Path, tmp_path: Path, dimensions: ModelDimensions
):
    def digest(folder: Path, *names: str) -> str:
        return base_digest(names, find_shards(folder), dimensions)

    whole = cases.stored(base)
    told = digest(base, Q_WEIGHT)
    rounded = {name: tensor.bfloat16() for name, tensor in whole.items()}
    assert digest(cases.write_model(base, tmp_path / "half", rounded), Q_WEIGHT) == told
    other = whole[f"{cases.Q_PROJ}.weight"].clone()
    other[0, 5] *= 1.1
    tuned = cases.write_model(base, tmp_path / "tuned", whole | {f"{cases.Q_PROJ}.weight": other})
    assert digest(tuned, Q_WEIGHT) != told
    down = "language_model.layers.1.down_proj.weight"
    assert digest(tuned, down) == digest(base, down)
    # The order of the files is no part of it.
    one, two = (dict(sorted(whole.items())[idx::2]) for idx in range(2))
    split = cases.write_model(base, tmp_path / "split", {})
    (split / "model.safetensors").unlink()
    index = {}
    for idx, part in enumerate((one, two), 1):
        file = f"model-{idx:05}-of-00002.safetensors"
        save_file({n: t.contiguous() for n, t in part.items()}, split / file)
        index |= dict.fromkeys(part, file)
    text = str({"weight_map": index}).replace("'", '"')
    (split / "model.safetensors.index.json").write_text(text)
    assert digest(split, Q_WEIGHT, down) == digest(base, Q_WEIGHT, down)


def test_a_base_with_other_numbers_is_refused(
    base: Path, tmp_path: Path, dimensions: ModelDimensions
):
    told = base_digest([Q_WEIGHT], find_shards(base), dimensions)
    folder = write_told(base, tmp_path / "adapter", {TRAINED_OVER: f"plain {told}"})
    open_weights(find_sources(base, adapter=folder), dimensions)
    whole = {n: t + 0.5 if "q_proj" in n else t for n, t in cases.stored(base).items()}
    sibling = cases.write_model(base, tmp_path / "sibling", whole)
    with pytest.raises(CheckpointError, match="trained over other numbers") as caught:
        open_weights(find_sources(sibling, adapter=folder), dimensions)
    assert str(sibling) in caught.value.message
    assert "base= names another base" in caught.value.hint


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_copy_in_float16_is_worth_a_warning(
    base: Path,
    tmp_path: Path,
    dimensions: ModelDimensions,
    caplog: pytest.LogCaptureFixture,
    dtype: torch.dtype,
):
    """1e-6 is between two numbers of float16, 6e-8 apart there, and three digits of bfloat16."""
    whole = cases.stored(base)
    whole[f"{cases.Q_PROJ}.weight"][0, :8] = torch.arange(1, 9) * 1.234e-6
    whole = {name: tensor.to(dtype) for name, tensor in whole.items()}
    trained = cases.write_model(base, tmp_path / "trained", whole)
    shards = find_shards(trained)
    told = f"plain {base_digest([Q_WEIGHT], shards, dimensions)}"
    stored = stored_dtypes([Q_WEIGHT], shards, dimensions)
    assert stored == {torch.bfloat16: "BF16", torch.float32: "F32"}[dtype]
    half = {name: tensor.half() for name, tensor in whole.items()}
    rounded = cases.write_model(base, tmp_path / "half", half)
    folder = write_told(base, tmp_path / "adapter", {TRAINED_OVER: f"{told} {stored}"})
    with caplog.at_level(logging.WARNING):
        open_weights(find_sources(trained, adapter=folder), dimensions)
        assert caplog.text == ""
        open_weights(find_sources(rounded, adapter=folder), dimensions)
    assert f"trained over {stored} numbers" in caplog.text
    assert f"{rounded} in F16" in caplog.text
    # Others of its own dtype, or of one that rounds nothing away, are refused as before, and so is
    # a rounded one where the adapter does not say how its base was stored.
    for other in (torch.bfloat16, torch.float32):
        name = str(other).removeprefix("torch.")
        changed = {n: (t + 0.5 if "q_proj" in n else t).to(other) for n, t in whole.items()}
        sibling = cases.write_model(base, tmp_path / name, changed)
        with pytest.raises(CheckpointError, match="trained over other numbers"):
            open_weights(find_sources(sibling, adapter=folder), dimensions)
    silent = write_told(base, tmp_path / "silent", {TRAINED_OVER: told})
    with pytest.raises(CheckpointError, match="trained over other numbers"):
        open_weights(find_sources(rounded, adapter=silent), dimensions)


def test_a_base_of_another_name_is_worth_a_warning(
    base: Path, tmp_path: Path, dimensions: ModelDimensions, caplog: pytest.LogCaptureFixture
):
    folder = write_told(base, tmp_path / "adapter", None)
    renamed = shutil.copytree(base, tmp_path / "another")
    with caplog.at_level(logging.WARNING):
        open_weights(find_sources(base, adapter=folder), dimensions)
        assert caplog.text == ""
        open_weights(find_sources(renamed, adapter=folder), dimensions)
    assert "trained over 'base' and is put over" in caplog.text


def test_an_adapter_of_another_model_is_refused(base: Path, tmp_path: Path):
    """Its config.json says 96 channels, the base has 64."""
    other = write_tiny_checkpoint(tmp_path / "other", hidden_size=96)
    folder = cases.write_adapter(
        other, tmp_path / "a", {cases.Q_PROJ: cases.low_rank(4, 96, 96, 1)}
    )
    sources = find_sources(base, adapter=folder)
    config = read_model_config(sources.config_folder)
    with pytest.raises(CheckpointError, match="of a wrong shape") as caught:
        match_tensors(open_weights(sources, config.dimensions), config.dimensions)
    assert f"{folder} over {base}" in caught.value.message
    assert "belong together" in caught.value.hint
    (folder / "config.json").unlink()  # as PEFT writes it: the base's sizes are meant
    config = read_model_config(find_sources(base, adapter=folder).config_folder)
    with pytest.raises(CheckpointError, match=r"needed \[4, 64\]"):
        open_weights(sources, config.dimensions)
