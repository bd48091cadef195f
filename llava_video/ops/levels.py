"""Levels 0..255 of a channel -> the numbers the vision tower is given.

Formula: y = (float32(u (1/255) in float64) - mean) / std in float32, rounded to the asked dtype.
Source: LLaVA-NeXT, `SigLipImageProcessor`. A channel has 256 levels, so a table holds all there is
to say, and whoever looks it up cannot round otherwise. NumPy only; knows no frame.
"""

from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Rgb = tuple[float, float, float]
# NumPy has no bfloat16: its bits stand in uint16, `torch.from_numpy(tiles).view(torch.bfloat16)`.
# "uint8" is the level itself, not normalised.
Dtype = Literal["float32", "bfloat16", "float16", "uint8"]

STORED: Final[dict[Dtype, type[np.generic]]] = {
    "float32": np.float32,
    "bfloat16": np.uint16,
    "float16": np.float16,
    "uint8": np.uint8,
}

_Numbers = npt.NDArray[np.float32]
_LEVELS = np.arange(256, dtype=np.uint8)


def normalise_reference(pixels: Pixels, mean: float, std: float) -> _Numbers:
    """Return (pixels / 255 - mean) / std in the reference's own order and precisions.

    Args:
        pixels: any shape, uint8.
        mean: of one channel, in 0..1.
        std: of one channel.
    """
    unit = (pixels.astype(np.float64) * (1 / 255)).astype(np.float32)
    normalised: _Numbers = (unit - np.float32(mean)) / np.float32(std)
    return normalised


def tables_of(mean: Rgb, std: Rgb, dtype: Dtype) -> npt.NDArray[Any]:
    """Return (3, 256): what each level of each channel becomes.

    Args:
        mean: per channel, in 0..1.
        std: per channel.
        dtype: of the numbers; bfloat16 as its bits in uint16.
    """
    if dtype == "uint8":
        return np.tile(_LEVELS, (3, 1))
    numbers = np.stack([normalise_reference(_LEVELS, m, s) for m, s in zip(mean, std, strict=True)])
    return _bfloat16_bits(numbers) if dtype == "bfloat16" else numbers.astype(STORED[dtype])


def _bfloat16_bits(numbers: _Numbers) -> npt.NDArray[np.uint16]:
    """Round to the nearest bfloat16, to even at the middle."""
    bits = numbers.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(numbers), np.uint16(0x7FC0), rounded)
