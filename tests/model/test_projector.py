"""Two linear layers with the exact GELU between them, and pooling before the second."""

import pytest
import torch
from seeded_models import filled
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from llava_video.model.projector import Projector
from llava_video.ops.pool import Pooling, pool_map, pooled_size
from llava_video.ops.pool_rows import pool_rows
from llava_video.values import PoolMode


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad])
def test_the_mlp_is_linear_gelu_linear(mode):
    projector = filled(Projector(6, 5), spread=1.0)
    first, second = nn.Linear(6, 5), nn.Linear(5, 5)
    first.load_state_dict(projector.linear1.state_dict())
    second.load_state_dict(projector.linear2.state_dict())
    features = torch.randn(2, 7, 6) * 2
    before = features.clone()
    with mode():
        rows = projector(features)
    assert torch.allclose(rows, second(nn.GELU()(first(features))), atol=1e-6)
    assert torch.equal(features, before)
    with_tanh = second(nn.GELU(approximate="tanh")(first(features)))  # the tower's, trap T14
    assert not torch.allclose(rows, with_tanh, atol=1e-5)


def test_both_ways_around_the_pooling_are_the_whole():
    projector = filled(Projector(6, 5), spread=1.0)
    features = torch.randn(2, 7, 6) * 2
    with torch.inference_mode():
        expected = projector(features)
        first = projector.before_pooling(features, is_linear=True)
        late = projector.after_pooling(nn.functional.gelu(first), is_linear=True)
        whole = projector.before_pooling(features, is_linear=False)
        assert projector.after_pooling(whole, is_linear=False) is whole
    assert torch.allclose(late, expected, atol=1e-6)
    assert torch.allclose(whole, expected, atol=1e-6)


SIDE = 27


def pooled(
    projector: Projector, features: torch.Tensor, mode: PoolMode, *, first: bool
) -> torch.Tensor:
    """Project features (N, P, C) and pool them by 2, before or after the last layer."""
    maps = projector.before_pooling(features, is_linear=first).unflatten(1, (SIDE, SIDE))
    if not first:  # as the reference does
        return pool_map(maps, 2, mode).flatten(1, 2)
    size = pooled_size(SIDE, SIDE, 2, mode)
    rows = maps.new_empty(len(maps), *size, maps.shape[-1])
    pooling = Pooling(crop=(0, SIDE, 0, SIDE), stride=2, mode=mode, size=size)
    pool_rows(maps[:, None, None], rows, pooling, gelu=True)
    return projector.after_pooling(rows.flatten(1, 2), is_linear=True)


def seeded(num_tiles: int, num_channels: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(num_tiles, SIDE**2, num_channels, generator=generator).to(dtype)


@pytest.mark.parametrize("mode", ["bilinear", "average"])
@torch.inference_mode()
def test_means_may_come_before_the_last_layer(mode: PoolMode):
    """In float64 to the last digits, in float32 to 1e-5; in bfloat16 it is nearer to float64."""
    projector = filled(Projector(48, 64), spread=0.2)
    features = seeded(2, 48, torch.float32)
    last = pooled(projector, features, mode, first=False)
    early = pooled(projector, features, mode, first=True)
    assert (early - last).abs().max() <= 1e-5 * last.abs().max()
    # The weights and features that both dtypes hold exactly.
    projector, features = projector.to(torch.bfloat16), features.to(torch.bfloat16)
    errors = {
        first: pooled(projector, features, mode, first=first).double() for first in (True, False)
    }
    projector, features = projector.double(), features.double()
    exact = pooled(projector, features, mode, first=False)
    assert (pooled(projector, features, mode, first=True) - exact).abs().max() <= 1e-13
    rms = {first: (rows - exact).square().mean().sqrt() for first, rows in errors.items()}
    assert rms[True] <= rms[False]


@torch.inference_mode()
def test_the_largest_may_not():
    projector = filled(Projector(48, 64), spread=0.2).double()
    features = seeded(1, 48, torch.float64)
    right = pooled(projector, features, "max", first=False)
    mutant = pooled(projector, features, "max", first=True)
    assert (mutant - right).abs().max() > 0.1 * right.abs().max()


@pytest.mark.parametrize(
    ("text_size", "mode", "last_gflop", "early_gflop"),
    [
        # 2 (729 x 1152 + 729 x 3584) x 3584, and 2 (729 x 1152 + 196 x 3584) x 3584
        (3584, "bilinear", 24.75, 11.06),
        (3584, "average", 24.75, 10.36),
        (896, "bilinear", 2.68, 1.82),
    ],
)
def test_products_of_a_frame(text_size: int, mode: PoolMode, last_gflop, early_gflop):
    with torch.device("meta"), torch.inference_mode():
        projector = Projector(1152, text_size)
        features = torch.empty(1, SIDE**2, 1152)
        counts = []
        for first in (False, True):
            with FlopCounterMode(display=False) as counter:
                pooled(projector, features, mode, first=first)
            counts.append(counter.get_total_flops() / 1e9)
    assert counts == pytest.approx([last_gflop, early_gflop], abs=0.005)
