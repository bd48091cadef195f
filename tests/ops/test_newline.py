"""A vector in every row of a view: by torch, by the kernel, and nowhere else."""

import pytest
import torch
from kernels import TARGETS, KernelSpec, check_compiled, compile_for, interpreted

from llava_video.ops.newline import _fill_rows_triton, fill_rows, fill_rows_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
WAYS = [
    fill_rows,
    fill_rows_reference,
    pytest.param(_fill_rows_triton, marks=interpreted),
]


def rows_and_vector(
    num_sets: int, num_rows: int, width: int, num_channels: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows (N, K, W, C), of which the last of each W is to be written, and a vector."""
    generator = torch.Generator().manual_seed(num_channels)
    rows = torch.randn(num_sets, num_rows, width, num_channels, generator=generator)
    vector = torch.randn(num_channels, generator=generator)
    return rows.to(DEVICE, dtype), vector.to(DEVICE, dtype)


@pytest.mark.parametrize("fill", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 3, 4, 3584), (1, 5, 2, 37), (1, 1, 1, 1), (3, 1, 2, 1152)])
@torch.inference_mode()
def test_the_vector_stands_in_every_row_and_nowhere_else(fill, shape, dtype):
    rows, vector = rows_and_vector(*shape, dtype)
    before = rows.clone()
    fill(rows[:, :, -1], vector)
    assert torch.equal(rows[:, :, -1], vector.expand_as(rows[:, :, -1]))
    assert torch.equal(rows[:, :, :-1], before[:, :, :-1])


def test_newlines_before_the_row_are_rejected():
    rows, vector = rows_and_vector(2, 3, 5, 7, torch.float32)
    mutant = rows.clone()
    fill_rows(rows[:, :, -1], vector)
    fill_rows(mutant[:, :, 0], vector)
    assert not torch.equal(rows, mutant)


@pytest.mark.parametrize("fill", WAYS[:2])
def test_no_rows_are_no_work(fill):
    fill(torch.empty(0, 3, 4, device=DEVICE), torch.ones(4, device=DEVICE))


@interpreted
@pytest.mark.parametrize(
    ("rows", "vector"),
    [
        (torch.empty(2, 4, 3).transpose(1, 2), torch.ones(4)),
        (torch.empty(2, 3, 4), torch.ones(5)),
        (torch.empty(2, 3, 4), torch.ones(4, dtype=torch.bfloat16)),
    ],
)
def test_what_the_kernel_does_not_do_is_refused(rows, vector):
    with pytest.raises(ValueError, match="channels side by side"):
        _fill_rows_triton(rows.to(DEVICE), vector.to(DEVICE))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["*bf16", "*fp32"])
def test_compiles_for_every_card(dtype):
    spec = KernelSpec(
        module="llava_video.ops.newline",
        name="_fill_rows_kernel",
        types={"rows_ptr": dtype, "vector_ptr": dtype, "stride_n": "i32", "stride_k": "i32"},
        constants={"NUM_CHANNELS": 3584, "BLOCK": 1024},
        aligned=("rows_ptr", "vector_ptr", "stride_n", "stride_k"),
    )
    for compiled in compile_for(spec, TARGETS):
        check_compiled(compiled, most_registers=64)
        assert set(compiled.global_stores) == {"128"}
