"""Rotation: its formula, its invariances, its precision at long positions, and wrong halves."""

import math

import pytest
import torch

from llava_video.ops.rope import rope_tables, rotate, rotate_reference


def by_formula(x: torch.Tensor, positions: list[float], theta: float) -> torch.Tensor:
    """Rotate in Python's own floats, one pair at a time."""
    y = x.double().clone()
    half = x.shape[2] // 2
    for i, position in enumerate(positions):
        for head in range(x.shape[1]):
            for j in range(half):
                angle = position * theta ** (-2 * j / x.shape[2])
                a, b = x[i, head, j].item(), x[i, head, j + half].item()
                y[i, head, j] = a * math.cos(angle) - b * math.sin(angle)
                y[i, head, j + half] = b * math.cos(angle) + a * math.sin(angle)
    return y


@pytest.mark.parametrize("positions", [[0, 1, 2], [0.25, 7.5, 31.125], [5.0]])
@pytest.mark.parametrize("heads", [1, 7])
def test_equals_the_formula(positions: list[float], heads: int):
    x = torch.randn(len(positions), heads, 16)
    tables = rope_tables(torch.tensor(positions), 16, 10_000.0)
    expected = by_formula(x, positions, 10_000.0)
    with torch.inference_mode():
        fast = rotate(x, *tables)
    assert (fast - expected).abs().max() <= 1e-6
    assert (rotate_reference(x, *tables) - expected).abs().max() <= 1e-6
    assert fast.is_contiguous()


def test_wrong_conventions_are_rejected():
    x = torch.randn(4, 2, 16)
    tables = rope_tables(torch.arange(4), 16, 10_000.0)
    right = rotate(x, *tables)
    pairs = rotate(x[..., torch.arange(16).view(8, 2).T.flatten()], *tables)  # interleaved pairs
    backwards = rotate(x, tables[0], -tables[1])
    for mutant in (pairs, backwards):
        assert (mutant - right).abs().max() > 0.1


def test_scores_depend_on_distance_alone():
    q, k = torch.randn(1, 1, 32, dtype=torch.float64), torch.randn(1, 1, 32, dtype=torch.float64)

    def score(q_position: float, k_position: float) -> float:
        q_tables = rope_tables(torch.tensor([q_position]), 32, 1e6)
        k_tables = rope_tables(torch.tensor([k_position]), 32, 1e6)
        return (rotate(q.float(), *q_tables) * rotate(k.float(), *k_tables)).sum().item()

    assert score(7, 3) == pytest.approx(score(1004, 1000), abs=1e-5)
    assert score(7, 3) != pytest.approx(score(7, 4), abs=1e-3)


def test_long_positions_stay_exact():
    position = 4_000_001
    cos, sin = rope_tables(torch.tensor([position]), 128, 1e6)
    angles = [position * 1e6 ** (-2 * j / 128) for j in range(64)]
    assert (
        max(abs(c - math.cos(a)) for c, a in zip(cos.flatten().tolist(), angles, strict=True))
        < 1e-6
    )
    assert (
        max(abs(s - math.sin(a)) for s, a in zip(sin.flatten().tolist(), angles, strict=True))
        < 1e-6
    )
    in_float32 = torch.tensor(float(position)) / 1e6 ** (torch.arange(0, 128, 2) / 128)
    assert (in_float32.cos() - cos.flatten()).abs().max() > 1e-2  # the common way is not


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_loses_its_own_rounding_only(dtype: torch.dtype):
    x = torch.randn(9, 3, 64).to(dtype)
    tables = rope_tables(torch.arange(1000, 1009), 64, 1e6)
    exact = rotate_reference(x.float(), *tables)
    result = rotate(x, *tables)
    assert result.dtype is dtype
    assert torch.equal(result, exact.to(dtype))


def test_a_view_that_is_not_contiguous():
    x = torch.randn(3, 5, 8).transpose(0, 1)
    tables = rope_tables(torch.arange(5), 8, 1e4)
    with torch.inference_mode():
        assert torch.allclose(rotate(x, *tables), rotate_reference(x, *tables), atol=1e-6)


def test_gradients_flow():
    x = torch.randn(2, 1, 8, requires_grad=True)
    rotate(x, *rope_tables(torch.arange(2), 8, 1e4)).square().sum().backward()
    assert torch.allclose(x.grad, 2 * x.detach(), atol=1e-5)  # a rotation keeps the length


def test_tables_of_another_length_are_refused():
    with pytest.raises(ValueError, match="tables"):
        rotate(torch.randn(3, 1, 8), *rope_tables(torch.arange(4), 8, 1e4))
