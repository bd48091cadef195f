"""The tiling kernels, in Triton's interpreter or on a GPU: the definition's bits, and no others."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from kernels import TARGETS, KernelSpec, check_lean, compile_for, interpreted
from tile_cases import CLIP_MEAN, CLIP_STD, RESAMPLING, by_hand, by_pillow, mutants, noise

from llava_video.ops.resample import Filter, is_height_first, taps
from llava_video.ops.tile_frames import _values, tile_frames_reference
from llava_video.ops.tiles import crop_size
from llava_video.ops.tiles_kernel import (
    TILE_DTYPES,
    Canvas,
    _on_device,
    middle_bytes,
    program_shape,
    tiles_triton,
    windows,
)
from llava_video.values import Grid

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ONE = Grid(1, 1)


def by_kernel(
    frames: torch.Tensor,
    canvas: Canvas,
    tile_px: int,
    dtype: torch.dtype = torch.float32,
    kind: Filter = "bicubic",
) -> torch.Tensor:
    """Return the kernels' tiles, written over ones of another value."""
    shape = (len(frames), canvas.num_tiles, 3, tile_px, tile_px)
    tiles = torch.full(shape, 77, dtype=dtype, device=DEVICE)
    values = _values(CLIP_MEAN, CLIP_STD, dtype, DEVICE)
    tiles_triton(frames.to(DEVICE), tiles, values, canvas, kind)
    return tiles.flatten(0, 1).cpu()


def squeezed(tile_px: int) -> Canvas:
    return Canvas(grid=ONE, size=(tile_px, tile_px), offset=(0, 0))


def check_squeeze(
    frames: torch.Tensor, tile_px: int, dtype: torch.dtype, kind: Filter = "bicubic"
) -> None:
    """Assert that the tiles are the reference's, bit for bit."""
    wanted = tile_frames_reference(
        frames, "squeeze", ONE, tile_px, CLIP_MEAN, CLIP_STD, kind=kind, dtype=dtype
    )
    assert torch.equal(by_kernel(frames, squeezed(tile_px), tile_px, dtype, kind), wanted)


# Higher first in half of them; up, down, one of the two, and neither.
SIZES = [(37, 53), (53, 19), (5, 7), (7, 41), (41, 7), (1, 1), (1, 30), (30, 1), (13, 13), (13, 40)]


@interpreted
@pytest.mark.parametrize("kind", sorted(RESAMPLING))
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_reference(size: tuple[int, int], kind: Filter):
    check_squeeze(noise(1, *size), 13, torch.uint8, kind)


@interpreted
@pytest.mark.parametrize("dtype", TILE_DTYPES)
@pytest.mark.parametrize("size", [(37, 23), (90, 20)])
def test_every_dtype_has_the_references_bits(size: tuple[int, int], dtype: torch.dtype):
    """Values are looked up, so there is nothing that an interpreter could round otherwise."""
    check_squeeze(noise(2, *size), 19, dtype)


@interpreted
@pytest.mark.parametrize("size", [(40, 61), (97, 31)])
@pytest.mark.parametrize("grid", [Grid(1, 2), Grid(2, 1)])
@pytest.mark.parametrize("tile_px", [12, 16])
def test_a_canvas_of_tiles_is_black_beside_the_picture(
    size: tuple[int, int], grid: Grid, tile_px: int
):
    """Of odd offsets, in both directions, and smaller than a tile."""
    rows, cols = grid.rows * tile_px, grid.cols * tile_px
    picture = (rows - 5, cols - 7)
    canvas = Canvas(grid=grid, size=picture, offset=(2, 3))
    frames = noise(2, *size)
    tiles = by_kernel(frames, canvas, tile_px, torch.uint8)
    wanted = np.zeros((2, rows, cols, 3), np.uint8)
    for own, frame in zip(wanted, frames, strict=True):
        own[2 : 2 + picture[0], 3 : 3 + picture[1]] = by_pillow(frame, picture)
    cut = wanted.reshape(2, grid.rows, tile_px, grid.cols, tile_px, 3)
    cut = cut.transpose(0, 1, 3, 5, 2, 4).reshape(tiles.shape)
    assert np.array_equal(tiles.numpy(), cut)


