"""Pooled maps: against their formulas, the reference's outputs, and wrong ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from llava_video.ops.pool import Pooling, pool_map, pool_map_reference, pooled_size

MODES = ["bilinear", "average", "max"]


def limit(maps: torch.Tensor, stride: int, mode: str, size: tuple[int, int] | None) -> float:
    """House tolerance, and what torch loses by computing the positions of taps in float32."""
    exact = pool_map_reference(maps.float(), stride, mode, size)
    own = pool_map_reference(maps, stride, mode, size).float()
    position_error = max(maps.shape[1:3]) * 2**-23  # of a patch
    value_range = (maps.max() - maps.min()).item()
    return 2 * (own - exact).abs().max().item() + position_error * value_range + 1e-6


def seeded(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


SHAPES = [(1, 27, 27, 1152), (2, 13, 17, 5), (1, 1, 1, 3), (1, 5, 1, 2)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_reference(shape, stride: int, mode, dtype: torch.dtype):
    maps = seeded(*shape, dtype=dtype)
    if mode != "bilinear" and 0 in pooled_size(shape[1], shape[2], stride, mode):
        with pytest.raises(ValueError, match="no patch left"):
            pool_map(maps, stride, mode)
        return
    expected = pool_map_reference(maps.float(), stride, mode)
    pooled = pool_map(maps, stride, mode)
    assert (
        pooled.shape
        == expected.shape
        == (shape[0], *pooled_size(*shape[1:3], stride, mode), shape[3])
    )
    assert pooled.dtype is dtype
    assert (pooled.float() - expected).abs().max() <= limit(maps, stride, mode, None)


def test_a_map_that_is_not_contiguous():
    maps = seeded(2, 20, 15, 6).transpose(1, 2)[:, 1:]
    assert not maps.is_contiguous()
    for mode in MODES:
        expected = pool_map_reference(maps, 2, mode)
        assert torch.allclose(pool_map(maps, 2, mode), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(80, 80), (61, 98), (9, 3)])
def test_resizing_to_a_size(size: tuple[int, int]):
    maps = seeded(1, 81, 108, 4)
    pooled = pool_map(maps, 1, "average", size)  # a picture's map is resized, whatever the mode
    expected = pool_map_reference(maps, 1, "bilinear", size)
    assert (pooled - expected).abs().max() <= limit(maps, 1, "bilinear", size)


def test_wrong_formulas_are_rejected():
    maps = seeded(1, 27, 27, 8)
    bound = limit(maps, 2, "bilinear", None)
    right = pool_map_reference(maps, 2, "bilinear")
    first = maps.permute(0, 3, 1, 2)
    mutants = {
        "corners aligned": F.interpolate(first, (14, 14), mode="bilinear", align_corners=True),
        "antialiased": F.interpolate(first, (14, 14), mode="bilinear", antialias=True),
        # scale 2 instead of 27/14
        "scale": F.interpolate(
            first, scale_factor=14 / 27 * 1.0001, mode="bilinear", recompute_scale_factor=False
        )[..., :14, :14],
        "ceil average": F.avg_pool2d(first, 2, ceil_mode=True),
    }
    for name, mutant in mutants.items():
        assert (mutant.permute(0, 2, 3, 1) - right).abs().max() > bound, name
    assert pooled_size(27, 27, 2, "bilinear") == (14, 14)  # floor instead of ceil gives 13
    assert pooled_size(27, 27, 2, "average") == (13, 13)  # ceil instead of floor gives 14


def test_hand_count_of_two_patches():
    # 3 -> 2: outputs read at 0.25 and 1.75 patches.
    maps = torch.tensor([0.0, 4.0, 8.0]).view(1, 1, 3, 1)
    assert pool_map(maps, 2, "bilinear", (1, 2)).flatten().tolist() == [1.0, 7.0]
    assert pool_map(maps.expand(1, 2, 3, 1), 2, "average").flatten().tolist() == [2.0]
    assert pool_map(maps.expand(1, 2, 3, 1), 2, "max").flatten().tolist() == [4.0]


def test_golden_pooling(shared: Path):
    golden = np.load(shared / "golden/onevision_video/cases/pooling.npz")
    maps = torch.from_numpy(golden["input"]).view(2, 27, 27, -1)
    for mode in MODES:
        for stride in (2, 3, 4):
            expected = torch.from_numpy(golden[f"{mode}_stride{stride}"])
            pooled = pool_map(maps, stride, mode).flatten(1, 2)
            assert pooled.shape == expected.shape
            assert (pooled - expected).abs().max() <= 1e-6, (mode, stride)


@pytest.mark.parametrize(
    ("stride", "mode", "size", "words"),
    [(0, "bilinear", None, "at least 1"), (2, "average", (4, 4), "not \\(4, 4\\)")],
)
def test_impossible_pooling_is_refused(stride: int, mode, size, words: str):
    with pytest.raises(ValueError, match=words):
        pool_map(seeded(1, 7, 7, 2), stride, mode, size)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crop": (0, 8, 0, 7)}, "crop \\(0, 8, 0, 7\\) of a map of 7 x 7"),
        ({"crop": (3, 3, 0, 7)}, "no patch left"),
        ({"crop": (4, 3, 0, 7)}, "crop"),
        ({"crop": (-1, 5, 0, 7)}, "crop"),
        ({"stride": 0}, "at least 1"),
        ({"size": (4, 0)}, "no patch left"),
        ({"mode": "max", "size": (4, 4)}, "not \\(4, 4\\)"),
    ],
)
def test_a_pooling_that_does_not_fit_its_map_is_refused(changes: dict[str, object], words: str):
    settings = {"crop": (0, 7, 0, 7), "stride": 2, "mode": "bilinear", "size": (4, 4)}
    Pooling(**settings).check(7, 7)
    with pytest.raises(ValueError, match=words):
        Pooling(**{**settings, **changes}).check(7, 7)


@pytest.mark.parametrize(
    ("stride", "mode", "size", "kind"),
    [
        (2, "max", (3, 3), "max"),
        (2, "average", (3, 3), "average"),
        (2, "bilinear", (4, 4), "bilinear"),
        (1, "max", (7, 7), "bilinear"),
        (1, "average", (5, 6), "bilinear"),
        (2, "max", (7, 7), "bilinear"),
    ],
)
def test_what_is_computed(stride: int, mode, size: tuple[int, int], kind: str):
    pooling = Pooling(crop=(0, 7, 1, 8), stride=stride, mode=mode, size=size)
    assert pooling.window == (7, 7)
    assert pooling.kind == kind
    assert pooling.is_linear is (kind != "max")
