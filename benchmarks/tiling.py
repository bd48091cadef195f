"""How fast do frames become tiles? One 384 px tile of 1080p, a 3 x 3 grid and overview of 4K.

Bound by memory at best: a frame is read once, and its tiles are written. Good: >= 15 x the
reference's own path, transformers' SigLIP processor on Pillow; >= 3 x torch's antialiased resize of
uint8 and its normalisation; and little more time than one copy of the frame's bytes, 1.5 x as the
limit to chase. Every competitor meets every frame of the same clip, one after the other, and drops
its tiles, as a model does that has used them; the frames together are larger than the caches. torch
and the native part have all cores of this process, Pillow takes one, and so does "one thread".
"a clip" is one call for all frames that writes where it wrote before, as the copy does.

    python benchmarks/tiling.py [--append] [--check]
"""

import functools
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from harness import Timing, interleaved, parser_of, ratio, report
from PIL import Image
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from llava_video.ops.native import native_words
from llava_video.ops.tiles import (
    Pixels,
    Tiling,
    clip_tiles_native,
    letterbox_offset,
    letterbox_size,
)
from llava_video.values import Grid

HALF = (0.5, 0.5, 0.5)
LIMITS = {"tile / SigLIP processor": 15.0, "tile / torch": 3.0, "grid / anyres on Pillow": 15.0}
COPIES_LIMIT = 1.5
Runs = Mapping[str, Callable[[], object]]