@interpreted
@pytest.mark.parametrize("size", [(20, 61), (61, 20), (37, 38), (50, 21)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16])
def test_the_middle_is_kept(size: tuple[int, int], dtype: torch.dtype):
    """In both orders: 50 x 21 px made 38 x 16 lose twice as many rows as columns, and more."""
    tile_px = 16
    height, width = crop_size(*size, tile_px)
    canvas = Canvas(grid=ONE, size=(height, width), offset=(0, 0), kept=(tile_px, tile_px))
    frames = noise(2, *size)
    tiles = by_kernel(frames, canvas, tile_px, dtype)
    options = ("crop", ONE, tile_px, CLIP_MEAN, CLIP_STD)
    assert torch.equal(tiles, tile_frames_reference(frames, *options, dtype=dtype))
    if dtype is torch.uint8:
        top, left = (height - tile_px) // 2, (width - tile_px) // 2
        for tile, frame in zip(tiles, frames, strict=True):
            whole = by_pillow(frame, (height, width))
            shown = whole[top : top + tile_px, left : left + tile_px]
            assert np.array_equal(tile.permute(1, 2, 0).numpy(), shown)
            begin = whole[:tile_px, :tile_px]
            assert (top, left) == (0, 0) or not np.array_equal(shown, begin)


@interpreted
def test_no_filter_is_run_as_one():
    check_squeeze(noise(2, 37, 53), 13, torch.bfloat16, "nearest")
    check_squeeze(noise(2, 53, 7), 13, torch.uint8, "nearest")


@interpreted
def test_both_orders_are_run_on_both_sides_of_the_rule():
    for old, is_rows_first in (((40, 60), True), ((60, 21), False)):
        assert is_height_first(old, (16, 16)) is not is_rows_first
        (frame,) = frames = noise(1, *old)
        levels = by_kernel(frames, squeezed(16), 16, torch.uint8)[0].permute(1, 2, 0).numpy()
        right = by_hand(frame, (16, 16), is_rows_first=is_rows_first)
        assert np.array_equal(levels, right)
        for name, mutant in mutants(frame, (16, 16), is_rows_first=is_rows_first):
            assert not np.array_equal(levels, mutant), name


@interpreted
def test_frames_and_tiles_with_room_between_them():
    whole = noise(4, 30, 24)
    frames = whole[::2, 3:26, 5:22]  # whole rows of pixels, gaps between rows and frames
    assert not frames.is_contiguous()
    room = torch.full((2, 5, 3, 13, 13), math.nan, device=DEVICE)
    values = _values(CLIP_MEAN, CLIP_STD, torch.float32, DEVICE)
    frames_there = whole.to(DEVICE)[::2, 3:26, 5:22]
    tiles_triton(frames_there, room[:, 2:3], values, squeezed(13), "bicubic")
    wanted = tile_frames_reference(frames, "squeeze", ONE, 13, CLIP_MEAN, CLIP_STD)
    assert torch.equal(room[:, 2].cpu(), wanted)
    assert room[:, [0, 1, 3, 4]].isnan().all()


@interpreted
def test_more_than_one_program_each_way():
    """3 x 47 lanes are two programs, 26 rows four; 40 px are three of 16 rows."""
    check_squeeze(noise(1, 26, 130), 47, torch.uint8)


@interpreted
@pytest.mark.slow
@pytest.mark.parametrize("size", [(360, 640), (640, 360)])
def test_a_real_tile(size: tuple[int, int]):
    check_squeeze(noise(1, *size), 384, torch.uint8)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TILE_DTYPES)
@pytest.mark.parametrize("tile_px", [384, 336, 378])
def test_real_frames_on_a_gpu(tile_px: int, dtype: torch.dtype):
    for size in ((1080, 1920), (1920, 1080), (2160, 3840)):
        check_squeeze(noise(2, *size), tile_px, dtype)


@interpreted
@pytest.mark.parametrize(
    ("frames", "dtype", "values_dtype", "num_tiles", "words"),
    [
        (torch.zeros(1, 4, 5, 3), torch.uint8, torch.uint8, 1, "float32"),
        (noise(1, 4, 5).transpose(1, 2), torch.uint8, torch.uint8, 1, "side by side"),
        (noise(1, 4, 5).flip(3)[..., :2], torch.uint8, torch.uint8, 1, "side by side"),
        (noise(1, 4, 5), torch.float64, torch.float64, 1, "float64"),
        (noise(1, 4, 5), torch.float32, torch.uint8, 1, "values"),
        (noise(1, 4, 5), torch.uint8, torch.uint8, 2, "in one run"),
    ],
)
def test_what_the_kernels_do_not_do_is_refused(
    frames: torch.Tensor, dtype: torch.dtype, values_dtype: torch.dtype, num_tiles: int, words: str
):
    tiles = torch.zeros(1, num_tiles, 3, 8, 8, dtype=dtype)
    values = torch.zeros(3, 256, dtype=values_dtype)
    with pytest.raises(ValueError, match=words):
        tiles_triton(frames, tiles, values, squeezed(8), "bicubic")


