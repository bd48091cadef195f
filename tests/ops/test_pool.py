"""Pooled maps and newline rows: against their formulas, the reference's outputs, and wrong ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from llava_video.ops.pool import map_rows, pool_map, pool_map_reference, pooled_size
from llava_video.values import Newline

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


def written_by_hand(patch_map, newline, where: Newline, is_last: bool) -> list[list[float]]:
    rows: list[list[float]] = []
    for line in patch_map.tolist():
        rows += line
        rows += [newline.tolist()] if where == Newline.ROW else []
    ends = where == Newline.FRAME or (where == Newline.CLIP and is_last)
    return rows + ([newline.tolist()] if ends else [])


@pytest.mark.parametrize("is_last", [True, False])
@pytest.mark.parametrize("where", list(Newline))
@pytest.mark.parametrize("contiguous", [True, False])
def test_newlines_stand_where_they_are_written_by_hand(where, is_last: bool, contiguous: bool):
    patch_map, newline = seeded(3, 5, 2), seeded(2)
    if not contiguous:
        patch_map = patch_map.transpose(0, 1)
    rows = map_rows(patch_map, newline, where, is_last=is_last)
    assert rows.tolist() == written_by_hand(patch_map, newline, where, is_last)
    assert (
        rows.shape[0]
        == {
            Newline.ROW: 15 + patch_map.shape[0],
            Newline.FRAME: 16,
            Newline.CLIP: 15 + is_last,
            Newline.NONE: 15,
        }[where]
    )


def test_newlines_before_the_row_are_rejected():
    patch_map, newline = seeded(3, 5, 2), seeded(2)
    rows = map_rows(patch_map, newline, Newline.ROW, is_last=True)
    before = torch.cat([newline.expand(3, 1, 2), patch_map], dim=1).flatten(0, 1)
    assert rows.shape == before.shape
    assert not torch.allclose(rows, before, atol=1e-6)


def test_a_missing_newline_is_refused():
    with pytest.raises(ValueError, match="there is no newline"):
        map_rows(seeded(2, 2, 2), None, Newline.FRAME, is_last=False)
    assert len(map_rows(seeded(2, 2, 2), None, Newline.CLIP, is_last=False)) == 4
