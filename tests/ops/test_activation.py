"""Each activation is its formula, in place where nothing needs the input again."""

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from llava_video.ops import activation
from llava_video.ops.activation import (
    Activation,
    activate,
    activate_reference,
    gated_silu,
    gated_silu_reference,
)


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def gelu_tanh(x: float) -> float:
    return x * 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def quick_gelu(x: float) -> float:
    return x / (1 + math.exp(-1.702 * x))


FORMULAS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "quick_gelu": quick_gelu}
POINTS = torch.linspace(-6, 6, 97, dtype=torch.float64)


def test_every_activation_has_a_formula():
    assert set(FORMULAS) == set(get_args(Activation))


@pytest.mark.parametrize("kind", get_args(Activation))
def test_equals_its_formula(kind: Activation):
    expected = torch.tensor([FORMULAS[kind](x) for x in POINTS.tolist()], dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(activate(POINTS.clone(), kind), expected, atol=1e-12)
    assert torch.allclose(activate(POINTS, kind), expected, atol=1e-12)
    for other in FORMULAS:  # the wrong one is at least 3e-4 off somewhere
        if other != kind:
            assert not torch.allclose(activate(POINTS, other), expected, atol=3e-4)


@pytest.mark.parametrize("kind", get_args(Activation))
def test_works_in_place_without_gradients(kind: Activation):
    x = torch.randn(5)
    with torch.inference_mode():
        assert activate(x, kind).data_ptr() == x.data_ptr()


SHAPES = [(577, 4096), (2, 13, 61), (1,), (), (0, 7), (3, 40)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_quick_gelu_in_parts_has_the_references_bits(
    shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(activation, "_PART", 100 * 4096)
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(7)) * 3).to(dtype)
    x = x[:, ::2] if shape == (3, 40) else x  # with gaps
    expected = activate_reference(x, "quick_gelu")
    with torch.inference_mode():
        assert torch.equal(activate(x.clone(), "quick_gelu"), expected)
        if x.numel() > 100:  # the same function, otherwise rounded
            assert not torch.equal(F.silu(1.702 * x) / 1.702, expected)


def test_the_quick_gelu_is_transformers():
    from transformers.activations import ACT2FN

    x = torch.randn(1000, generator=torch.Generator().manual_seed(2)) * 4
    assert torch.equal(activate_reference(x, "quick_gelu"), ACT2FN["quick_gelu"](x))


def test_leaves_its_input_alone_with_gradients():
    x = torch.randn(5, requires_grad=True)
    before = x.detach().clone()
    activate(x * 1, "gelu").sum().backward()
    gated_silu(x * 1, x * 2).sum().backward()
    assert torch.equal(x.detach(), before)
    assert x.grad is not None


def test_gated_silu_is_the_product():
    gate, up = torch.randn(3, 7), torch.randn(3, 7)
    expected = gated_silu_reference(gate, up)
    assert torch.allclose(expected, gate * torch.sigmoid(gate) * up, atol=1e-6)
    with torch.inference_mode():
        result = gated_silu(gate.clone(), up)
        assert torch.allclose(result, expected, atol=1e-6)
        # GELU instead of SiLU is noticed.
        assert not torch.allclose(activate(gate.clone(), "gelu") * up, expected, atol=1e-6)


def test_an_unknown_activation_is_refused():
    with torch.inference_mode(), pytest.raises(ValueError, match="'swish'"):
        activate(torch.zeros(1), "swish")
