"""Pooled rows: torch's way beside the definition, who does it, and what is refused."""

import pytest
import torch
from kernels import interpreted

from llava_video.ops import pool_rows as module
from llava_video.ops.pool import Pooling
from llava_video.ops.pool_rows import pool_rows, pool_rows_reference

WHOLE = Pooling(crop=(0, 7, 0, 7), stride=2, mode="bilinear", size=(4, 4))
POOLINGS = [
    ((1, 1), WHOLE),
    ((1, 1), Pooling(crop=(1, 6, 0, 7), stride=2, mode="average", size=(2, 3))),
    ((1, 1), Pooling(crop=(0, 7, 0, 7), stride=3, mode="max", size=(2, 2))),
    ((1, 1), Pooling(crop=(0, 7, 0, 7), stride=1, mode="max", size=(7, 7))),
    ((2, 3), Pooling(crop=(1, 13, 0, 21), stride=2, mode="bilinear", size=(6, 11))),
    ((2, 3), Pooling(crop=(1, 13, 0, 21), stride=1, mode="average", size=(9, 16))),
    ((3, 1), Pooling(crop=(0, 21, 2, 7), stride=2, mode="max", size=(10, 2))),
    # What is left of very thin pictures: rows without a patch, or no row.
    ((3, 1), Pooling(crop=(0, 21, 4, 4), stride=1, mode="bilinear", size=(21, 0))),
    ((3, 1), Pooling(crop=(0, 21, 4, 4), stride=2, mode="bilinear", size=(11, 0))),
    ((1, 3), Pooling(crop=(4, 4, 0, 21), stride=2, mode="average", size=(0, 10))),
]


