"""Frames of the small world → coloured blobs, and blobs over time → what each object did.

An eye of its own: it knows hues and outlines, neither the generator's colours nor its truth.
"""

import functools
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

# The middle of each colour's hues, degrees.
HUES = {
    "red": 0, "orange": 33, "yellow": 53, "green": 129, "cyan": 184, "blue": 227, "purple": 278,
    "pink": 328,
}  # fmt: skip
_LEAST_CHROMA, _LEAST_AREA = 60, 8


@dataclass(frozen=True)
class Blob:
    """One spot of one colour in one frame; lengths in px."""

    colour: str
    shape: str
    x: float
    y: float
    width: int
    height: int
    edges: frozenset[str]


@dataclass
class Life:
    """One object: its blob in every frame where it shows."""

    blobs: dict[int, Blob] = field(default_factory=dict)

    @property
    def first(self) -> int:
        return min(self.blobs)

    @property
    def last(self) -> int:
        return max(self.blobs)

    @property
    def shape(self) -> str:
        return Counter(b.shape for b in self.blobs.values() if not b.edges).most_common(1)[0][0]

    @property
    def colours(self) -> list[str]:
        colours = [self.blobs[k].colour for k in sorted(self.blobs)]
        return [c for k, c in enumerate(colours) if k == 0 or c != colours[k - 1]]

    def whole(self) -> list[int]:
        return [k for k in sorted(self.blobs) if not self.blobs[k].edges]


def _components(mask: np.ndarray) -> list[np.ndarray]:
    """Split a mask into its connected parts, as lists of (row, column): runs of rows are joined."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, ends = np.argwhere(edges == 1).tolist(), np.argwhere(edges == -1).tolist()
    runs = [(row, left, end[1]) for (row, left), end in zip(starts, ends, strict=True)]
    parent = list(range(len(runs)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for i, (row, left, right) in enumerate(runs):
        for j in range(i - 1, -1, -1):
            if runs[j][0] < row - 1:
                break
            if runs[j][0] == row - 1 and runs[j][1] < right and left < runs[j][2]:
                parent[root(j)] = root(i)
    parts: dict[int, list[tuple[int, int]]] = {}
    for i, (row, left, right) in enumerate(runs):
        parts.setdefault(root(i), []).extend((row, column) for column in range(left, right))
    return [np.array(part) for part in parts.values()]


@functools.cache
def _ideals(height: int, width: int) -> dict[str, np.ndarray]:
    """Draw every shape as large as a box."""
    v = ((np.arange(height) + 0.5) / height * 2 - 1)[:, None]
    u = ((np.arange(width) + 0.5) / width * 2 - 1)[None]
    far = u * u + v * v
    return {
        "circle": far <= 1,
        "square": (u * u <= 1) & (v * v <= 1),
        "triangle": np.abs(u) <= (v + 1) / 2,
        "diamond": np.abs(u) + np.abs(v) <= 1,
        "cross": (np.abs(u) <= 0.36) | (np.abs(v) <= 0.36),
        "ring": (far <= 1) & (far >= 0.23),
    }


def _shape(part: np.ndarray) -> str:
    """Return the shape that, as large as a spot, has most in common with it."""
    low, high = part.min(axis=0), part.max(axis=0)
    mask = np.zeros(high - low + 1, dtype=bool)
    mask[tuple((part - low).T)] = True
    ideals = _ideals(*mask.shape)
    return max(ideals, key=lambda name: (mask & ideals[name]).sum() / (mask | ideals[name]).sum())


def find_blobs(frame: np.ndarray) -> list[Blob]:
    """Find the coloured spots of a frame, (H, W, 3) uint8."""
    levels = frame.astype(int)
    chroma = levels.max(axis=2) - levels.min(axis=2)
    rows, columns = np.nonzero(chroma > _LEAST_CHROMA)
    red, green, blue = (levels[rows, columns] / chroma[rows, columns, None]).T
    most = np.maximum(np.maximum(red, green), blue)
    sixths = np.where(
        most == red, green - blue, np.where(most == green, 2 + blue - red, 4 + red - green)
    )
    away = np.abs((sixths * 60)[:, None] - np.array(list(HUES.values())))
    away = np.minimum(away % 360, -away % 360)
    names = away.argmin(axis=1)
    blobs = []
    for idx in np.unique(names):
        mask = np.zeros(frame.shape[:2], dtype=bool)
        mask[rows[names == idx], columns[names == idx]] = True
        for part in _components(mask):
            # An outline runs where half of a pixel is covered.
            strength = chroma[tuple(part.T)]
            part = part[strength >= np.quantile(strength, 0.9) / 2]
            if len(part) >= _LEAST_AREA:
                blobs.append(_blob(list(HUES)[idx], part, frame.shape[:2]))
    return blobs


def _blob(colour: str, part: np.ndarray, size: tuple[int, int]) -> Blob:
    (top, left), (foot, right) = part.min(axis=0), part.max(axis=0)
    touched = {"top": top == 0, "left": left == 0}
    touched |= {"bottom": foot == size[0] - 1, "right": right == size[1] - 1}
    edges = frozenset(name for name, is_there in touched.items() if is_there)
    box = int(right - left + 1), int(foot - top + 1)
    # The middle of the box: what is hidden or cut off does not matter, and noise hardly does.
    shape = "" if edges else _shape(part)
    return Blob(colour, shape, (left + right) / 2, (top + foot) / 2, *box, edges)


def follow(frames: np.ndarray) -> list[Life]:
    """Follow every object through (T, H, W, 3) uint8 frames; no step may be longer than a fifth."""
    reach = 0.2 * min(frames.shape[1:3])
    lives: list[Life] = []
    for k, frame in enumerate(frames):
        blobs = find_blobs(frame)
        open_lives = list(lives)
        for is_same in (True, False):  # those that kept their colour first
            pairs = [
                (np.hypot(life.blobs[life.last].x - b.x, life.blobs[life.last].y - b.y), i, j)
                for i, life in enumerate(open_lives)
                for j, b in enumerate(blobs)
                if life.last == k - 1 and (life.blobs[life.last].colour == b.colour) == is_same
            ]
            limit = reach if is_same else reach / 3
            _match([pair for pair in pairs if pair[0] < limit], open_lives, blobs, k)
            open_lives = [life for life in open_lives if life.last != k]
            blobs = [b for b in blobs if all(life.blobs.get(k) is not b for life in lives)]
        for b in blobs:
            lost = [
                life
                for life in lives
                if life.last < k - 1
                and not life.blobs[life.last].edges
                and life.blobs[life.last].colour == b.colour
                and not b.edges
            ]
            (lost[0] if lost else lives.append(Life()) or lives[-1]).blobs[k] = b
    # Where two touch, their colours may mix for a moment.
    return [life for life in lives if len(life.whole()) > 2]


def _match(pairs: list, lives: list[Life], blobs: list[Blob], k: int) -> None:
    used_lives, used_blobs = set(), set()
    for _, i, j in sorted(pairs):
        if i not in used_lives and j not in used_blobs:
            lives[i].blobs[k] = blobs[j]
            used_lives.add(i)
            used_blobs.add(j)
