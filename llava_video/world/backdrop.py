"""A background's kind, colours and seed → the picture behind everything.

Muted colours only, so that no background looks like an object. There are two sets of colours and
patterns: what is measured on the second was never seen in training on the first.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from llava_video.world.dice import raw_bytes
from llava_video.world.vocabulary import Rgb

Palette = Literal["a", "b"]

MUTED: Final[dict[str, tuple[Rgb, ...]]] = {
    "a": (
        (24, 24, 28), (60, 60, 64), (118, 118, 116), (176, 178, 180), (230, 230, 226),
        (44, 52, 64), (96, 104, 92), (150, 142, 132),
    ),
    "b": (
        (40, 38, 36), (84, 88, 92), (140, 142, 138), (200, 198, 204), (244, 244, 240),
        (60, 50, 58), (112, 102, 98), (166, 174, 170),
    ),
}  # fmt: skip
PATTERNS: Final[dict[str, tuple[str, ...]]] = {
    "a": ("stripes", "checks", "diagonals"),
    "b": ("bricks", "dots", "grid"),
}
_CONTRAST = 22  # grey levels between the two tones of a pattern
_GRAIN = 40  # grey levels between the darkest and the lightest grain


@dataclass(frozen=True, slots=True)
class Backdrop:
    """What is behind the objects; the same all the time.

    Attributes:
        kind: "plain", "gradient", "textured" or "noisy".
        colour: (R, G, B).
        second: the colour at a gradient's other end.
        pattern: of a texture; "across", "down" or "aslant" of a gradient; "" otherwise.
        step: a pattern's or a grain's size over the shorter side.
        seed: of the grain.
    """

    kind: str
    colour: Rgb
    second: Rgb
    pattern: str
    step: float
    seed: int


def paint_backdrop(
    backdrop: Backdrop, height_px: int, width_px: int, unit_px: int
) -> npt.NDArray[np.uint8]:
    """Paint a background.

    Args:
        backdrop: what it looks like.
        height_px: of the picture.
        width_px: of the picture.
        unit_px: the frame's shorter side; the picture may be larger, for a camera that shakes.

    Returns:
        (height_px, width_px, 3) uint8, RGB.
    """
    colour = np.array(backdrop.colour, dtype=np.int32)
    y, x = np.ogrid[:height_px, :width_px]
    step_px = max(2, round(backdrop.step * unit_px))
    picture: npt.NDArray[np.int32]
    if backdrop.kind == "gradient":
        share, whole = _along(backdrop.pattern, y, x, height_px, width_px)
        second = np.array(backdrop.second, dtype=np.int32)
        picture = colour + (second - colour) * share[..., None] // whole
    elif backdrop.kind == "textured":
        is_dark = _pattern(backdrop.pattern, y, x, step_px)
        away = -_CONTRAST if sum(backdrop.colour) > 384 else _CONTRAST
        picture = colour + away * is_dark[..., None].astype(np.int32)
    elif backdrop.kind == "noisy":
        rows, columns = -(-height_px // step_px), -(-width_px // step_px)
        grain = raw_bytes(backdrop.seed, rows * columns).reshape(rows, columns).astype(np.int32)
        grain = grain.repeat(step_px, axis=0)[:height_px].repeat(step_px, axis=1)[:, :width_px]
        picture = colour + (grain[..., None] * _GRAIN // 255 - _GRAIN // 2)
    else:
        picture = colour[None, None]
    whole_picture = np.broadcast_to(picture, (height_px, width_px, 3))
    return np.clip(whole_picture, 0, 255).astype(np.uint8)


def _along(
    pattern: str,
    y: npt.NDArray[np.int_],
    x: npt.NDArray[np.int_],
    height_px: int,
    width_px: int,
) -> tuple[npt.NDArray[np.int_], int]:
    """Return how far along a gradient each pixel is, and how long it is."""
    if pattern == "across":
        return x, max(1, width_px - 1)
    if pattern == "down":
        return y, max(1, height_px - 1)
    return x + y, max(1, width_px + height_px - 2)


def _pattern(
    pattern: str, y: npt.NDArray[np.int_], x: npt.NDArray[np.int_], step: int
) -> npt.NDArray[np.bool_]:
    """Return where the second tone of a pattern is."""
    line = max(1, step // 4)
    is_second: npt.NDArray[np.bool_]
    if pattern == "stripes":
        is_second = (x + 0 * y) // step % 2 == 1
    elif pattern == "checks":
        is_second = (x // step + y // step) % 2 == 1
    elif pattern == "diagonals":
        is_second = (x + y) // step % 2 == 1
    elif pattern == "bricks":
        shift = y // step % 2 * step
        is_second = (y % step < line) | ((x + shift) % (2 * step) < line)
    elif pattern == "dots":
        half = step // 2
        is_second = (x % step - half) ** 2 + (y % step - half) ** 2 <= (step // 3) ** 2
    else:
        is_second = (x % step < line) | (y % step < line)
    return is_second
