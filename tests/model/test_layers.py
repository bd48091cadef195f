"""The layers are torch's own arithmetic, without torch's own initialisation."""

import pytest
import torch
from seeded_models import filled
from torch import nn

from llava_video.model.layers import LayerNorm, Linear, RmsNorm, add_residual, for_products


def test_linear_equals_torchs():
    ours, theirs = filled(Linear(6, 5)), nn.Linear(6, 5)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 6)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    assert Linear(6, 5, bias=False).bias is None


def test_layer_norm_equals_torchs():
    ours, theirs = filled(LayerNorm(7, 1e-6)), nn.LayerNorm(7, eps=1e-6)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 7)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_is_its_formula(dtype: torch.dtype):
    norm = filled(RmsNorm(9, 1e-5)).to(dtype)
    x = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    wide = x.double()
    exact = wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight.double()
    limit = torch.finfo(dtype).eps * exact.abs().max().item()
    assert (norm(x).double() - exact).abs().max().item() <= limit
    centred = wide - wide.mean(-1, keepdim=True)  # a layer norm instead is noticed
    mutant = (
        centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight.double()
    )
    assert (mutant - exact).abs().max().item() > limit


def test_layers_cost_nothing_on_the_meta_device():
    with torch.device("meta"):
        modules = [Linear(10**6, 10**6), LayerNorm(10**9, 1e-6), RmsNorm(10**9, 1e-6)]
    assert all(p.device.type == "meta" for module in modules for p in module.parameters())


def test_residuals_add_in_place_without_gradients_only():
    hidden, update = torch.randn(3), torch.randn(3)
    expected = hidden + update
    assert torch.equal(add_residual(hidden, update), expected)
    assert not torch.equal(hidden, expected)
    with torch.inference_mode():
        assert add_residual(hidden, update).data_ptr() == hidden.data_ptr()
    assert torch.equal(hidden, expected)


def test_what_products_read_is_rounded_once_under_autocast_only():
    x, linear = torch.randn(4, 6, requires_grad=True), filled(Linear(6, 5))
    assert for_products(x) is x
    assert for_products(torch.zeros(1, device="meta")).is_meta
    with torch.autocast("cpu", torch.bfloat16):
        rounded = for_products(x)
        assert rounded.dtype is torch.bfloat16
        assert torch.equal(linear(rounded), linear(x))
    (gradient,) = torch.autograd.grad(rounded.sum(), x)
    assert torch.equal(gradient, torch.ones(4, 6))
