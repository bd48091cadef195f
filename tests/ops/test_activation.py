"""Each activation is its formula, in place where nothing needs the input again."""

import math
from typing import get_args

import pytest
import torch

from llava_video.ops.activation import (
    Activation,
    activate,
    gated_silu,
    gated_silu_reference,
)


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def gelu_tanh(x: float) -> float:
    return x * 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


FORMULAS = {"gelu": gelu, "gelu_tanh": gelu_tanh}
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


def test_works_in_place_without_gradients():
    x = torch.randn(5)
    with torch.inference_mode():
        assert activate(x, "gelu_tanh").data_ptr() == x.data_ptr()


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