@pytest.mark.parametrize("kind", get_args(Filter))
@pytest.mark.parametrize(
    ("old_px", "new_px"), [(1, 1), (1, 9), (9, 1), (3, 7), (97, 13), (13, 97), (1920, 384), (8, 8)]
)
def test_windows_hold_the_same_weights_inside_the_line(old_px: int, new_px: int, kind: Filter):
    starts, weights = windows(old_px, new_px, kind)
    num_taps = len(weights)
    assert starts.shape == (new_px,)
    assert (starts >= 0).all()
    assert (starts + num_taps <= old_px).all()
    found, whole = taps(old_px, new_px, kind), np.zeros((2, new_px, old_px), np.int64)
    for idx in range(new_px):
        whole[0, idx, starts[idx] : starts[idx] + num_taps] = weights[:, idx]
        own = slice(found.starts[idx], found.starts[idx] + found.counts[idx])
        whole[1, idx, own] = found.weights[idx, : found.counts[idx]]
    assert np.array_equal(*whole)


@pytest.mark.parametrize("kind", get_args(Filter))
@pytest.mark.parametrize(("old_px", "new_px"), [(3, 70), (97, 13), (1920, 384), (40, 40)])
def test_windows_of_the_kept_are_those_of_all(old_px: int, new_px: int, kind: Filter):
    first, num_kept = new_px // 3, new_px // 2
    starts, weights = windows(old_px, new_px, kind, first, num_kept)
    all_starts, all_weights = windows(old_px, new_px, kind)
    assert starts.shape == (num_kept,) == weights.shape[1:]
    sums = np.zeros((2, num_kept, old_px), np.int64)
    for idx in range(num_kept):
        sums[0, idx, starts[idx] : starts[idx] + len(weights)] = weights[:, idx]
        place = all_starts[first + idx]
        sums[1, idx, place : place + len(all_weights)] = all_weights[:, first + idx]
    assert np.array_equal(*sums)


def test_the_weights_of_a_thin_crop_are_few():
    """Of a line of 65,000 px made 21,840,000, as a crop's longer edge may be."""
    line = (65_000, 21_840_000, 10_919_832, 336)
    starts, weights = _on_device(*line, "bicubic", torch.device("cpu"))
    assert starts.shape == (336,)
    assert weights.shape[0] <= 5
    assert weights.shape[1] == 336


@pytest.mark.parametrize(
    ("size", "canvas", "expected"),
    [
        ((1080, 1920), squeezed(384), 3 * 1080 * 384),  # its rows resized
        ((1920, 1080), squeezed(384), 3 * 384 * 1088),  # its columns, at 1080 and 8 bytes a row
        ((1080, 1920), Canvas(grid=Grid(3, 5), size=(1080, 1920), offset=(36, 0)), 3 * 1080 * 1920),
        ((360, 640), Canvas(grid=Grid(1, 2), size=(384, 683), offset=(0, 42)), 3 * 360 * 768),
        # The shorter edge made 384 px, and 384 of the longer kept, whichever is resized first.
        ((360, 640), Canvas(grid=ONE, size=(384, 682), offset=(0, 0), kept=(384, 384)), 414_720),
        ((2000, 400), Canvas(grid=ONE, size=(1920, 384), offset=(0, 0), kept=(384, 384)), 460_800),
    ],
)
def test_bytes_between_the_launches_by_hand(size: tuple[int, int], canvas: Canvas, expected: int):
    assert middle_bytes(*size, canvas, 384) == expected


@pytest.mark.parametrize(
    ("tile_px", "dtype", "expected"),
    [
        (384, torch.float32, (4, 128)),
        (384, torch.bfloat16, (8, 128)),
        (384, torch.uint8, (16, 128)),
        (56, torch.float32, (8, 64)),
    ],
)
def test_a_thread_has_128_bits_of_tiles(tile_px: int, dtype: torch.dtype, expected):
    rows, cols = program_shape(tile_px, dtype)
    assert (rows, cols) == expected
    assert rows * cols * dtype.itemsize == 128 * 16


