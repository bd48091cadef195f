"""An old and a new length in pixels -> Pillow's fixed-point weights of one resize pass.

Formula: with scale s = old / new and r = max(s, 1), new pixel i has its centre c = (i + 1/2) s and
    sums old pixels j from max(0, int(c - S r + 1/2)) to before min(old, int(c + S r + 1/2)), with
    weights f((j - c + 1/2) / r), divided by their sum, times 2^22, rounded half away from zero; S
    is the filter's reach. A pass is clip((sum of weight x level + 2^21) >> 22, 0, 255), to uint8.
    The first is along the rows, unless the height loses more than twice the pixels the width does.
    "nearest" is torch's and no filter: new pixel i is old pixel int(i s), s and i s in float32,
    which is not always i old // new: of 720 px made 336, three pixels are others.
Source: Pillow 13, src/libImaging/Resample.c (precompute_coeffs, normalize_coeffs_8bpc,
    ImagingResampleInner); torch, aten/src/ATen/native/UpSample.h, nearest_idx.

>>> taps(4, 2, "bilinear").weights.tolist()[0]  # 3/4, 3/4 and 1/4 of 7/4, and padding
[1797559, 1797559, 599186, 0, 0]

The definition of every implementation of tiling. NumPy only: decoding workers import it.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Filter = Literal["bicubic", "bilinear", "lanczos", "nearest"]

# 32 bits less 8 of a level and 2 for sums that overshoot.
PRECISION_BITS: Final = 22

_Floats = npt.NDArray[np.float64]
_Idxs = npt.NDArray[np.int64]
_BICUBIC_A = -0.5
# np.sin may be off by a unit in the last place where it is vectorised; Pillow calls libm's.
_sin = np.frompyfunc(math.sin, 1, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """The old pixels that each new pixel of a pass is summed from, and their weights.

    Attributes:
        starts: (new,) int32, the first old pixel.
        counts: (new,) int32, how many old pixels, >= 1.
        weights: (new, most) int32, in units of 2^-22; zeros from `counts` on.
    """

    starts: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    weights: npt.NDArray[np.int32]


@functools.lru_cache(maxsize=256)
def taps(
    old_px: int,
    new_px: int,
    kind: Filter = "bicubic",
    first: int = 0,
    num_kept: int | None = None,
) -> Taps:
    """Return the weights of one pass; read only, kept for the sizes used last.

    Of new pixels that are kept only those are made: a crop's frame of 65,000 x 1 px becomes
    21,840,000 px long, of which 336 are shown.

    Args:
        old_px: length before, >= 1.
        new_px: length after, >= 1.
        kind: the filter, antialiased as Pillow does it; "nearest" for none.
        first: the first new pixel that is kept.
        num_kept: how many are, >= 1; None for all from there on.
    """
    kept = np.arange(first, new_px if num_kept is None else first + num_kept)
    if kind == "nearest":
        made = _nearest_taps(kept, old_px, new_px)
    else:
        made = _filter_taps(kept, old_px, new_px, kind)
    for name in made.__slots__:
        getattr(made, name).flags.writeable = False
    return made


def is_height_first(old: tuple[int, int], new: tuple[int, int]) -> bool:
    """Say whether the pass along the columns comes before the one along the rows.

    Pillow before 13 never did that. Of a noisy 1920 x 1080 px frame made 384 x 384, a portrait
    video's, the order changes 16 % of the levels, by up to 2.

    Args:
        old: (height, width) before, px.
        new: (height, width) after, px.

    >>> is_height_first((1920, 1080), (384, 384)), is_height_first((1080, 1920), (384, 384))
    (True, False)
    """
    return old[0] > new[0] and old[0] - new[0] > 2 * (old[1] - new[1])


def _nearest_taps(kept: _Idxs, old_px: int, new_px: int) -> Taps:
    step = np.float32(old_px) / np.float32(new_px)
    places = (kept.astype(np.float32) * step).astype(np.int64)
    ones = np.ones(len(kept), dtype=np.int32)
    starts = _int32(np.minimum(places, old_px - 1))
    return Taps(starts, ones, (ones << PRECISION_BITS)[:, None])


def _filter_taps(kept: _Idxs, old_px: int, new_px: int, kind: Filter) -> Taps:
    reach, curve = _FILTERS[kind]
    scale = old_px / new_px
    spread = max(scale, 1.0)
    support = reach * spread
    most = math.ceil(support) * 2 + 1
    centres = (kept + 0.5) * scale
    starts = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    stops = np.minimum((centres + support + 0.5).astype(np.int64), old_px)
    counts = stops - starts
    places = np.arange(most)
    # In Pillow's order of operations, so that every rounding is the same.
    offsets = (places + starts[:, None] - centres[:, None] + 0.5) * (1.0 / spread)
    heights = np.where(places < counts[:, None], curve(offsets), 0.0)
    sums = np.add.accumulate(heights, axis=1)[:, -1:]  # one after the other, unlike np.sum
    shares = np.divide(heights, sums, out=heights, where=sums != 0) * float(1 << PRECISION_BITS)
    weights = (shares + np.copysign(0.5, shares)).astype(np.int32)  # towards zero
    return Taps(_int32(starts), _int32(counts), weights)


def _int32(idxs: _Idxs) -> npt.NDArray[np.int32]:
    return idxs.astype(np.int32)


def _bilinear(x: _Floats) -> _Floats:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _bicubic(x: _Floats) -> _Floats:
    a, x = _BICUBIC_A, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(x: _Floats) -> _Floats:
    return np.where((x >= -3.0) & (x < 3.0), _sinc(x) * _sinc(x / 3), 0.0)


def _sinc(x: _Floats) -> _Floats:
    angles = x * math.pi
    sines = np.asarray(_sin(angles), dtype=np.float64)
    return np.divide(sines, angles, out=np.ones_like(x), where=x != 0.0)


_FILTERS: dict[Filter, tuple[float, Callable[[_Floats], _Floats]]] = {
    "bicubic": (2.0, _bicubic),
    "bilinear": (1.0, _bilinear),
    "lanczos": (3.0, _lanczos),
}
