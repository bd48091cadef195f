"""The family's recorded checkpoints: each parameter by hand from its files, and recorded logits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from model_runs import greedy, logits_of
from safetensors.torch import load_file
from torch import Tensor

from llava_video.errors import CheckpointError
from llava_video.model.checkpoint import load_model
from llava_video.model.llava import LlavaModel
from llava_video.model.matching import match_tensors
from llava_video.model.model_config import ModelConfig, read_model_config
from llava_video.model.names import our_names, parameter_shapes
from llava_video.model.sources import Sources, find_sources
from llava_video.model.weights import open_weights

CLIP_336 = "openai/clip-tiny-patch14-336"
LIMIT = 1e-4  # of logits that reach 12, in float32
MEAN = np.array((0.48145466, 0.4578275, 0.40821073), dtype=np.float32)[:, None, None]
STD = np.array((0.26862954, 0.26130258, 0.27577711), dtype=np.float32)[:, None, None]


@pytest.fixture
def family(shared: Path) -> Path:
    return shared / "golden" / "family"


def read(family: Path, name: str, base: str | None = None) -> tuple[Sources, ModelConfig]:
    sources = find_sources(family / name, base=base)
    return sources, read_model_config(sources.config_folder)


def load(family: Path, name: str, base: str | None = None) -> LlavaModel:
    sources, config = read(family, name, base)
    return load_model(sources, config=config, device="cpu", dtype=torch.float32)


def tensors_in(*folders: Path) -> dict[str, Tensor]:
    """Read every tensor of folders, whole, by its name in the file; later folders win."""
    found: dict[str, Tensor] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.safetensors")):
            found |= load_file(path)
        for path in sorted(folder.glob("*.bin")):
            found |= torch.load(path, weights_only=True)
    return {name: tensor.float() for name, tensor in found.items()}


def merged_by_hand(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Merge the recorded adapter: alpha 8, r 4, so twice B A, in double precision."""
    prefix = "base_model.model."
    merged = {n.removeprefix(prefix): t for n, t in tensors.items() if "lora_" not in n}
    for name in [n for n in tensors if n.endswith("lora_A.weight")]:
        module = name.removeprefix(prefix).removesuffix(".lora_A.weight")
        up, down = tensors[name.replace("lora_A", "lora_B")].double(), tensors[name].double()
        merged[f"{module}.weight"] = (merged[f"{module}.weight"].double() + 2 * up @ down).float()
    return merged


@pytest.mark.parametrize(
    ("name", "base", "tower"),
    [
        ("llava-v1-tiny", None, "openai/clip-tiny-patch14"),
        ("llava-v1.5-tiny", None, CLIP_336),
        ("llava-v1.6-tiny", None, None),
        ("LLaVA-NeXT-Video-tiny", None, None),
        ("llava-v1.5-tiny-lora", None, CLIP_336),
        ("llava-pretrain-tiny", "llava-v1.5-tiny", CLIP_336),
    ],
)
def test_every_parameter_is_the_one_of_the_files(family: Path, name: str, base, tower):
    sources, config = read(family, name, base)
    assert sources.tower == (None if tower is None else family / tower)
    folders = [family / tower] if tower else []
    folders += [sources.base] if sources.base else []
    tensors = tensors_in(*folders, sources.folder)
    merged = merged_by_hand(tensors)
    known = our_names(config.dimensions)
    expected = {known[n]: tensor for n, tensor in merged.items() if n in known}
    found = dict(load(family, name, base).named_parameters())
    assert set(found) == set(expected) == set(parameter_shapes(config.dimensions))
    exact = name != "llava-v1.5-tiny-lora"
    for ours, tensor in expected.items():
        torch.testing.assert_close(
            found[ours],
            tensor,
            atol=0 if exact else 1e-6,
            rtol=0,
            msg=lambda m, o=ours: f"{o}: {m}",
        )


@pytest.mark.parametrize("name", ["llava-v1.6-tiny", "LLaVA-NeXT-Video-tiny"])
def test_a_tower_inside_is_not_the_stock_one_it_names(family: Path, name: str):
    stock = load_file(family / CLIP_336 / "model.safetensors")
    found = load(family, name).vision_tower.position_embedding
    difference = found - stock["vision_model.embeddings.position_embedding.weight"]
    assert difference.abs().max() > 0.01


