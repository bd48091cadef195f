"""One pass gives the weights that the codes stand for: by torch bit for bit, by the kernel too."""

import pytest
import torch
from kernels import KernelSpec, check_compiled, compile_for, error_of, interpreted, limit_of
from weight_mutants import mutants

from llava_video.ops import dequantise_weight as module
from llava_video.ops.dequantise_weight import (
    _dequantise_weight_into_triton,
    dequantise_weight_into,
    dequantise_weight_into_reference,
    group_bytes,
)
from llava_video.ops.weight_format import StoredWeight, quantise_weight

FORMATS = ["int8", "int4"]
# Real groups, more outputs than a program takes; odd outputs and a group of 64; one output; groups
# that no program's share divides.
SHAPES = [(40, 896), (17, 64), (1, 128), (23, 384)]
DEVICES = [
    pytest.param("cpu", marks=interpreted),
    pytest.param("cuda", marks=pytest.mark.gpu),
]
POINTERS = ("codes_ptr", "scales_ptr", "out_ptr")


def stored_noise(num_outputs: int, num_inputs: int, weight_format, device="cpu") -> StoredWeight:
    generator = torch.Generator().manual_seed(num_outputs)
    weight = torch.randn(num_outputs, num_inputs, generator=generator)
    return quantise_weight(weight.to(device), weight_format)


def by_kernel(stored: StoredWeight, dtype: torch.dtype) -> torch.Tensor:
    shape = (stored.num_outputs, stored.num_inputs)
    out = torch.full(shape, torch.nan, dtype=dtype, device=stored.codes.device)
    size = group_bytes(stored)
    assert size is not None
    _dequantise_weight_into_triton(stored, out, size)
    return out


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("num_outputs", "num_inputs"), [*SHAPES, (5, 100)])
def test_torch_gives_the_definition_bit_for_bit(
    num_outputs: int, num_inputs: int, dtype: torch.dtype, weight_format
):
    stored = stored_noise(num_outputs, num_inputs, weight_format)
    out = torch.full((num_outputs, num_inputs), torch.nan, dtype=dtype)
    dequantise_weight_into_reference(stored, out)
    assert torch.equal(out, stored.plain(dtype))


def test_torch_works_in_pieces(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_PIECE_NUMBERS", 128 * 7)
    stored = stored_noise(30, 128, "int4")
    out = torch.empty(30, 128, dtype=torch.bfloat16)
    dequantise_weight_into_reference(stored, out)
    assert torch.equal(out, stored.plain(torch.bfloat16))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize(("num_outputs", "num_inputs"), SHAPES)
def test_the_kernel_equals_the_reference(
    num_outputs: int, num_inputs: int, weight_format, dtype: torch.dtype, device: str
):
    stored = stored_noise(num_outputs, num_inputs, weight_format, device)
    wide, narrow = stored.plain(torch.float32), stored.plain(dtype)
    limit = limit_of(wide, narrow)
    assert error_of(by_kernel(stored, dtype), wide) <= limit
    for name, mutant in mutants(stored).items():
        assert error_of(mutant.plain(dtype), wide) > limit, name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_part_is_read_with_its_own_scales(weight_format, device: str):
    """The scales of a part stand as far apart as the whole's, not as the part's."""
    part = stored_noise(40, 256, weight_format, device).part(11, 31)
    assert torch.equal(by_kernel(part, torch.float32), part.plain(torch.float32))


@pytest.mark.gpu
@pytest.mark.parametrize("weight_format", FORMATS)
def test_bfloat16_on_a_gpu(weight_format):
    """The interpreter cuts bfloat16 off where a GPU rounds, so this is for a GPU alone."""
    stored = stored_noise(512, 3584, weight_format, "cuda")
    wide, narrow = stored.plain(torch.float32), stored.plain(torch.bfloat16)
    out = torch.empty_like(narrow)
    dequantise_weight_into(stored, out)
    assert error_of(out, wide) <= limit_of(wide, narrow)


@pytest.mark.parametrize(
    ("weight_format", "num_inputs", "size"),
    [
        ("int8", 3584, 128),
        ("int8", 48, 16),
        ("int8", 100, None),  # 4 bytes at most: left to torch
        ("int4", 3584, 64),
        ("int4", 96, 16),
        ("int4", 100, None),  # one group of 100
        ("int4", 16, None),
    ],
)
def test_bytes_that_share_a_scale(weight_format, num_inputs: int, size: int | None):
    assert group_bytes(stored_noise(3, num_inputs, weight_format)) == size


@interpreted
def test_what_does_not_fit_is_refused():
    stored = stored_noise(4, 128, "int8")
    with pytest.raises(ValueError, match="do not go into"):
        _dequantise_weight_into_triton(stored, torch.empty(128, 4), 128)
    gaps = StoredWeight(stored.codes.t().contiguous().t(), stored.scales)
    with pytest.raises(ValueError, match="have gaps"):
        _dequantise_weight_into_triton(gaps, torch.empty(4, 128), 128)


def spec_of(weight_format, dtype: str = "*bf16") -> KernelSpec:
    is_int4 = weight_format == "int4"
    size = 64 if is_int4 else 128
    pointers = ("*u8", "*i32", dtype) if is_int4 else ("*i8", "*bf16", dtype)
    numbers = ("num_outputs", "row_bytes", "num_groups", "scales_stride")
    return KernelSpec(
        module=module.__name__,
        name="_dequantise_weight_kernel",
        types=dict(zip(POINTERS, pointers, strict=True)) | dict.fromkeys(numbers, "i32"),
        constants={
            "IS_INT4": is_int4,
            "GROUP_BYTES": size,
            "BLOCK_OUTPUTS": module._PROGRAM_OUTPUTS,
            "BLOCK_GROUPS": module._PROGRAM_BYTES // size,
        },
        aligned=(*POINTERS, "num_outputs", "row_bytes", "scales_stride"),
    )


def test_it_compiles_for_gpus():
    for compiled in compile_for(spec_of("int4"), (80, 90)):
        check_compiled(compiled)
        assert compiled.global_stores["128"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(("weight_format", "dtype"), [("int4", "*fp16"), ("int8", "*bf16")])
def test_every_format_compiles_for_every_gpu(weight_format, dtype: str):
    for compiled in compile_for(spec_of(weight_format, dtype)):
        check_compiled(compiled)
        assert compiled.global_stores["128"] > 0