FIRST_TYPES = {
    **dict.fromkeys(("frames_ptr", "middle_ptr"), "*u8"),
    **dict.fromkeys(("starts_ptr", "weights_ptr"), "*i32"),
    **dict.fromkeys(
        ("frame_stride", "row_stride", "pitch", "height", "width", "left", "num_taps"), "i32"
    ),
}


def first_spec(axis: str = "width", *aligned: str, **ones: int) -> KernelSpec:
    """Return how the first launch is compiled; sizes of 1 are constants to Triton."""
    return KernelSpec(
        module="llava_video.ops.tiles_kernel",
        name="_first_kernel",
        types={name: kind for name, kind in FIRST_TYPES.items() if name not in ones},
        constants={"AXIS": axis, "PRECISION": 22, "ROWS": 8, "LANES": 128, **ones},
        aligned=("frames_ptr", "middle_ptr", "starts_ptr", "weights_ptr", "pitch", *aligned),
    )


def second_spec(
    axis: str = "height", dtype: torch.dtype = torch.bfloat16, tile_px: int = 384, **ones: int
) -> KernelSpec:
    """Return how the second launch is compiled, likewise."""
    names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    pointer = f"*{names.get(dtype, 'u8')}"
    pointers = {"middle_ptr": "*u8", "tiles_ptr": pointer, "values_ptr": pointer}
    pointers |= dict.fromkeys(("starts_ptr", "weights_ptr"), "*i32")
    sizes = ("middle_height", "height", "width", "top", "left", "grid_cols", "num_taps")
    rows, cols = program_shape(tile_px, dtype)
    types = pointers | dict.fromkeys(("tiles_frame_stride", "pitch", *sizes), "i32")
    shape = {"PX": tile_px, "ROWS": rows, "COLS": cols}
    return KernelSpec(
        module="llava_video.ops.tiles_kernel",
        name="_second_kernel",
        types={name: kind for name, kind in types.items() if name not in ones},
        constants={"AXIS": axis, "PRECISION": 22, **shape, **ones},
        aligned=(*pointers, "tiles_frame_stride", "pitch"),
    )


def check_first(spec: KernelSpec, targets: tuple[int, ...]) -> None:
    """Assert that no more is loaded than bytes and weights, and one weight for 8 rows of them."""
    for compiled in compile_for(spec, targets):
        check_lean(compiled, most_registers=64)
        assert compiled.global_stores == {"8": 8}
        assert compiled.global_loads["8"] == 8
        if spec.constants["AXIS"] == "width":
            assert compiled.global_loads["32"] == 2  # a start, a weight


def check_second(spec: KernelSpec, dtype: torch.dtype, targets: tuple[int, ...]) -> None:
    """Assert that tiles are stored 128 bits wide, and old rows loaded for as many numbers."""
    for compiled in compile_for(spec, targets):
        check_lean(compiled, most_registers=128)
        assert compiled.global_stores == {"128": 1}
        if spec.constants["AXIS"] == "height":
            assert compiled.shared_bytes == 0
            per_thread = 16 // dtype.itemsize
            assert compiled.global_loads.get(str(8 * per_thread), 0) > 0
            # The only other loads are starts and weights, and the values that are looked up.
            assert set(compiled.global_loads) <= {
                "32",
                str(8 * per_thread),
                str(8 * dtype.itemsize),
            }


def test_compiles_without_a_gpu():
    check_first(first_spec(), (80, 90))
    check_second(second_spec(), torch.bfloat16, (80, 90))


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["width", "height"])
def test_compiles_for_every_card(axis: str):
    for aligned in ((), ("row_stride",)):
        check_first(first_spec(axis, *aligned), TARGETS)
    for dtype in TILE_DTYPES:
        check_second(second_spec(axis, dtype), dtype, TARGETS)
    check_second(second_spec(axis, tile_px=336), torch.bfloat16, TARGETS)


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["width", "height"])
def test_compiles_for_sizes_of_one(axis: str):
    """A line of pixels to one: sizes that Triton takes for constants."""
    ones = {"num_taps": 1, "height": 1, "width": 1}
    for spec in (first_spec(axis, **ones), second_spec(axis, grid_cols=1, left=1, **ones)):
        for compiled in compile_for(spec, (80, 90)):
            check_lean(compiled)