@pytest.mark.parametrize(
    ("name", "num_tower"), [("llava-mini-tiny", 0), ("llava-mini-hd-tiny", 37)]
)
def test_every_tensor_of_the_one_with_fusion_has_its_place(family: Path, name: str, num_tower: int):
    sources, config = read(family, name)
    parts = match_tensors(open_weights(sources, config.dimensions), config.dimensions).parts
    assert (sources.tower is not None) == bool(num_tower)
    assert sum(len(part.ours) for part in parts[1:]) == num_tower
    used = {ours for part in parts for ours in part.ours.values()}
    assert used == set(parameter_shapes(config.dimensions))
    assert any(ours.startswith("fusion.layers.0.") for ours in used)


def rows_of(model: LlavaModel, ids: np.ndarray, pixels: np.ndarray) -> Tensor:
    """Put the features of one tile in the place of -200 among the embeddings of the others."""
    (mark,) = np.flatnonzero(ids == -200)
    before, after = (
        model.language_model.embed(torch.from_numpy(part))
        for part in np.split(ids, [mark, mark + 1])[::2]
    )
    tile = torch.from_numpy(pixels).float()[None]
    return torch.cat([before, model.encode(tile)[0], after])


@pytest.mark.parametrize(
    ("case", "name", "base", "key"),
    [
        ("llava1_image", "llava-v1-tiny", None, "logits_last32"),
        ("llava15_image", "llava-v1.5-tiny", None, "logits"),
        ("llava15_lora", "llava-v1.5-tiny-lora", None, "logits_last16"),
        ("llava15_projector_only", "llava-pretrain-tiny", "llava-v1.5-tiny", "logits_last2"),
    ],
)
def test_recorded_logits(family: Path, case: str, name: str, base: str | None, key: str):
    golden = np.load(family / "cases" / f"{case}.npz")
    picture = golden if "pixel_values" in golden else np.load(family / "cases/llava15_image.npz")
    pixels = picture["pixel_values"]
    if "pixel_values_u8" in golden:
        pixels = (golden["pixel_values_u8"].astype(np.float32) / 255 - MEAN) / STD
    model = load(family, name, base)
    rows = rows_of(model, golden["input_ids"], pixels)
    expected = golden[key]
    found = logits_of(model, rows)[-len(expected) :].numpy()
    assert np.abs(found - expected).max() <= LIMIT
    assert np.abs(expected).max() > 2
    assert greedy(model, rows, 16) == golden["greedy_ids"].tolist()
    if base or "lora" in name:  # the base alone gives other numbers
        plain = load(family, "llava-v1.5-tiny")
        other = logits_of(plain, rows_of(plain, golden["input_ids"], pixels))[-len(expected) :]
        assert np.abs(other.numpy() - expected).max() > 100 * LIMIT


@pytest.mark.parametrize(
    ("weights", "config", "tower", "found"),
    [
        ("llava-mini-tiny", "llava-v1.5-tiny", None, "those of LLaVA-Mini: model.compressor"),
        ("llava-v1-tiny", "llava-v1.5-tiny", CLIP_336, "those of LLaVA, the first (a projector"),
        ("llava-v1.6-tiny", "llava-mini-tiny", None, "those of LLaVA-NeXT or one of its kin"),
    ],
)
def test_the_weights_of_one_member_with_the_configuration_of_another(
    family: Path, tmp_path: Path, weights: str, config: str, tower: str | None, found: str
):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for path in (family / weights).iterdir():
        if path.suffix in (".safetensors", ".bin") or "index" in path.name:
            (folder / path.name).symlink_to(path)
    (folder / "config.json").symlink_to(family / config / "config.json")
    mixed = read_model_config(folder, tower=family / CLIP_336)
    with pytest.raises(CheckpointError, match=r"do not fit its config\.json") as caught:
        load_model(folder, config=mixed, vision_tower=tower and family / tower)
    assert "unknown: " in caught.value.message or "missing: " in caught.value.message
    assert found in caught.value.hint
