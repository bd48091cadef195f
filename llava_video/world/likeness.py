"""Frames → how much they look like the small world, by a few statistics of their pixels.

Every scene of the world is a dull background of one colour, shaded evenly or with a fine pattern,
and objects in eight strong colours in front of it. So four numbers tell other footage apart: how
much of a frame a plane of colour explains, how dull that plane is, whether any of the eight colours
is there at all, and how many of the strong colours are none of the eight.

The plane is colour = a + b·x + c·y, one for each channel, by least squares over the pixels that are
within `_NEAR_PLANE` of it, begun at the median of the dull ones. What each limit lets pass and
holds back is measured by `benchmarks/likeness.py`. Knows no model.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from llava_video.world.vocabulary import COLOURS

# Grey levels from the plane: a pattern is 11 off, grain 20, noise 12 more, H.264 a few.
_NEAR_PLANE: Final = 36
# Grey levels from one of the eight colours: tints and what compression leaves of a small object.
_NEAR_COLOUR: Final = 40
# Difference of the largest and the smallest channel: dull below, strong above.
_DULL, _STRONG = 60, 120
_ROUNDS: Final = 4
_FEWEST_PIXELS: Final = 8  # that say anything about colours
_MOST_FRAMES, _MOST_SIDE_PX = 24, 100  # that are looked at

# Measured on 900 held-out clips, as frames and as H.264 files: see benchmarks/results.
LEAST_PLAIN, MOST_BACKGROUND_CHROMA = 0.6, 24.0
LEAST_COLOURED, LEAST_KNOWN = 0.004, 0.8

_PALETTE = np.array(list(COLOURS.values()), dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What the pixels of a clip are like.

    Attributes:
        plain: share of a frame that one evenly shaded background explains; median of the frames.
        chroma: of that background, largest less smallest channel, grey levels; median.
        coloured: share of a frame in one of the world's eight colours; the largest of all frames.
        known: share of the strong colours of all frames that are one of the eight, or one of them
            blended with the background, as edges are. 1 where there are hardly any.
    """

    plain: float
    chroma: float
    coloured: float
    known: float


def looks_of(frames: npt.NDArray[np.uint8]) -> Looks:
    """Measure a clip.

    Args:
        frames: (T, H, W, 3) uint8, RGB; T >= 1. Thumbnails do: of more than 24 frames, evenly
            chosen ones are looked at, of large ones every second pixel or fewer.
    """
    picks = np.linspace(0, len(frames) - 1, min(len(frames), _MOST_FRAMES)).round().astype(int)
    step = -(-max(frames.shape[1:3]) // _MOST_SIDE_PX)
    rows = np.array([_measured(frames[idx, ::step, ::step]) for idx in picks])
    plain, chroma, coloured, strong, known = rows.T
    is_told = strong.sum() * frames[0, ::step, ::step, 0].size >= _FEWEST_PIXELS
    return Looks(
        plain=float(np.median(plain)),
        chroma=float(np.median(chroma)),
        coloured=float(coloured.max()),
        known=float(known.sum() / strong.sum()) if is_told else 1.0,
    )


def unlike(looks: Looks) -> str:
    """Say in what a clip is unlike the small world; "" where it may be of it."""
    if looks.plain < LEAST_PLAIN:
        return (
            f"an even background explains {looks.plain:.0%} of a frame, in the small world "
            f"{LEAST_PLAIN:.0%} or more"
        )
    if looks.chroma > MOST_BACKGROUND_CHROMA:
        return "the background has a strong colour, in the small world a dull one"
    if looks.coloured < LEAST_COLOURED:
        return "no frame has an object in one of the small world's eight colours"
    if looks.known < LEAST_KNOWN:
        return f"{1 - looks.known:.0%} of the strong colours are none of the small world's eight"
    return ""


def _measured(frame: npt.NDArray[np.uint8]) -> tuple[float, ...]:
    """Return the first three numbers of one frame, and the shares of strong and known pixels."""
    # Channels first, (3, N): the largest of three is then one pass over memory.
    pixels = np.ascontiguousarray(frame.reshape(-1, 3).T, dtype=np.float32)
    chroma = pixels.max(0) - pixels.min(0)
    plane = _plane(pixels, chroma < _DULL, frame.shape[:2])
    is_plain = np.abs(pixels - plane).max(0) <= _NEAR_PLANE
    behind = plane[:, is_plain] if is_plain.any() else plane
    is_coloured = np.zeros(len(chroma), dtype=np.bool_)
    for colour in _PALETTE:
        is_coloured |= np.abs(pixels - colour[:, None]).max(0) <= _NEAR_COLOUR
    is_strong = chroma >= _STRONG
    is_known = _is_blend(pixels[:, is_strong], plane[:, is_strong])
    return (
        float(is_plain.mean()),
        float(np.median(behind.max(0) - behind.min(0))),
        float(is_coloured.mean()),
        float(is_strong.mean()),
        float(is_known.sum() / is_strong.size),
    )


def _is_blend(
    pixels: npt.NDArray[np.float32], behind: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    """Say which pixels are near a blend of one of the eight colours and what is behind them.

    The edge of an object is such a blend, and of a small one nearly all is edge.

    Args:
        pixels: (3, N).
        behind: (3, N), the background there.
    """
    found = np.zeros(pixels.shape[1], dtype=np.bool_)
    for colour in _PALETTE:
        way = colour[:, None] - behind
        share = ((pixels - behind) * way).sum(0) / np.square(way).sum(0).clip(1)
        found |= np.abs(pixels - behind - share.clip(0, 1) * way).max(0) <= _NEAR_COLOUR
    return found


def _plane(
    pixels: npt.NDArray[np.float32], is_dull: npt.NDArray[np.bool_], size: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """Fit the background, (3, N): pixels far from the last fit have no say in the next."""
    height_px, width_px = size
    y, x = np.mgrid[:height_px, :width_px]
    places = np.stack((np.ones(y.size), x.ravel() / width_px, y.ravel() / height_px))
    begun = np.median(pixels[:, is_dull] if is_dull.any() else pixels, axis=1)
    plane = np.repeat(begun[:, None], pixels.shape[1], axis=1)
    for _ in range(_ROUNDS):
        is_near = np.abs(pixels - plane).max(0) <= _NEAR_PLANE
        if is_near.sum() < _FEWEST_PIXELS:
            break
        counted = places * is_near
        # Least squares by its normal equations; a picture one pixel high has a singular one.
        factors, *_ = np.linalg.lstsq(counted @ places.T, counted @ pixels.T, rcond=None)
        plane = (factors.T @ places).astype(np.float32)
    return plane
