"""Every way of multiplying by stored weights gives the plain product, and wrong readings do not."""

import pytest
import torch
from kernels import KernelSpec, check_compiled, compile_for, error_of, interpreted, limit_of
from weight_mutants import mutants

from llava_video.ops import dispatch
from llava_video.ops import quant_linear as module
from llava_video.ops.dequantise_weight import group_bytes
from llava_video.ops.quant_linear import (
    FEW_ROWS,
    input_gradient_reference,
    quant_linear,
    quant_linear_reference,
)
from llava_video.ops.weight_format import StoredWeight, quantise_weight

FORMATS = ["int8", "int4"]
# The width of the 0.5B, more outputs than a program takes; odd outputs, a group of 64; one output;
# groups that no program's share divides.
SHAPES = [(40, 896), (17, 64), (1, 128), (23, 384)]
DEVICES = [
    pytest.param("cpu", marks=interpreted),
    pytest.param("cuda", marks=pytest.mark.gpu),
]
POINTERS = ("x_ptr", "codes_ptr", "scales_ptr", "bias_ptr", "out_ptr")


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(
    num_rows: int, num_outputs: int, num_inputs: int, weight_format, dtype=torch.float32
) -> tuple[torch.Tensor, StoredWeight, torch.Tensor]:
    """Rows, weights and bias; outputs of about 1/16, so that 1e-6 is what float32 errs by."""
    weight = noise(num_outputs, num_inputs, seed=num_outputs) * num_inputs**-0.5
    x = noise(num_rows, num_inputs, seed=num_rows).div(16).to(dtype)
    return x, quantise_weight(weight, weight_format), noise(num_outputs, seed=0).div(16).to(dtype)


def moved(stored: StoredWeight, device: str) -> StoredWeight:
    return StoredWeight(stored.codes.to(device), stored.scales.to(device))


def check(y: torch.Tensor, x: torch.Tensor, stored: StoredWeight, bias: torch.Tensor) -> None:
    """Hold a product against the reference by the house rule, and the mutants against it too."""
    wide = quant_linear_reference(x.float(), stored, bias.float())
    limit = limit_of(wide, quant_linear_reference(x, stored, bias))
    assert y.dtype is x.dtype
    assert error_of(y, wide) <= limit
    assert error_of(y - bias, wide) > limit, "no bias"
    for name, mutant in mutants(stored).items():
        if name != "steps 3 % too large":  # which is within half precision's rounding
            assert error_of(quant_linear_reference(x, mutant, bias), wide) > limit, name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("num_rows", [1, 2, 5, 33])
@pytest.mark.parametrize(("num_outputs", "num_inputs"), SHAPES)
def test_the_kernels_equal_the_reference(
    num_outputs: int, num_inputs: int, num_rows: int, dtype: torch.dtype, weight_format, device: str
):
    x, stored, bias = inputs(num_rows, num_outputs, num_inputs, weight_format, dtype)
    x, stored, bias = x.to(device), moved(stored, device), bias.to(device)
    size = group_bytes(stored)
    assert size is not None
    check(module._quant_linear_triton(x, stored, bias, size), x, stored, bias)


@interpreted
@pytest.mark.parametrize("block", [8, 16, 32])
@pytest.mark.parametrize("weight_format", FORMATS)
def test_programs_of_every_size(weight_format, block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "one_row_outputs", lambda _: block)
    x, stored, bias = inputs(1, 40, 384, weight_format, torch.float16)
    size = group_bytes(stored)
    assert size is not None
    check(module._quant_linear_triton(x, stored, bias, size), x, stored, bias)


@pytest.mark.gpu
@pytest.mark.parametrize(("num_outputs", "num_inputs"), [(3584, 3584), (512, 3584), (896, 4864)])
@pytest.mark.parametrize("num_rows", [1, 7, 64])
@pytest.mark.parametrize("weight_format", FORMATS)
def test_bfloat16_on_a_gpu(weight_format, num_rows: int, num_outputs: int, num_inputs: int):
    """The interpreter cannot multiply bfloat16, so this is for a GPU alone."""
    made = inputs(num_rows, num_outputs, num_inputs, weight_format, torch.bfloat16)
    x, stored, bias = made[0].cuda(), moved(made[1], "cuda"), made[2].cuda()
    check(quant_linear(x, stored, bias), x, stored, bias)


@pytest.mark.gpu
def test_a_captured_graph_gives_the_same():
    x, stored, _ = inputs(1, 512, 896, "int4", torch.bfloat16)
    x, stored = x.cuda(), moved(stored, "cuda")
    eager = quant_linear(x, stored)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = quant_linear(x, stored)
    y.zero_()
    graph.replay()
    assert torch.equal(y, eager)


