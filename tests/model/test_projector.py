"""Linear layers with the exact GELU between them, and pooling before the last."""

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


def by_hand(projector: Projector, features: torch.Tensor, num_layers: int) -> torch.Tensor:
    for idx in range(num_layers):
        linear = getattr(projector, f"linear{idx + 1}")
        features = nn.functional.linear(features, linear.weight, linear.bias)
        features = nn.functional.gelu(features) if idx + 1 < num_layers else features
    return features


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
@torch.inference_mode()
def test_any_number_of_layers_and_their_parts(num_layers: int):
    projector = filled(Projector(6, 5, num_layers), spread=1.0)
    assert {name.split(".")[0] for name in projector.state_dict()} == {
        f"linear{idx + 1}" for idx in range(num_layers)
    }
    features = torch.randn(2, 7, 6) * 2
    before = features.clone()
    expected = by_hand(projector, features, num_layers)
    assert torch.allclose(projector(features), expected, atol=1e-6)
    for num_before in range(num_layers + 1):
        first = projector.before_pooling(features, num_before)
        assert torch.allclose(first, by_hand(projector, features, num_before), atol=1e-6)
        if 0 < num_before < num_layers:  # as the pooling does
            first = nn.functional.gelu(first)
        assert torch.allclose(projector.after_pooling(first, num_before), expected, atol=1e-6)
    assert torch.equal(features, before)


def test_where_the_pooling_stands():
    two, one = Projector(6, 5), Projector(6, 5, 1)
    places = [
        (two, "tokens", True, 1),  # before the last
        (two, "tokens", False, 2),
        (one, "tokens", True, 0),  # a linear layer alone commutes with it altogether
        (one, "tokens", False, 1),
        (Projector(6, 5, 3), "tokens", True, 2),
        (two, "features", True, 0),
        (two, "features", False, 0),
    ]
    for projector, pool_of, is_linear, expected in places:
        assert projector.num_before_pooling(pool_of, is_linear=is_linear) == expected


SIDE = 27


def pooled(
    projector: Projector, features: torch.Tensor, mode: PoolMode, *, first: bool
) -> torch.Tensor:
    """Project features (N, P, C) and pool them by 2, before or after the last layer."""
    num_before = projector.num_before_pooling("tokens", is_linear=first)
    maps = projector.before_pooling(features, num_before).unflatten(1, (SIDE, SIDE))
    if not first:  # as the reference does
        return pool_map(maps, 2, mode).flatten(1, 2)
    size = pooled_size(SIDE, SIDE, 2, mode)
    rows = maps.new_empty(len(maps), *size, maps.shape[-1])
    pooling = Pooling(crop=(0, SIDE, 0, SIDE), stride=2, mode=mode, size=size)
    pool_rows(maps[:, None, None], rows, pooling, gelu=num_before > 0)
    return projector.after_pooling(rows.flatten(1, 2), num_before)


def seeded(num_tiles: int, num_channels: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(num_tiles, SIDE**2, num_channels, generator=generator).to(dtype)


@pytest.mark.parametrize("mode", ["bilinear", "average"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@torch.inference_mode()
def test_means_may_come_before_the_last_layer(num_layers: int, mode: PoolMode):
    """In float64 to the last digits, in float32 to 1e-5; in bfloat16 it is nearer to float64."""
    projector = filled(Projector(48, 64, num_layers), spread=0.2)
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


@pytest.mark.parametrize("num_before", [0, 1, 2])
def test_features_go_where_the_layers_stand(num_before):
    with torch.device("meta"):
        projector = Projector(8, 4)
    features = torch.zeros(3, 8)
    assert projector(features).device.type == "meta"
    rows = projector.before_pooling(features, num_before)
    assert rows.device.type == ("meta" if num_before else "cpu")
    assert projector.after_pooling(rows, num_before).device.type == "meta"
