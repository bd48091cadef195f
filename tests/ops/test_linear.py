"""The fast product equals the plain one, on both sides of every choice it makes."""

import pytest
import torch

from llava_video.ops import linear as linear_module
from llava_video.ops.linear import linear, linear_reference


def tolerance(exact: torch.Tensor) -> float:
    """4e-6 of the largest value: oneDNN adds in longer runs and errs up to 5 times MKL."""
    return 4e-6 * exact.abs().max().item()


SHAPES = [
    (1458, 1152, 1152),  # a pair of tiles of the real tower
    (31, 521, 509),  # primes
    (1, 512, 1024),  # one row, wide
    (1, 1024, 512),  # one row, doubled
    (2, 512, 512),
    (1, 1, 1),
    (7, 48, 48),  # small: stays with torch's product
]


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("rows", "k", "n"), SHAPES)
def test_equals_the_reference(rows: int, k: int, n: int, with_bias: bool):
    torch.manual_seed(rows + k)
    x, weight = torch.randn(rows, k), torch.randn(n, k)
    bias = torch.randn(n) if with_bias else None
    exact = linear_reference(x.double(), weight.double(), None if bias is None else bias.double())
    limit = tolerance(exact)
    with torch.inference_mode():
        y = linear(x, weight, bias)
    assert y.shape == (rows, n)
    assert y.is_contiguous()
    assert (y - exact).abs().max().item() <= limit
    if with_bias:  # the mutant without the bias is seen by this limit
        assert (y - bias - exact).abs().max().item() > limit


def test_very_many_outputs_of_one_row():
    torch.manual_seed(0)
    x, weight = torch.randn(1, 16), torch.randn(70_000, 16)
    with torch.inference_mode():
        y = linear(x, weight)
    assert y.shape == (1, 70_000)
    assert torch.allclose(y, linear_reference(x, weight), atol=1e-5)


def test_oneDNN_takes_large_float32_products_only():
    suits = linear_module._suits_onednn
    x, weight = torch.randn(64, 512), torch.randn(512, 512)
    with torch.inference_mode():
        assert suits(x, weight)
        assert not suits(x.bfloat16(), weight.bfloat16())
        assert not suits(x[:0], weight)
        assert not suits(x[:, :48].contiguous(), weight[:48, :48].contiguous())
        assert not suits(torch.randn(512, 64).T, weight)
    assert suits(x, weight)  # with gradients too
    with torch.autocast("cpu", torch.bfloat16):
        assert not suits(x, weight)  # which wants 16 bits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_and_more_axes(dtype: torch.dtype):
    x, weight = torch.randn(2, 3, 32, dtype=dtype), torch.randn(8, 32, dtype=dtype)
    with torch.inference_mode():
        assert torch.equal(linear(x, weight), linear_reference(x, weight))


def test_more_axes_in_float32():
    torch.manual_seed(3)
    x, weight = torch.randn(2, 40, 640), torch.randn(640, 640)
    with torch.inference_mode():
        y = linear(x, weight)
    assert y.shape == (2, 40, 640)
    assert torch.allclose(y, linear_reference(x, weight), atol=2e-4)


def test_gradients_flow():
    x = torch.randn(64, 512, requires_grad=True)
    weight = torch.randn(512, 512)
    linear(x, weight).sum().backward()
    assert torch.allclose(x.grad, weight.sum(0).expand(64, 512), atol=1e-3)


@pytest.mark.parametrize("axes", [(96,), (4, 24)])
@pytest.mark.parametrize("learned", ["x", "weight", "bias", "all"])
def test_gradients_are_the_references(axes: tuple[int, ...], learned: str):
    torch.manual_seed(5)
    made = {
        "x": torch.randn(*axes, 640),
        "weight": torch.randn(512, 640),
        "bias": torch.randn(512),
    }
    names = list(made) if learned == "all" else [learned]
    ours = {name: x.clone().requires_grad_(name in names) for name, x in made.items()}
    exact = {name: x.double().requires_grad_(name in names) for name, x in made.items()}
    assert linear_module._suits_onednn(ours["x"], ours["weight"])
    upon = torch.randn(*axes, 512)
    y = linear(*ours.values())
    expected = linear_reference(*exact.values())
    assert (y - expected).abs().max().item() <= tolerance(expected)
    found = torch.autograd.grad(y, [ours[name] for name in names], upon)
    wanted = torch.autograd.grad(expected, [exact[name] for name in names], upon.double())
    for own, right in zip(found, wanted, strict=True):
        assert own.shape == right.shape
        limit = 4 * tolerance(right)
        assert (own - right).abs().max().item() <= limit
        # Of another row's gradient each would be far away.
        assert (own.roll(1, 0) - right).abs().max().item() > limit


def test_what_is_not_learned_from_has_no_gradient():
    x, weight = torch.randn(64, 512), torch.randn(512, 512)
    assert not linear(x, weight).requires_grad
    with torch.no_grad():
        assert not linear(x.requires_grad_(), weight).requires_grad
    assert linear(x, weight).requires_grad


def test_a_width_that_does_not_fit_is_torchs_error():
    with torch.inference_mode(), pytest.raises(RuntimeError, match="shapes"):
        linear(torch.randn(600, 512), torch.randn(512, 500))