@pytest.mark.parametrize("block_bytes", [1, 40_000, 2**23])
@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("num_rows", [1, 9])
def test_blocks_of_any_size_equal_the_reference(
    num_rows: int, weight_format, block_bytes: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "CPU_BLOCK_BYTES", block_bytes)
    x, stored, bias = inputs(num_rows, 40, 896, weight_format)
    check(quant_linear(x, stored, bias), x, stored, bias)


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("num_rows", [1, 7, 8, 70])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_on_a_cpu(num_rows: int, dtype: torch.dtype, weight_format):
    x, stored, bias = inputs(num_rows, 48, 896, weight_format, dtype)
    check(quant_linear(x, stored, bias), x, stored, bias)


def test_small_weights_are_shared_among_more_programs():
    """A 7B's key projection in 64 programs, its largest weights in 592."""
    counts = {n: -(-n // module.one_row_outputs(n)) for n in (512, 3584, 18_944)}
    assert counts == {512: 64, 3584: 224, 18_944: 592}


def test_torchs_int8_product_takes_few_bfloat16_rows():
    suits = module._suits_int8pack
    x, stored, _ = inputs(7, 16, 128, "int8", torch.bfloat16)
    assert suits(x, stored)
    assert not suits(x.float(), stored)
    assert not suits(x.repeat(2, 1), stored)
    assert not suits(x[:0], stored)
    assert not suits(x, inputs(7, 16, 128, "int4")[1])


def test_without_torchs_int8_product_blocks_do_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_has_int8pack", lambda: False)
    x, stored, bias = inputs(3, 48, 896, "int8", torch.bfloat16)
    check(quant_linear(x, stored, bias), x, stored, bias)


@pytest.mark.parametrize("weight_format", FORMATS)
def test_axes_gaps_and_no_rows(weight_format):
    x, stored, bias = inputs(6, 40, 896, weight_format)
    expected = quant_linear_reference(x, stored, bias)
    shaped = quant_linear(x.view(2, 3, 896), stored, bias)
    assert shaped.shape == (2, 3, 40)
    assert shaped.is_contiguous()
    assert torch.allclose(shaped.view(6, 40), expected, atol=1e-6)
    gaps = x.t().contiguous().t()
    assert torch.allclose(quant_linear(gaps, stored, bias), expected, atol=1e-6)
    assert quant_linear(x[:0], stored, bias).shape == (0, 40)


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block_bytes", [1, 40_000, 2**23])
def test_the_gradient_of_the_rows(
    dtype: torch.dtype, weight_format, block_bytes: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "CPU_BLOCK_BYTES", block_bytes)
    x, stored, bias = inputs(6, 40, 896, weight_format, dtype)
    dy = noise(6, 40, seed=9).div(16).to(dtype)
    x.requires_grad_()
    bias.requires_grad_()
    y = quant_linear(x.view(2, 3, 896), stored, bias)
    y.backward(dy.view(2, 3, 40))
    wide = input_gradient_reference(dy.float(), stored)
    limit = limit_of(wide, input_gradient_reference(dy, stored))
    assert x.grad.dtype is dtype
    assert error_of(x.grad, wide) <= limit
    assert error_of(bias.grad, dy.float().sum(0)) <= 0.01
    for name, mutant in mutants(stored).items():
        if name != "steps 3 % too large":  # which is within half precision's rounding
            assert error_of(input_gradient_reference(dy, mutant), wide) > limit, name


@pytest.mark.parametrize("weight_format", FORMATS)
def test_no_plain_weight_is_kept_for_the_gradient(weight_format):
    """Kept are codes and scales: torch's own product would keep 40 x 896 floating numbers."""
    x, stored, _ = inputs(3, 40, 896, weight_format)
    x.requires_grad_()

    def kept_by(product) -> int:
        sizes: list[int] = []
        pack = lambda tensor: sizes.append(tensor.nbytes) or tensor  # noqa: E731  # one expression
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            product(x, stored)
        return sum(sizes)

    assert kept_by(quant_linear) == stored.num_bytes
    assert kept_by(quant_linear_reference) >= 40 * 896 * 4


@pytest.mark.parametrize("has_gradient", [False, True])
def test_autocast_casts_the_rows_as_torchs_own_product_does(has_gradient: bool):
    x, stored, bias = inputs(3, 40, 896, "int8")
    half = quant_linear(x.bfloat16(), stored, bias.bfloat16())
    x.requires_grad_(has_gradient)
    with torch.autocast("cpu", torch.bfloat16):
        found = quant_linear(x, stored, bias)
        assert found.dtype is torch.nn.functional.linear(x, stored.plain(torch.float32)).dtype
    assert found.dtype is torch.bfloat16
    assert error_of(found, half.float()) <= 2**-8 * half.abs().max()
    if has_gradient:
        found.sum().backward()
        assert x.grad.dtype is torch.float32
        expected = stored.plain(torch.float32).sum(0).expand(3, 896)
        assert error_of(x.grad, expected) <= 2**-7 * expected.abs().max()


@interpreted
@pytest.mark.parametrize(("num_rows", "is_kernel"), [(1, True), (FEW_ROWS, True), (65, False)])
def test_few_rows_go_to_a_kernel_and_many_to_blocks(
    num_rows: int, is_kernel: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dispatch, "_choice", lambda: "triton")
    launched = []
    kernels = module._quant_linear_triton
    monkeypatch.setattr(
        module, "_quant_linear_triton", lambda *args: launched.append(1) or kernels(*args)
    )
    x, stored, bias = inputs(num_rows, 20, 128, "int4")
    y = quant_linear(x, stored, bias)
    assert bool(launched) is is_kernel
    assert error_of(y, quant_linear_reference(x, stored, bias)) <= 1e-6


@interpreted
def test_groups_that_no_kernel_takes_are_left_to_torch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dispatch, "_choice", lambda: "triton")
    x, stored, bias = inputs(1, 20, 100, "int4")
    assert error_of(quant_linear(x, stored, bias), quant_linear_reference(x, stored, bias)) <= 1e-6


@interpreted
def test_what_does_not_fit_is_refused():
    x, stored, _ = inputs(2, 20, 128, "int8")
    with pytest.raises(ValueError, match=r"rows \(2, 64\) and 20 x 128"):
        module._quant_linear_triton(x[:, :64].contiguous(), stored, None, 128)
    with pytest.raises(ValueError, match=r"rows \(65, 128\)"):
        module._quant_linear_triton(torch.ones(65, 128), stored, None, 128)
    with pytest.raises(ValueError, match="have gaps"):
        module._quant_linear_triton(x.t().contiguous().t(), stored, None, 128)


def spec_of(
    weight_format, num_rows: int, dtype: str = "*bf16", num_outputs: int = 16
) -> KernelSpec:
    is_int4, is_one = weight_format == "int4", num_rows == 1
    size = 64 if is_int4 else 128
    stored = ("*u8", "*i32") if is_int4 else ("*i8", "*bf16")
    pointers = (dtype, *stored, dtype, dtype)
    numbers = ["num_outputs", "row_bytes", "num_groups"]
    block = {"BLOCK_OUTPUTS": num_outputs, "BLOCK_GROUPS": 256 // size}
    if not is_one:
        numbers += ["num_rows", "num_inputs"]
        block = {"BLOCK_OUTPUTS": module._FEW_ROWS_OUTPUTS, "BLOCK_ROWS": num_rows}
    return KernelSpec(
        module=module.__name__,
        name="_one_row_kernel" if is_one else "_few_rows_kernel",
        types=dict(zip(POINTERS, pointers, strict=True)) | dict.fromkeys(numbers, "i32"),
        constants={"IS_INT4": is_int4, "HAS_BIAS": True, "GROUP_BYTES": size} | block,
        aligned=(*POINTERS, "num_outputs", "row_bytes", *(() if is_one else ("num_inputs",))),
        num_stages=2 if is_one else 4,
    )


@pytest.mark.parametrize("num_rows", [1, 16])
def test_they_compile_for_gpus(num_rows: int):
    for compiled in compile_for(spec_of("int4", num_rows), (80, 90)):
        check_compiled(compiled)
        assert ("HMMA" in compiled.instructions) is (num_rows > 1)


@pytest.mark.slow
@pytest.mark.parametrize("num_outputs", [8, 32])
@pytest.mark.parametrize("weight_format", FORMATS)
def test_programs_of_every_size_compile_for_every_gpu(weight_format, num_outputs: int):
    for compiled in compile_for(spec_of(weight_format, 1, num_outputs=num_outputs)):
        check_compiled(compiled, most_registers=168)


@pytest.mark.slow
@pytest.mark.parametrize(("num_rows", "dtype"), [(1, "*bf16"), (16, "*fp16"), (64, "*bf16")])
@pytest.mark.parametrize("weight_format", FORMATS)
def test_every_format_compiles_for_every_gpu(weight_format, num_rows: int, dtype: str):
    for compiled in compile_for(spec_of(weight_format, num_rows, dtype)):
        check_compiled(compiled, most_registers=128 if num_rows == 1 else 255)
        assert bool({"HMMA", "HGMMA"} & set(compiled.instructions)) is (num_rows > 1)
