"""The native tiles are those of Pillow and NumPy bit for bit, with every set of instructions."""

import multiprocessing
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tile_cases import CLIP_MEAN, CLIP_STD, HALF, mutants

from llava_video.errors import BackendMissingError
from llava_video.ops import native_tiles
from llava_video.ops.native import native
from llava_video.ops.native_tiles import whole_rows
from llava_video.ops.resample import Filter
from llava_video.ops.tiles import Tiling, clip_tiles, clip_tiles_native, clip_tiles_reference
from llava_video.values import Fit, Grid

pytestmark = pytest.mark.skipif(native() is None, reason="built without the native part")
SETS = native().instruction_sets() if native() else []

SQUEEZE = Tiling("squeeze", Grid(1, 1), 58, HALF, HALF)
PRIMES = (1, 2, 3, 5, 7, 13, 31, 61, 127, 251, 509, 1021, 2039, 4999)


def noise(num_frames: int, height_px: int, width_px: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng((seed, height_px, width_px))
    return generator.integers(0, 256, (num_frames, height_px, width_px, 3), dtype=np.uint8)


def hard(frames: np.ndarray) -> np.ndarray:
    """Return frames of black and white: every sum that can overshoot does."""
    return np.where(frames > 127, 255, 0).astype(np.uint8)


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert np.array_equal(found.view(np.uint8), expected.view(np.uint8))  # NaN and -0 too


@st.composite
def clips(draw, most_px: int = 600, most_pixels: int = 120_000) -> np.ndarray:
    sides = st.one_of(st.sampled_from([p for p in PRIMES if p <= most_px]), st.integers(1, most_px))
    height_px, width_px = draw(sides), draw(sides)
    # Long sides beside short ones: a large square would only be slow.
    width_px = min(width_px, max(1, most_pixels // height_px))
    frames = noise(draw(st.integers(1, 2)), height_px, width_px, draw(st.integers(0, 99)))
    return hard(frames) if draw(st.booleans()) else frames


@st.composite
def tilings(draw, most_px: int = 130) -> Tiling:
    fit = draw(st.sampled_from(get_args(Fit)))
    grid = Grid(draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    mean, std = draw(st.sampled_from([(HALF, HALF), (CLIP_MEAN, CLIP_STD)]))
    return Tiling(
        fit=fit,
        grid=grid if fit == "letterbox" else Grid(1, 1),
        tile_px=draw(st.integers(1, most_px)),
        mean=mean,
        std=std,
        overview=draw(st.booleans()),
        dtype=draw(st.sampled_from(["float32", "bfloat16", "float16", "uint8"])),
        kind=draw(st.sampled_from(get_args(Filter))),
    )


@pytest.mark.parametrize("isa", SETS)
@given(clips(), tilings(), st.integers(1, 3))
@settings(max_examples=60)
def test_any_frame_any_tiling(isa: str, frames: np.ndarray, tiling: Tiling, num_threads: int):
    found = clip_tiles_native(frames, tiling, isa=isa, num_threads=num_threads)
    assert_same(found, clip_tiles_reference(frames, tiling))


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize(
    "size", [(1, 5000), (5000, 1), (4999, 3), (3, 4999), (1, 1), (719, 1279), (2039, 509)]
)
def test_long_sides(isa: str, size: tuple[int, int]):
    frames = hard(noise(1, *size))
    for kind in ("bicubic", "lanczos"):
        tiling = SQUEEZE._replace(kind=kind, dtype="uint8", tile_px=127)
        assert_same(
            clip_tiles_native(frames, tiling, isa=isa), clip_tiles_reference(frames, tiling)
        )


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("size", [(1, 65_000), (9_000, 1), (3, 20_000)])
@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_the_thinnest_frames(isa: str, size: tuple[int, int], fit: Fit):
    tiling = Tiling(fit, Grid(1, 1), 336, CLIP_MEAN, CLIP_STD)
    frames = hard(noise(1, *size))
    tracemalloc.start()
    try:
        found = clip_tiles_native(frames, tiling, isa=isa)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert_same(found, clip_tiles_reference(frames, tiling))
    # All weights of the crop's longer edge were 437 MB and more.
    assert peak_bytes < 20_000_000


@pytest.mark.parametrize("isa", SETS)
def test_frames_as_they_are_read(isa: str):
    tiling = SQUEEZE._replace(tile_px=384)
    grid = Tiling("letterbox", Grid(2, 3), 384, CLIP_MEAN, CLIP_STD, True, "bfloat16")
    for size in ((720, 1280), (1280, 720)):
        frames = noise(2, *size)
        for each in (tiling, tiling._replace(fit="pad"), grid):
            found = clip_tiles_native(frames, each, isa=isa, num_threads=2)
            assert_same(found, clip_tiles_reference(frames, each))


@pytest.mark.slow
@pytest.mark.parametrize("isa", SETS)
@given(clips(most_px=5000, most_pixels=3_000_000), tilings(most_px=500), st.integers(1, 3))
@settings(max_examples=400)
def test_any_frame_any_tiling_at_length(
    isa: str, frames: np.ndarray, tiling: Tiling, num_threads: int
):
    found = clip_tiles_native(frames, tiling, isa=isa, num_threads=num_threads)
    assert_same(found, clip_tiles_reference(frames, tiling))


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize(
    ("size", "is_rows_first"), [((90, 160), True), ((160, 90), False), ((40, 50), True)]
)
def test_wrong_resizes_are_noticed(isa: str, size: tuple[int, int], is_rows_first: bool):
    frame = hard(noise(1, *size))
    tiling = SQUEEZE._replace(dtype="uint8")
    found = clip_tiles_native(frame, tiling, isa=isa)[0, 0].transpose(1, 2, 0)
    for name, wrong in mutants(torch.from_numpy(frame[0]), (58, 58), is_rows_first=is_rows_first):
        assert not np.array_equal(found, wrong), name


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize(("mean", "std"), [(HALF, HALF), (CLIP_MEAN, CLIP_STD)])
def test_numbers_are_rounded_as_torch_rounds(isa: str, dtype: str, mean, std):
    frames = noise(1, 64, 64)
    tiling = Tiling("squeeze", Grid(1, 1), 64, mean, std)
    expected = torch.from_numpy(clip_tiles_reference(frames, tiling)).to(getattr(torch, dtype))
    found = torch.from_numpy(clip_tiles_native(frames, tiling._replace(dtype=dtype), isa=isa))
    assert set(np.unique(frames).tolist()) == set(range(256))
    assert torch.equal(found.view(expected.dtype), expected)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize(
    "std", [1e-40, 1e-30, 3e38, 0.0, 1.0000001192092896, 0.99999994, 0.001], ids=str
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_any_normalisation(isa: str, std: float, dtype: str):
    # Where arithmetic by the reciprocal does not give the definition's bits, its table does.
    tiling = Tiling("squeeze", Grid(1, 1), 48, (0.0, 0.5, 0.25), (std,) * 3, dtype=dtype)
    frames = noise(1, 48, 48)
    assert_same(clip_tiles_native(frames, tiling, isa=isa), clip_tiles_reference(frames, tiling))


def test_the_usual_normalisations_are_arithmetic():
    for mean, std in ((HALF, HALF), (CLIP_MEAN, CLIP_STD)):
        for isa in SETS[1:]:
            tiler = tiler_of(mean, std, isa)
            assert [tiler.by_formula(channel) for channel in range(3)] == [True] * 3
    assert not tiler_of(HALF, (1e-40,) * 3, SETS[-1]).by_formula(0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def tiler_of(mean, std, isa: str):
    from llava_video.ops.tiles import _tiler

    with np.errstate(all="ignore"):
        return _tiler(10, 10, Tiling("squeeze", Grid(1, 1), 5, mean, std), isa)


VIEWS = {
    "rows with gaps": lambda wide: wide[:, :, 5:40],
    "every other row": lambda wide: wide[:, ::2],
    "every other frame": lambda wide: wide[::2],
    "upside down": lambda wide: wide[:, ::-1],
    "mirrored": lambda wide: wide[:, :, ::-1],
    "turned": lambda wide: np.rot90(wide, axes=(1, 2)),
    "turned back": lambda wide: np.rot90(wide, 3, axes=(1, 2)),
    "blue first": lambda wide: wide[..., ::-1],
    "of four channels": lambda wide: np.concatenate([wide, wide], axis=3)[..., :3],
    "one column": lambda wide: wide[:, :, 7:8],
    "the same frame again": lambda wide: np.broadcast_to(wide[:1], wide.shape),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("fit", ["squeeze", "pad"])
def test_any_view_of_the_frames(view, fit):
    frames = view(noise(3, 61, 47))
    frames.flags.writeable = False
    tiling = SQUEEZE._replace(fit=fit)
    expected = clip_tiles_reference(np.ascontiguousarray(frames), tiling)
    assert_same(clip_tiles_native(frames, tiling), expected)


def test_only_what_must_be_is_copied():
    frames = noise(2, 20, 30)
    assert np.shares_memory(whole_rows(frames[:, ::-2, 4:9]), frames)
    assert not np.shares_memory(whole_rows(frames[:, :, ::-1]), frames)


AT_THE_END = """
import ctypes, mmap, sys
import numpy as np
from llava_video.ops.resample import Filter
from llava_video.ops.tiles import Tiling, clip_tiles_native
from llava_video.values import Fit, Grid
pages = mmap.mmap(-1, 64 * mmap.PAGESIZE)
start = ctypes.addressof(ctypes.c_char.from_buffer(pages))
libc = ctypes.CDLL(None, use_errno=True)
for guard in (0, 63):  # no byte before and after may be read
    assert libc.mprotect(ctypes.c_void_p(start + guard * mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
half = (0.5, 0.5, 0.5)
for isa in sys.argv[1:]:
    for height, width in ((1, 1), (1, 5), (16, 64), (17, 63), (48, 65), (33, 2), (96, 20)):
        size = height * width * 3
        for begin in (mmap.PAGESIZE, 63 * mmap.PAGESIZE - size):
            frames = np.frombuffer(pages, np.uint8, size, begin).reshape(1, height, width, 3)
            for view in (frames, frames[:, ::-1]):
                for fit in ("squeeze", "pad"):
                    clip_tiles_native(view, Tiling(fit, Grid(1, 1), 24, half, half), isa=isa)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="protects pages by mprotect")
def test_nothing_beside_the_frames_is_read():
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_END, *SETS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_any_number_of_threads_gives_the_same():
    frames = noise(5, 700, 400)
    tiling = Tiling("letterbox", Grid(2, 2), 96, HALF, HALF, overview=True)
    expected = clip_tiles_reference(frames, tiling)
    for num_threads in (None, 1, 2, 3, 7, 64):
        for num_frames in (1, 5):
            found = clip_tiles_native(frames[:num_frames], tiling, num_threads=num_threads)
            assert_same(found, expected[:num_frames])


def test_several_python_threads_at_once():
    clips_of = [noise(2, 300 + 7 * i, 500 - 11 * i) for i in range(8)]
    expected = [clip_tiles_reference(frames, SQUEEZE) for frames in clips_of]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            found = pool.map(lambda frames: clip_tiles_native(frames, SQUEEZE), clips_of)
            for one, other in zip(found, expected, strict=True):
                assert_same(one, other)


def _tiles_of(frames: np.ndarray) -> np.ndarray:
    return clip_tiles_native(frames, SQUEEZE, num_threads=3)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_goes_on():
    frames = noise(4, 500, 600)
    expected = _tiles_of(frames)
    with ThreadPoolExecutor(1) as busy:  # another thread is inside while the process forks
        going = busy.submit(lambda: [_tiles_of(frames) for _ in range(20)])
        with multiprocessing.get_context("fork").Pool(2) as pool:
            for found in pool.map_async(_tiles_of, [frames] * 4).get(timeout=60):
                assert_same(found, expected)
        assert_same(going.result()[-1], expected)


def test_tiles_are_written_where_asked():
    frames = noise(2, 30, 40)
    out = np.full((2, 1, 3, 58, 58), 7, np.float32)
    assert clip_tiles(frames, SQUEEZE, out=out) is out
    assert_same(out, clip_tiles_reference(frames, SQUEEZE))
    again = np.full_like(out, 7)
    assert clip_tiles_reference(frames, SQUEEZE, out=again) is again
    assert_same(again, out)


def test_no_frames_give_no_tiles():
    assert clip_tiles(noise(2, 30, 40)[:0], SQUEEZE).shape == (0, 1, 3, 58, 58)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"isa": "sse9"}, "isa = 'sse9', allowed on this processor: auto, plain"),
        ({"num_threads": 0}, "num_threads = 0, allowed: >= 1"),
        ({"out": np.empty((1, 1, 3, 58, 57), np.float32)}, r"\(1, 1, 3, 58, 57\) float32, allowed"),
        ({"out": np.empty((1, 1, 3, 58, 58), np.float16)}, "float16, allowed: .* float32"),
        ({"out": np.empty((1, 1, 3, 58, 116), np.float32)[..., ::2]}, "gaps"),
        ({"out": np.broadcast_to(np.float32(0), (1, 1, 3, 58, 58))}, "gaps or read only"),
    ],
)
def test_what_cannot_be_asked_is_said(options: dict, match: str):
    with pytest.raises(ValueError, match=match):
        clip_tiles_native(noise(1, 20, 20), SQUEEZE, **options)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((1, 4, 4, 3), np.float32),
        np.zeros((1, 4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((1, 0, 4, 3), np.uint8),
    ],
    ids=lambda frames: f"{frames.shape} {frames.dtype}",
)
def test_what_are_no_frames_is_refused(frames: np.ndarray):
    for tiled in (clip_tiles_native, clip_tiles_reference):
        with pytest.raises(ValueError, match=r"allowed: \(T, H, W, 3\) uint8"):
            tiled(frames, SQUEEZE)


def test_the_native_part_checks_what_it_is_given():
    tiler = tiler_of(HALF, HALF, "plain")
    out = np.empty((1, 1, 3, 5, 5), np.float32)
    with pytest.raises(ValueError, match=r"frames of shape \(1, 10, 11, 3\), allowed: \(T, 10, 10"):
        tiler.run(noise(1, 10, 11), out, 1)
    with pytest.raises(ValueError, match=r"out of shape \(1, 1, 3, 5, 4\)"):
        tiler.run(noise(1, 10, 10), np.empty((1, 1, 3, 5, 4), np.float32), 1)
    weights = (np.zeros(5, np.int32), np.ones(5, np.int32), np.ones((5, 1), np.int32))
    past = (np.full(5, 10, np.int32), *weights[1:])
    back = (np.arange(5, 0, -1, dtype=np.int32), *weights[1:])
    huge = (*weights[:2], np.full((5, 1), 2**31 - 1, np.int32))
    place = {"is_height_first": False, "offset_px": (0, 0), "grid": (1, 1), "first_tile": 1}
    for wrong in (past, back):
        with pytest.raises(ValueError, match="taps of new pixel"):
            tiler.add(*wrong, *weights, **place)
    with pytest.raises(ValueError, match="leaves its canvas of 1 x 1 tiles of 5 px"):
        tiler.add(*weights, *weights, **{**place, "offset_px": (0, 1)})
    for isa in SETS[1:]:
        with pytest.raises(ValueError, match=f"too large for {isa}"):
            tiler_of(HALF, HALF, isa).add(*huge, *weights, **place)


def test_without_the_native_part_it_cannot_be_insisted_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native_tiles, "native", lambda: None)
    with pytest.raises(BackendMissingError, match="native part"):
        clip_tiles_native(noise(1, 9, 11), SQUEEZE._replace(tile_px=3))