def seeded(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def limit(maps: torch.Tensor, pooling: Pooling, *, gelu: bool) -> float:
    """Twice what the dtype alone loses, and torch's float32 positions of taps (test_pool.py)."""
    wide = pool_rows_reference(maps.float(), pooling, gelu=gelu)
    own = pool_rows_reference(maps, pooling, gelu=gelu).float()
    return 2 * largest(own - wide) + 21 * 2**-23 * 8 + 1e-6


def largest(errors: torch.Tensor) -> float:
    return errors.abs().max().item() if errors.numel() else 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gelu", [True, False])
@pytest.mark.parametrize(("grid", "pooling"), POOLINGS)
@torch.inference_mode()
def test_equals_the_reference(grid: tuple[int, int], pooling: Pooling, gelu: bool, dtype):
    maps, ends = seeded(3, *grid, 7, 7, 5, dtype=dtype), seeded(5, dtype=dtype)
    expected = pool_rows_reference(maps.float(), pooling, gelu=gelu, ends=ends.float())
    bound = limit(maps, pooling, gelu=gelu)
    height, width = pooling.size
    for given in (ends, None):
        rows = torch.full((3, height, width + 1, 5), 9.0, dtype=dtype)
        pool_rows(maps.clone(), rows, pooling, gelu=gelu, ends=given)
        assert largest(rows[:, :, :-1] - expected[:, :, :-1]) <= bound
        assert (rows[:, :, -1] == (0 if given is None else given)).all()
    rows = torch.full((3, height, width, 5), 9.0, dtype=dtype)
    pool_rows(maps.clone(), rows, pooling, gelu=gelu)
    assert largest(rows - expected[:, :, :-1]) <= bound


def test_the_definition_by_hand():
    """Two tiles of one patch side by side: 3 and -1, whose mean after the GELU is 1.4187."""
    maps = torch.tensor([3.0, -1.0]).view(1, 1, 2, 1, 1, 1)
    pooling = Pooling(crop=(0, 1, 0, 2), stride=2, mode="bilinear", size=(1, 1))
    rows = pool_rows_reference(maps, pooling, ends=torch.tensor([7.0]))
    assert rows.flatten().tolist() == [1.0, 7.0]
    # gelu(3) = 2.99595, gelu(-1) = -0.158655
    rows = pool_rows_reference(maps, pooling, gelu=True)
    assert rows.item() == pytest.approx((2.99595 - 0.158655) / 2, abs=1e-5)


def test_what_has_gradients_is_left_alone_and_followed():
    maps = seeded(1, 1, 1, 7, 7, 3).requires_grad_()
    rows = torch.zeros(1, 4, 4, 3)
    pool_rows(maps, rows, WHOLE, gelu=True)
    rows.sum().backward()
    assert maps.grad is not None
    assert torch.equal(maps, seeded(1, 1, 1, 7, 7, 3))


@pytest.mark.parametrize("gelu", [False, True])
def test_frames_that_are_pooled_together_for_gradients_are_as_apart(gelu: bool):
    maps = seeded(3, 1, 1, 7, 7, 5).requires_grad_()
    rows = torch.zeros(3, 4, 5, 5)
    pool_rows(maps, rows, WHOLE, gelu=gelu)
    weights = seeded(3, 4, 5, 5)
    (gradient,) = torch.autograd.grad((rows * weights).sum(), maps)
    for idx in range(3):
        own = maps[idx : idx + 1].detach().requires_grad_()
        alone = torch.zeros(1, 4, 5, 5)
        pool_rows(own, alone, WHOLE, gelu=gelu)
        assert torch.equal(alone[0], rows[idx])
        (own_gradient,) = torch.autograd.grad((alone * weights[idx]).sum(), own)
        assert torch.equal(own_gradient[0], gradient[idx])


@interpreted
@pytest.mark.parametrize(
    ("dtype", "has_gradients", "is_kernel"),
    [
        (torch.bfloat16, False, True),
        (torch.float32, False, True),
        (torch.float64, False, False),  # the kernel computes in float32
        (torch.float32, True, False),  # and has no derivative
    ],
)
def test_who_does_it_on_a_gpu(monkeypatch, dtype, has_gradients: bool, is_kernel: bool):
    called = []
    kernel = module.pool_rows_triton
    monkeypatch.setattr(module, "uses_triton", lambda tensor: True)
    monkeypatch.setattr(
        module, "pool_rows_triton", lambda *args, **kwargs: called.append(kernel(*args, **kwargs))
    )
    maps, rows = seeded(1, 1, 1, 7, 7, 3, dtype=dtype), torch.zeros(1, 4, 5, 3, dtype=dtype)
    if torch.cuda.is_available():
        maps, rows = maps.cuda(), rows.cuda()
    expected = pool_rows_reference(maps, WHOLE, gelu=True)
    with torch.set_grad_enabled(has_gradients):
        pool_rows(maps, rows, WHOLE, gelu=True)
    assert bool(called) is is_kernel
    assert torch.allclose(rows[:, :, :-1].cpu().double(), expected.cpu().double(), atol=2e-2)


@pytest.mark.parametrize(
    ("maps", "rows", "words"),
    [
        ((1, 1, 1, 7, 7, 3), (1, 4, 6, 3), "rows \\(1, 4, 6, 3\\)"),
        ((1, 1, 1, 7, 7, 3), (1, 4, 3, 3), "rows"),
        ((1, 1, 1, 7, 7, 3), (2, 4, 4, 3), "rows"),
        ((1, 1, 1, 7, 7, 3), (1, 5, 4, 3), "rows"),
        ((1, 1, 1, 7, 7, 3), (1, 4, 4, 2), "rows"),
        ((1, 1, 1, 6, 6, 3), (1, 4, 4, 3), "crop"),
        ((1, 1, 1, 7, 7, 3), (1, 0, 4, 3), "rows"),
    ],
)
def test_what_does_not_fit_is_refused(maps, rows, words: str):
    with pytest.raises(ValueError, match=words):
        pool_rows(torch.zeros(maps), torch.zeros(rows), WHOLE)


@interpreted
@pytest.mark.parametrize("has_ends", [True, False])
def test_a_map_without_a_patch_is_not_the_kernels(monkeypatch, has_ends: bool):
    monkeypatch.setattr(module, "uses_triton", lambda tensor: True)
    monkeypatch.setattr(module, "pool_rows_triton", None)
    pooling = Pooling(crop=(0, 7, 3, 3), stride=2, mode="bilinear", size=(4, 0))
    rows = torch.full((2, 4, 1, 3), 9.0)
    ends = torch.tensor([1.0, 2.0, 3.0]) if has_ends else None
    with torch.inference_mode():
        pool_rows(seeded(2, 1, 1, 7, 7, 3), rows, pooling, gelu=True, ends=ends)
    assert torch.equal(rows, (torch.zeros(3) if ends is None else ends).expand(2, 4, 1, 3))


@pytest.mark.parametrize(
    ("crop", "size"), [((3, 3, 0, 7), (4, 4)), ((0, 7, 0, 7), (0, 4)), ((0, 7, 2, 2), (4, 1))]
)
def test_an_empty_side_stays_empty_and_no_other_becomes_so(crop, size: tuple[int, int]):
    pooling = Pooling(crop=crop, stride=2, mode="bilinear", size=size)
    with pytest.raises(ValueError, match="no patch left"):
        pool_rows(seeded(1, 1, 1, 7, 7, 3), torch.zeros(1, *size, 3), pooling)