@dataclass(frozen=True, slots=True)
class Case:
    """Frames of one size, how they are tiled, and who does it."""

    tiling: Tiling
    frames: Pixels
    runs: Runs

    def measure(self, *, is_check: bool) -> dict[str, Timing]:
        """Time every competitor over all frames, in turn."""
        return interleaved(
            self.runs, repeats=2 if is_check else 20, budget_s=60, warm_up=1 if is_check else 2
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where a limit is missed."""
    asked = parser_of(__doc__).parse_args(arguments)
    scale = 16 if asked.check else 1
    tile = _one_tile(_noise(2 if asked.check else 8, 1080 // scale, 1920 // scale), 384 // scale)
    grid = _one_grid(_noise(1 if asked.check else 4, 2160 // scale, 3840 // scale), 384 // scale)
    timings = {"tile": tile.measure(is_check=asked.check)}
    timings["grid"] = grid.measure(is_check=asked.check)
    ratios = {
        "tile / SigLIP processor": ratio(timings["tile"]["SigLIP"], timings["tile"]["native"]),
        "tile / torch": ratio(timings["tile"]["torch"], timings["tile"]["native"]),
        "grid / anyres on Pillow": ratio(timings["grid"]["Pillow"], timings["grid"]["native"]),
    }
    copies = {
        name: {
            threads: ratio(of[f"a clip, {threads}"], of["one copy"])
            for threads in ("one thread", "all cores")
        }
        for name, of in timings.items()
    }
    _print(tile, grid, timings, ratios, copies)
    passed = all(ratios[name] >= limit for name, limit in LIMITS.items())
    row = {
        "instructions": native_words(),
        "ms_per_frame": {
            name: {
                run: timing.p50_s * 1e3 / len(case.frames) for run, timing in timings[name].items()
            }
            for name, case in (("tile", tile), ("grid", grid))
        },
        "ratios": ratios,
        "limits": LIMITS,
        "copies": copies,
        "copies_limit": COPIES_LIMIT,
        "passed": passed,
        "shapes": {"tile": list(tile.frames.shape), "grid": list(grid.frames.shape)},
        "dtype": "float32",
        "timings": {
            name: {run: timing.to_json() for run, timing in of.items()}
            for name, of in timings.items()
        },
        "ceiling": {
            f"one copy of a frame, {name}, s": timings[name]["one copy"].p50_s / len(case.frames)
            for name, case in (("tile", tile), ("grid", grid))
        },
        "check": asked.check,
    }
    report("tiling", row, append=asked.append)
    return 0 if passed or asked.check else 1


def _noise(num_frames: int, height_px: int, width_px: int) -> Pixels:
    shape = (num_frames, height_px, width_px, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _each(frames: Pixels, tiles_of: Callable[[Pixels], object]) -> Callable[[], object]:
    return lambda: deque(map(tiles_of, frames), maxlen=0)


def _natives(frames: Pixels, tiling: Tiling) -> Runs:
    tiles, copy = clip_tiles_native(frames, tiling), frames.copy()
    return {
        "native": _each(frames, lambda frame: clip_tiles_native(frame[None], tiling)),
        "native, one thread": _each(
            frames, lambda frame: clip_tiles_native(frame[None], tiling, num_threads=1)
        ),
        "a clip, all cores": lambda: clip_tiles_native(frames, tiling, out=tiles),
        "a clip, one thread": lambda: clip_tiles_native(frames, tiling, out=tiles, num_threads=1),
        "one copy": lambda: np.copyto(copy, frames),
    }


def _one_tile(frames: Pixels, tile_px: int) -> Case:
    tiling = Tiling("squeeze", Grid(1, 1), tile_px, HALF, HALF)
    # Pillow last: torch's threads spin for a while after their work, on cores that we take next.
    theirs = {"SigLIP": by_processor, "torch": by_torch, "Pillow's resize": by_pillow}
    runs = {
        name: _each(frames, functools.partial(tiles_of, tile_px=tile_px))
        for name, tiles_of in theirs.items()
    }
    return Case(tiling, frames, {**_natives(frames, tiling), **runs})


def _one_grid(frames: Pixels, tile_px: int) -> Case:
    tiling = Tiling("letterbox", Grid(3, 3), tile_px, HALF, HALF, overview=True)
    theirs = _each(frames, functools.partial(by_anyres, tile_px=tile_px))
    return Case(tiling, frames, {**_natives(frames, tiling), "Pillow": theirs})


@functools.cache
def _processor(tile_px: int) -> SiglipImageProcessorPil:
    return SiglipImageProcessorPil(size={"height": tile_px, "width": tile_px})


def by_processor(frame: Pixels, tile_px: int) -> np.ndarray:
    """Return one tile as transformers makes it on Pillow."""
    processed = _processor(tile_px)(Image.fromarray(frame), return_tensors="np")
    return np.asarray(processed["pixel_values"])


def by_pillow(frame: Pixels, tile_px: int) -> Image.Image:
    """Return the resized picture alone."""
    return Image.fromarray(frame).resize((tile_px, tile_px), Image.Resampling.BICUBIC)


def by_torch(frame: Pixels, tile_px: int) -> torch.Tensor:
    """Return one tile by torch's resize, whose levels are not Pillow's to the bit."""
    # The view has its channels last in memory, which is torch's fast path for uint8.
    pixels = torch.from_numpy(frame)[None].permute(0, 3, 1, 2)
    levels = torch.nn.functional.interpolate(
        pixels, (tile_px, tile_px), mode="bicubic", antialias=True
    )
    return (levels.float() / 255 - 0.5) / 0.5


def by_anyres(frame: Pixels, tile_px: int) -> np.ndarray:
    """Return overview and grid as the reference makes them."""
    processed = _processor(tile_px)(_anyres(frame, tile_px), return_tensors="np")
    return np.asarray(processed["pixel_values"])


def _anyres(frame: Pixels, tile_px: int) -> list[Image.Image]:
    """Cut a frame as LLaVA-NeXT does: llava/mm_utils.py, process_anyres_image."""
    picture, side = Image.fromarray(frame), 3 * tile_px
    height_px, width_px = letterbox_size(picture.height, picture.width, side, side)
    top, left = letterbox_offset((height_px, width_px), side, side)
    canvas = Image.new("RGB", (side, side), (0, 0, 0))
    canvas.paste(picture.resize((width_px, height_px), Image.Resampling.BICUBIC), (left, top))
    tiles = [
        canvas.crop((x, y, x + tile_px, y + tile_px))
        for y in range(0, side, tile_px)
        for x in range(0, side, tile_px)
    ]
    return [picture.resize((tile_px, tile_px), Image.Resampling.BICUBIC), *tiles]


def _print(
    tile: Case,
    grid: Case,
    timings: Mapping[str, Mapping[str, Timing]],
    ratios: Mapping[str, float],
    copies: Mapping[str, Mapping[str, float]],
) -> None:
    print(f"native part: {native_words()}")
    for name, case in (("tile", tile), ("grid", grid)):
        _, height_px, width_px, _ = case.frames.shape
        print(f"\n{name}: {height_px} x {width_px} px -> {case.tiling.num_tiles} float32 tiles")
        for run, timing in timings[name].items():
            print(f"  {run:<25} {timing.p50_s * 1e3 / len(case.frames):8.3f} ms a frame")
        for threads, found in copies[name].items():
            print(f"  {threads}: {found:.2f} x one copy, to chase {COPIES_LIMIT} x")
    print()
    for name, limit in LIMITS.items():
        print(f"{name:<25} {ratios[name]:6.1f} x, limit {limit} x")


if __name__ == "__main__":
    sys.exit(main())
