"""What torchao is given means the same weights; its kernel itself needs a GPU."""

import sys
import types

import pytest
import torch
import torch.nn.functional as F
from kernels import error_of, limit_of

from llava_video import backends
from llava_video.errors import BackendMissingError
from llava_video.ops.quant_linear import quant_linear_reference
from llava_video.ops.torchao_linear import rearranged, suits_torchao, torchao_weight
from llava_video.ops.weight_format import StoredWeight, quantise_weight


def stored_noise(num_outputs: int = 13, num_inputs: int = 1152) -> StoredWeight:
    return quantise_weight(torch.randn(num_outputs, num_inputs), "int4")


def read(packed: torch.Tensor, scales_and_zeros: torch.Tensor, group: int) -> torch.Tensor:
    """Read what torch's packing takes, as its documentation says: even inputs above odd ones."""
    codes = torch.stack((packed >> 4, packed & 15), dim=-1).flatten(1).float()
    scales, zeros = scales_and_zeros.float().repeat_interleave(group, dim=0).unbind(dim=-1)
    return (codes - 8) * scales.T + zeros.T


@pytest.mark.parametrize(("num_outputs", "num_inputs"), [(13, 1152), (8, 1024), (1, 64), (16, 96)])
def test_the_rearranged_weight_is_the_same_one_and_zero_beyond(num_outputs: int, num_inputs: int):
    stored = stored_noise(num_outputs, num_inputs)
    packed, scales_and_zeros = rearranged(stored)
    wide = read(packed, scales_and_zeros, stored.group_inputs)
    assert packed.dtype is torch.uint8
    assert wide.shape[0] % 8 == wide.shape[1] % 1024 == 0
    assert torch.equal(wide[:num_outputs, :num_inputs], stored.plain(torch.float32))
    assert wide[num_outputs:].abs().sum() == wide[:, num_inputs:].abs().sum() == 0
    swapped = read((packed & 15) << 4 | packed >> 4, scales_and_zeros, stored.group_inputs)
    assert not torch.equal(swapped, wide)


def test_int8_is_not_rearranged():
    with pytest.raises(ValueError, match="not packed"):
        rearranged(quantise_weight(torch.ones(8, 128), "int8"))


def test_torchao_is_handed_codes_scales_groups_and_shape(monkeypatch: pytest.MonkeyPatch):
    quantization = types.ModuleType("torchao.quantization")
    quantization.Int4TilePackedTo4dTensor = lambda *args: args
    monkeypatch.setattr(backends, "require", lambda _: None)
    monkeypatch.setitem(sys.modules, "torchao", types.ModuleType("torchao"))
    monkeypatch.setitem(sys.modules, "torchao.quantization", quantization)
    aten = types.SimpleNamespace(_convert_weight_to_int4pack=lambda codes, tiles: (codes, tiles))
    monkeypatch.setattr(torch.ops, "aten", aten)
    stored = stored_noise()
    (packed, tiles), scales_and_zeros, block, shape = torchao_weight(stored)
    assert torch.equal(packed, rearranged(stored)[0])
    assert torch.equal(scales_and_zeros, rearranged(stored)[1])
    assert (tiles, block, shape) == (8, [1, 128], (13, 1152))


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends, "version", lambda _: None)
    with pytest.raises(BackendMissingError, match="torchao") as caught:
        torchao_weight(stored_noise())
    assert "llava_video[int4]" in caught.value.hint


def test_it_is_for_int4_bfloat16_and_a_gpu():
    assert not suits_torchao(stored_noise(), torch.bfloat16)  # a CPU


def test_torchaos_tensor_can_still_be_made_of_its_parts():
    """With the package: its constructor takes these parts, and pads to the same shape."""
    quantization = pytest.importorskip("torchao.quantization")
    tensor = quantization.Int4TilePackedTo4dTensor(
        torch.zeros(2, 16, 32, 4, dtype=torch.int32),
        rearranged(stored_noise())[1],
        [1, 128],
        torch.Size((13, 1152)),
    )
    assert tensor.shape == (13, 1152)
    assert tensor.dtype is torch.bfloat16


@pytest.mark.gpu
@pytest.mark.parametrize("num_rows", [1, 5, 70])
@pytest.mark.parametrize(("num_outputs", "num_inputs"), [(512, 3584), (130, 896)])
def test_its_product_is_ours(num_rows: int, num_outputs: int, num_inputs: int):
    pytest.importorskip("torchao.quantization")
    weight = torch.randn(num_outputs, num_inputs, device="cuda") * num_inputs**-0.5
    stored = quantise_weight(weight, "int4")
    x = torch.randn(num_rows, num_inputs, device="cuda", dtype=torch.bfloat16)
    wide = quant_linear_reference(x.float(), stored)
    assert suits_torchao(stored, x.dtype)
    y = F.linear(x, torchao_weight(stored))
    assert error_of(y, wide) <= limit_of(wide, quant_linear_reference(x, stored))
