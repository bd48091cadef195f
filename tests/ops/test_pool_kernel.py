"""The pooling kernel, in Triton's interpreter or on a GPU, beside its definition and wrong ones."""

import math

import pytest
import torch
import torch.nn.functional as F
from kernels import (
    TARGETS,
    KernelSpec,
    check_compiled,
    compile_for,
    error_of,
    interpreted,
    limit_of,
)

from llava_video.ops.pool import Pooling, pooled_size
from llava_video.ops.pool_kernel import pool_rows_triton
from llava_video.ops.pool_rows import pool_rows_reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MODES = ("bilinear", "average", "max")


def seeded(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(DEVICE, dtype) * 2


def whole(maps: torch.Tensor, stride: int, mode: str) -> Pooling:
    """Return the pooling of the whole joined map."""
    height, width = maps.shape[1] * maps.shape[3], maps.shape[2] * maps.shape[3]
    size = pooled_size(height, width, stride, mode)
    return Pooling(crop=(0, height, 0, width), stride=stride, mode=mode, size=size)


def by_kernel(
    maps: torch.Tensor,
    pooling: Pooling,
    *,
    gelu: bool = False,
    ends: torch.Tensor | None = None,
    gap: bool = False,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return the kernel's rows, of float32: the interpreter cuts bfloat16 off, a GPU rounds."""
    height, width = pooling.size
    shape = (maps.shape[0], height, width + (gap or ends is not None), maps.shape[-1])
    rows = torch.full(shape, math.nan, dtype=dtype, device=DEVICE)
    pool_rows_triton(maps, rows, pooling, gelu=gelu, ends=ends)
    return rows


def check(maps: torch.Tensor, pooling: Pooling, *, gelu: bool) -> None:
    """Assert the house rule, a vector after each row included."""
    ends = seeded(maps.shape[-1], dtype=maps.dtype)
    wide = pool_rows_reference(maps.float(), pooling, gelu=gelu, ends=ends.float())
    own = pool_rows_reference(maps, pooling, gelu=gelu, ends=ends)
    rows = by_kernel(maps, pooling, gelu=gelu, ends=ends)
    assert error_of(rows, wide) <= limit_of(wide, own)


@interpreted
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("side", "stride"),
    [(5, 1), (5, 2), (5, 3), (5, 4), (1, 1)]
    + [pytest.param(13, stride, marks=pytest.mark.slow) for stride in (1, 2, 3, 4)],
)
def test_equals_the_reference(side: int, stride: int, mode):
    maps = seeded(1, 1, 1, side, side, 7)
    check(maps, whole(maps, stride, mode), gelu=stride % 2 == 0)


@interpreted
@pytest.mark.parametrize("stride", [2, 3, 4])
def test_a_single_patch(stride: int):
    maps = seeded(1, 1, 1, 1, 1, 1)
    check(maps, whole(maps, stride, "bilinear"), gelu=True)


@interpreted
@pytest.mark.parametrize("mode", MODES)
def test_room_after_each_row_is_made_zero(mode):
    maps, ends = seeded(2, 1, 1, 4, 4, 5), seeded(5)
    pooling = whole(maps, 2, mode)
    rows = by_kernel(maps, pooling, ends=ends)
    with_room = by_kernel(maps, pooling, gap=True)
    assert torch.equal(with_room[:, :, :-1], rows[:, :, :-1])
    assert not with_room[:, :, -1].any()
    assert torch.equal(by_kernel(maps, pooling), rows[:, :, :-1])


@interpreted
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gelu", [True, False])
def test_equals_the_reference_in_16_bits(mode, dtype: torch.dtype, gelu: bool):
    maps = seeded(2, 1, 1, 5, 5, 37, dtype=dtype)
    check(maps, whole(maps, 2, mode), gelu=gelu)


@interpreted
def test_the_real_map():
    """27 x 27 to 14 x 14, as every video of the family is pooled."""
    maps = seeded(1, 1, 1, 27, 27, 16, dtype=torch.bfloat16)
    check(maps, whole(maps, 2, "bilinear"), gelu=True)


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("side", [27, 24])
def test_real_sides_at_every_stride(side: int, stride: int, mode):
    maps = seeded(1, 1, 1, side, side, 24)
    check(maps, whole(maps, stride, mode), gelu=mode != "max")


@interpreted
@pytest.mark.parametrize(
    ("num_channels", "dtype"),
    [(3584, torch.bfloat16), (1152, torch.bfloat16), (896, torch.float32), (1031, torch.float16)],
)
def test_real_and_prime_numbers_of_channels(num_channels: int, dtype: torch.dtype):
    maps = seeded(1, 1, 1, 3, 3, num_channels, dtype=dtype)
    check(maps, whole(maps, 2, "bilinear"), gelu=True)


@interpreted
@pytest.mark.parametrize(
    ("stride", "mode", "crop", "size"),
    [
        (2, "bilinear", (1, 5, 0, 9), (2, 5)),
        (2, "average", (1, 6, 2, 9), (2, 3)),
        (2, "max", (1, 6, 2, 9), (2, 3)),
        (1, "average", (1, 4, 0, 9), (3, 9)),
        (1, "max", (2, 6, 1, 9), (3, 5)),  # a picture's map is resized, whatever the mode
        (1, "bilinear", (0, 2, 0, 3), (4, 4)),  # made larger, past its edges
        (5, "average", (0, 6, 0, 9), (1, 1)),  # a window of 25 patches
    ],
)
def test_windows_of_grids(stride: int, mode, crop, size):
    maps = seeded(2, 2, 3, 3, 3, 6)
    pooling = Pooling(crop=crop, stride=stride, mode=mode, size=size)
    pooling.check(6, 9)
    check(maps, pooling, gelu=False)


@interpreted
def test_maps_and_rows_that_are_not_contiguous():
    maps = seeded(3, 2, 7, 5, 1, 3)[:, 1:, 1:6].permute(0, 1, 4, 3, 2, 5)
    assert maps.shape == (3, 1, 1, 5, 5, 3)
    assert not maps.is_contiguous()
    pooling = whole(maps, 2, "bilinear")
    rows = torch.zeros(3, 20, 3, device=DEVICE)
    pool_rows_triton(maps, rows[:, 2:11].view(3, 3, 3, 3), pooling, gelu=False, ends=None)
    expected = pool_rows_reference(maps, pooling)
    assert torch.allclose(rows[:, 2:11], expected.flatten(1, 2), atol=1e-6)
    assert not rows[:, :2].any()
    assert not rows[:, 11:].any()


@interpreted
def test_rows_are_stored_in_their_own_dtype():
    maps = seeded(1, 1, 1, 5, 5, 16, dtype=torch.bfloat16)
    pooling = whole(maps, 2, "average")
    rows = by_kernel(maps, pooling, gelu=True, dtype=torch.bfloat16)
    wide = pool_rows_reference(maps.float(), pooling, gelu=True)
    one_step = wide.abs().max().item() * 2**-7  # the interpreter cuts off
    assert error_of(rows, wide) <= one_step


@interpreted
def test_not_a_number_stays_one():
    maps = torch.zeros(1, 1, 1, 4, 4, 3, device=DEVICE, dtype=torch.bfloat16)
    maps[..., 0, 1, 1] = math.nan
    for mode in MODES:
        for gelu in (False, True):
            rows = by_kernel(maps, whole(maps, 2, mode), gelu=gelu)
            assert rows.isnan().nonzero().tolist() == [[0, 0, 0, 1]], (mode, gelu)


def alone(values: torch.Tensor) -> torch.Tensor:
    """Return the kernel's GELU of values (n,), by a pooling that leaves them as they are."""
    maps = values.view(1, 1, 1, 1, 1, -1)
    pooling = Pooling(crop=(0, 1, 0, 1), stride=1, mode="bilinear", size=(1, 1))
    return by_kernel(maps, pooling, gelu=True).flatten()


def gelu64(values: torch.Tensor) -> torch.Tensor:
    """x Phi(x) in float64, by the complementary error function: no cancellation in the tail."""
    wide = values.double()
    return wide * 0.5 * torch.special.erfc(-wide / math.sqrt(2))


@interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_short_gelu_of_every_16_bit_number(dtype: torch.dtype):
    """Within 1.25e-5 of the value, 30 times nearer than the tanh GELU, half a step of bfloat16."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    values = bits.view(dtype).to(DEVICE)
    values = values[values.isfinite() & (values.abs() < 1e30)]
    exact = gelu64(values)
    error = (alone(values).double() - exact).abs()
    most = 1.25e-5 + 2**-22 * exact.abs()  # and float32's own rounding of large ones
    assert (error <= most).all()
    with_tanh = (F.gelu(values.double(), approximate="tanh") - exact).abs()
    assert not (with_tanh <= most).all()
    assert with_tanh.max() > 30 * error[values.abs() < 8].max()
    is_seen = exact.abs() > 0.01
    assert (error[is_seen] <= 2**-9 * exact.abs()[is_seen]).all()


@interpreted
def test_the_exact_gelu_of_float32():
    values = torch.linspace(-9, 9, 5001, device=DEVICE)
    exact = gelu64(values)
    limit = 2 * (F.gelu(values).double() - exact).abs().max() + 1e-6
    assert (alone(values).double() - exact).abs().max() <= limit
    assert (F.gelu(values, approximate="tanh").double() - exact).abs().max() > 100 * limit


@interpreted
def test_wrong_formulas_are_rejected():
    maps = seeded(1, 1, 1, 9, 9, 8)
    ends = seeded(8)
    pooling = whole(maps, 2, "bilinear")
    right = by_kernel(maps, pooling, gelu=True, ends=ends)
    wide = pool_rows_reference(maps, pooling, gelu=True, ends=ends)
    limit = limit_of(wide, wide)
    assert error_of(right, wide) <= limit
    first = F.gelu(maps[:, 0, 0]).permute(0, 3, 1, 2)
    with_tanh = F.gelu(maps[:, 0, 0], approximate="tanh").permute(0, 3, 1, 2)
    late = F.gelu(F.interpolate(maps[:, 0, 0].permute(0, 3, 1, 2), (5, 5), mode="bilinear"))
    mutants = {
        "corners aligned": F.interpolate(first, (5, 5), mode="bilinear", align_corners=True),
        "tanh GELU": F.interpolate(with_tanh, (5, 5), mode="bilinear"),
        "GELU after the pooling": late,
    }
    for name, mutant in mutants.items():
        assert error_of(mutant.permute(0, 2, 3, 1), wide[:, :, :-1]) > limit, name
    before = torch.cat((wide[:, :, -1:], wide[:, :, :-1]), dim=2)
    assert error_of(right, before) > limit, "newline before the row"
    assert right.shape[1] == 5, "floor for ceil gives 4"


@interpreted
def test_a_wrong_average_is_rejected():
    maps = seeded(1, 1, 1, 9, 9, 8)
    pooling = whole(maps, 2, "average")
    right, wide = by_kernel(maps, pooling), pool_rows_reference(maps, pooling)
    assert right.shape[1:3] == (4, 4), "ceil for floor gives 5"
    limit = limit_of(wide, wide)
    assert error_of(right, wide) <= limit
    first = maps[:, 0, 0].permute(0, 3, 1, 2)
    mutants = {
        "divided by the stride": F.avg_pool2d(first, 2, divisor_override=2),
        "padded": F.avg_pool2d(first, 2, padding=1)[..., :4, :4],
        "max": F.max_pool2d(first, 2),
    }
    for name, mutant in mutants.items():
        assert error_of(mutant.permute(0, 2, 3, 1), wide) > limit, name


@interpreted
@pytest.mark.parametrize(
    "maps",
    [
        torch.zeros(1, 1, 1, 5, 5, 4, dtype=torch.float64),
        torch.zeros(1, 1, 1, 5, 4, 5).transpose(4, 5),
    ],
)
def test_what_the_kernel_does_not_do_is_refused(maps: torch.Tensor):
    rows = torch.zeros(1, 3, 3, 4)
    with pytest.raises(ValueError, match="side by side"):
        pool_rows_triton(maps, rows, whole(maps, 2, "bilinear"), gelu=False, ends=None)


POINTERS = ("maps_ptr", "rows_ptr", "ends_ptr")
STRIDES = (
    "map_stride",
    "tile_row_stride",
    "tile_col_stride",
    "patch_row_stride",
    "patch_col_stride",
    "rows_map_stride",
    "rows_row_stride",
    "rows_col_stride",
)
SIZES = ("top", "left", "height", "width", "out_height", "out_width")


def spec_of(dtype: str = "*bf16", num_warps: int = 2, **changes: object) -> KernelSpec:
    """Return how 27 x 27 x 3584 is pooled to 14 x 14 with room for newlines, and changes of it."""
    constants: dict[str, object] = {
        "NUM_CHANNELS": 3584,
        "SIDE": 27,
        "TAPS_Y": 2,
        "TAPS_X": 2,
        "MODE": "bilinear",
        "GELU": "short",
        "ENDS": "zeros",
        "BLOCK": 512,
        "PARTS": 2,
        **changes,
    }
    types = dict.fromkeys(POINTERS, dtype) | dict.fromkeys(STRIDES + SIZES, "i32")
    return KernelSpec(
        module="llava_video.ops.pool_kernel",
        name="_pool_rows_kernel",
        types={name: kind for name, kind in types.items() if name not in constants},
        constants=constants,
        aligned=POINTERS + STRIDES,
        num_warps=num_warps,
    )


def check_widths(spec: KernelSpec, targets: tuple[int, ...], num_taps: int) -> None:
    """Assert that every tap is one wide load (of 16-bit numbers), and every store is wide."""
    for compiled in compile_for(spec, targets):
        check_compiled(compiled, most_registers=128)
        assert compiled.shared_bytes == 0
        assert set(compiled.global_loads) == set(compiled.global_stores) == {"128"}
        assert compiled.global_loads["128"] == num_taps


def test_compiles_without_a_gpu():
    check_widths(spec_of(), (80, 90), 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "num_taps"),
    [
        (spec_of(), 4),
        (spec_of("*fp16"), 4),
        (spec_of("*fp32", GELU="exact"), 8),
        (spec_of(NUM_CHANNELS=896, PARTS=1), 4),
        (spec_of(NUM_CHANNELS=1152, BLOCK=256, num_warps=1), 4),
        (spec_of(MODE="average", ENDS="none"), 4),
        (spec_of(MODE="average", TAPS_Y=3, TAPS_X=3), 9),
        (spec_of(MODE="average", TAPS_Y=4, TAPS_X=4), 4),
        (spec_of(MODE="max", GELU="none", ENDS="given", TAPS_Y=3, TAPS_X=3), 10),
        (spec_of(MODE="average", TAPS_Y=13, TAPS_X=13), 13),
        # A stride of 27: one output, sizes that Triton takes for constants.
        (spec_of(TAPS_Y=1, TAPS_X=1, out_height=1, out_width=1), 1),
    ],
)
def test_compiles_for_every_card(spec: KernelSpec, num_taps: int):
    check_widths(spec, TARGETS, num_taps)
