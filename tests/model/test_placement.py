"""Where parameters go: one device, or layers shared among GPUs, by arithmetic alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from memory_trace import MINI_8B

from llava_video.errors import CapacityError
from llava_video.model.dimensions import ModelDimensions, TextConfig, VisionConfig
from llava_video.model.llava import LlavaModel
from llava_video.model.names import num_parameters
from llava_video.model.placement import place, spread, weights_bytes
from llava_video.model.quantize import quantise_decoder

LARGE = ModelDimensions(
    vision=VisionConfig(),
    text=TextConfig(
        hidden_size=8192,
        intermediate_size=29_568,
        num_layers=80,
        num_heads=64,
        num_kv_heads=8,
        head_dim=128,
        vocab_size=152_064,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        max_positions=32_768,
        tie_embeddings=False,
    ),
)


@pytest.fixture(scope="module")
def large() -> LlavaModel:
    with torch.device("meta"):
        return LlavaModel(LARGE)


def test_one_device_takes_everything(large: LlavaModel):
    where = place(large, "cpu", torch.float32)
    assert {where(name) for name, _ in large.named_parameters()} == {torch.device("cpu")}


def test_auto_without_a_gpu_is_the_cpu(large: LlavaModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert place(large, "auto", torch.float32)("image_newline") == torch.device("cpu")


@pytest.mark.parametrize(("free_gib", "num_used"), [(300, 1), (80, 2)])
def test_auto_shares_only_what_one_gpu_cannot_hold(
    large: LlavaModel, monkeypatch: pytest.MonkeyPatch, free_gib: int, num_used: int
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free_gib * 2**30, free_gib * 2**30))
    where = place(large, "auto", torch.bfloat16)
    assert len({where(name) for name, _ in large.named_parameters()}) == num_used


def test_layers_stay_whole_and_in_order(large: LlavaModel):
    where = spread(large, dict.fromkeys(range(4), 48 * 2**30), torch.bfloat16)
    devices = {name: where(name) for name, _ in large.named_parameters()}
    assert {device.type for device in devices.values()} == {"cuda"}
    assert {device.index for device in devices.values()} == {0, 1, 2, 3}
    by_layer = [
        {devices[name] for name in devices if name.startswith(f"language_model.layers.{idx}.")}
        for idx in range(80)
    ]
    assert all(len(found) == 1 for found in by_layer)
    order = [next(iter(found)).index for found in by_layer]
    assert order == sorted(order)
    used_bytes = [0] * 4
    for name, parameter in large.named_parameters():
        used_bytes[devices[name].index] += parameter.numel() * 2
    assert max(used_bytes) <= 48 * 2**30
    # As even as whole layers allow: no GPU but the last has twice another's share.
    assert max(used_bytes[:-1]) < 1.3 * min(used_bytes[:-1])


def test_what_does_not_fit_is_refused_with_the_numbers(large: LlavaModel):
    with pytest.raises(CapacityError, match=r"136\.\d GiB, 2 GPUs have 80\.0 GiB free") as caught:
        spread(large, {0: 40 * 2**30, 1: 40 * 2**30}, torch.bfloat16)
    assert "device='cpu'" in caught.value.hint


def test_bytes_are_counted_in_the_asked_dtype(large: LlavaModel):
    assert weights_bytes(large, torch.bfloat16) == 2 * num_parameters(LARGE)
    assert weights_bytes(large, torch.float32) == 4 * num_parameters(LARGE)


def test_a_tied_model_is_shared_too(tmp_path: Path):
    tied = replace(LARGE, text=replace(LARGE.text, tie_embeddings=True, num_layers=8))
    with torch.device("meta"):
        model = LlavaModel(tied)
    where = spread(model, {0: 9 * 2**30, 1: 14 * 2**30}, torch.bfloat16)
    assert {where(name).index for name, _ in model.named_parameters()} == {0, 1}


@pytest.mark.parametrize(
    ("weight_format", "layer_gib", "num_used"), [("plain", 1.635, 2), ("int4", 0.434, 1)]
)
def test_quantised_weights_are_counted_as_they_are_stored(
    monkeypatch: pytest.MonkeyPatch, weight_format, layer_gib: float, num_used: int
):
    """By hand: a layer of 877,658,112 weights: 2 bytes each, or 17/32 with scales and zeros."""
    with torch.device("meta"):
        model = LlavaModel(LARGE)
        quantise_decoder(model, weight_format)
    layer = model.language_model.layers[0]
    assert weights_bytes(layer, torch.bfloat16) / 2**30 == pytest.approx(layer_gib, abs=0.001)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (80 * 2**30, 80 * 2**30))
    where = place(model, "auto", torch.bfloat16)
    assert len({where(name) for name, _ in model.named_parameters()}) == num_used


def test_quantised_layers_are_shared_evenly_and_whole():
    """Two GPUs of 26 GiB hold 40 GiB of int4 weights; plain ones need 136."""
    with torch.device("meta"):
        model = LlavaModel(LARGE)
        quantise_decoder(model, "int4")
    where = spread(model, dict.fromkeys(range(2), 26 * 2**30), torch.bfloat16)
    used_bytes = [0, 0]
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        used_bytes[where(name).index] += (
            tensor.numel() * tensor.itemsize // (2 if tensor.dtype is torch.float32 else 1)
        )
    assert sum(used_bytes) == weights_bytes(model, torch.bfloat16)
    assert max(used_bytes) <= 26 * 2**30
    buffers = {name: where(name) for name, _ in model.named_buffers()}
    by_layer = [
        {buffers[name] for name in buffers if name.startswith(f"language_model.layers.{idx}.")}
        for idx in range(80)
    ]
    assert all(len(found) == 1 for found in by_layer)


@pytest.mark.parametrize("free_gib", [(12, 12), (2, 30), (1, 12, 12), (8, 8, 8), (6, 6, 6, 6, 6)])
def test_tower_projector_and_fusion_are_never_split(free_gib: tuple[int, ...]):
    """LLaVA-Mini of 8B: a tower of 0.6 GB, four layers more of 1.8 GB, and 16.1 GB."""
    with torch.device("meta"):
        model = LlavaModel(MINI_8B)
    where = spread(model, {i: gib * 2**30 for i, gib in enumerate(free_gib)}, torch.bfloat16)
    for part in ("vision_tower", "projector", "fusion"):
        found = {where(f"{part}.{name}") for name, _ in getattr(model, part).named_parameters()}
        assert len(found) == 1, part
