"""Frames of noise, and a resize written out by hand that can be made wrong in named ways."""

import functools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from llava_video.ops import resample
from llava_video.ops.resample import PRECISION_BITS, Filter, taps

HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


def noise(num_frames: int, height_px: int, width_px: int) -> torch.Tensor:
    """Return frames (T, H, W, 3) uint8 of every level, the same for the same sizes."""
    generator = np.random.default_rng(height_px * 10_000 + width_px)
    shape = (num_frames, height_px, width_px, 3)
    return torch.from_numpy(generator.integers(0, 256, shape, dtype=np.uint8))


def by_pillow(frame: torch.Tensor, size: tuple[int, int], kind: Filter = "bicubic") -> np.ndarray:
    """Return Pillow's resize of a frame (H, W, 3) to (height, width)."""
    picture = Image.fromarray(np.ascontiguousarray(frame.cpu().numpy()))
    return np.asarray(picture.resize(size[::-1], RESAMPLING[kind]))


def by_hand(
    frame: torch.Tensor,
    size: tuple[int, int],
    *,
    is_rows_first: bool = True,
    is_rounded_between: bool = True,
    half: float = 0.5,
) -> np.ndarray:
    """Return Pillow's bicubic resize as two products with whole matrices, in float64.

    Exact: the sums of 22 + 8 bits are smaller than 2^53. Other roundings than these are mutants, as
    is the order that Pillow does not take.
    """
    rows, cols = matrix(frame.shape[0], size[0]), matrix(frame.shape[1], size[1])
    levels = frame.cpu().numpy().astype(np.float64)
    for idx, is_along_rows in enumerate((is_rows_first, not is_rows_first)):
        levels = cols @ levels if is_along_rows else np.tensordot(rows, levels, axes=1)
        if idx == 1 or is_rounded_between:
            levels = np.clip(np.floor(levels + half), 0, 255)
    return levels.astype(np.uint8)


def matrix(old_px: int, new_px: int) -> np.ndarray:
    """Return the weights of a bicubic pass as a (new, old) matrix."""
    found = taps(old_px, new_px)
    whole = np.zeros((new_px, old_px))
    for idx, (start, count) in enumerate(zip(found.starts, found.counts, strict=True)):
        whole[idx, start : start + count] = found.weights[idx, :count]
    return whole / (1 << PRECISION_BITS)


def mutants(
    frame: torch.Tensor, size: tuple[int, int], *, is_rows_first: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the resizes of plausible wrong formulas, and their names, beside the right order."""
    right = functools.partial(by_hand, frame, size, is_rows_first=is_rows_first)
    yield "the other pass first", by_hand(frame, size, is_rows_first=not is_rows_first)
    yield "not rounded between the passes", right(is_rounded_between=False)
    yield "rounded down", right(half=0.0)
    taps.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resample, "_BICUBIC_A", -0.75)  # of OpenCV
        yield "a = -3/4", right()
    taps.cache_clear()
    yield "bilinear", by_pillow(frame, size, "bilinear")
