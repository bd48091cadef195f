"""A scene and its plan → what every visual row and every patch of its frames should know.

A row is a cell of a frame's pooled map: where it enters the decoder it is asked what is in it
(looks), behind a later layer, where and when it is and what happened so far (story).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from llava_video.errors import ConfigError
from llava_video.values import VisualPlan
from llava_video.world.render import sign_size
from llava_video.world.scene import Event, Scene, State
from llava_video.world.vocabulary import COLOURS, DIRECTIONS, PLACES, SHAPES, SIGN_WORDS
from llava_video.world.witness import place_of

UNKNOWN: Final = -1
Labels = npt.NDArray[np.int8]

_HAPPENED: Final = ("move", "enter", "grow", "shrink", "recolour", "hide", "stop", "collide")
_SINCE_S: Final = (0.5, 1.0, 1.5, 2.0, 3.0, 4.5)
_SIDE: Final = 8  # columns and rows of the map that are told apart
# Of clips that are looked at twice a second, as the small world's are in training: a row can count
# the frames before it, and sees no clock.
_HALF_SECONDS: Final = 25
_PLACES: Final = tuple(place for row in PLACES for place in row)
_SETTLED_S: Final = 0.5  # what has just begun may not show yet
_RADII: Final = (0.1, 0.117, 0.131)

# What a cell's row is asked: name → number of classes.
LOOKS: Final[dict[str, int]] = {
    "how many": 3,
    "colour": len(COLOURS),
    "shape": len(SHAPES),
    "radius": len(_RADII) + 1,
    "across": 4,
    "down": 4,
    "has sign": 2,
    "sign": len(SIGN_WORDS),
    "column": _SIDE,
    "row": _SIDE,
}
STORY: Final[dict[str, int]] = {
    "goes": len(DIRECTIONS) + 1,
    "went": len(DIRECTIONS) + 1,
    "size": 3,
    "first colour": len(COLOURS),
    "since": len(_SINCE_S) + 2,
    **{f"did {kind}": 2 for kind in _HAPPENED},
    "half second": _HALF_SECONDS,
    "place": len(_PLACES),
    "seen now": 5,
    "seen so far": 5,
}
# What a patch is asked of the object that covers it, and of where on the object it is.
PATCHES: Final[dict[str, int]] = {
    "object": 2,
    "colour": len(COLOURS),
    "shape": len(SHAPES),
    "part": 9,
}
_COVERED: Final = 0.9  # a patch is an object's that comes so near to its centre, radii
_COLOURS, _DIRECTIONS = list(COLOURS), list(DIRECTIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseLabels:
    """Of the rows of one visual, newlines included, and of its patches; -1: nothing is asked.

    Attributes:
        looks: (rows, len(LOOKS)) int8.
        story: (rows, len(STORY)) int8.
        patches: (T P^2, len(PATCHES)) int8, frame by frame.
    """

    looks: Labels
    story: Labels
    patches: Labels


def dense_labels(scene: Scene, plan: VisualPlan, patches_per_side: int) -> DenseLabels:
    """Say what is in every cell and every patch of a clip.

    Args:
        scene: the truth.
        plan: of its T frames: one tile each, a newline after each map row.
        patches_per_side: P, of a tile.

    Raises:
        ConfigError: as `check_rows`.
    """
    check_rows(plan)
    rows, cols = plan.map_size
    looks = np.full((plan.num_frames, rows, cols + 1, len(LOOKS)), UNKNOWN, dtype=np.int8)
    story = np.full((plan.num_frames, rows, cols + 1, len(STORY)), UNKNOWN, dtype=np.int8)
    patches = np.full((plan.num_frames, *[patches_per_side] * 2, len(PATCHES)), UNKNOWN, np.int8)
    seen: set[int] = set()
    sign = sign_cell(scene, rows, cols)
    for frame, time_s in enumerate(plan.times_s):
        states = scene.state_at(time_s)
        _fill_looks(scene, states, looks[frame], sign)
        _fill_patches(scene, states, patches[frame])
        for state, row, col in _alone(scene, states, rows, cols):
            story[frame, row, col, :-2] = _story_of(scene, state, time_s, is_first=not frame)
        seen |= {state.thing for state in states if state.view == "whole"}
        if all(state.view != "partly" for state in states):
            story[frame, -1, -1, -2:] = [sum(s.view == "whole" for s in states), len(seen)]
    return DenseLabels(
        looks=looks.reshape(-1, len(LOOKS)),
        story=story.reshape(-1, len(STORY)),
        patches=patches.reshape(-1, len(PATCHES)),
    )


def check_rows(plan: VisualPlan) -> None:
    """See that a plan's rows are cells of frames, with a newline after each map row.

    Raises:
        ConfigError: they are others.
    """
    rows, cols = plan.map_size
    if plan.num_tokens != plan.num_frames * rows * (cols + 1):
        raise ConfigError(
            f"dense losses, and frames whose newlines stand otherwise: newline = "
            f"{plan.newline.value}.",
            "dense losses need data.newline: row, and frames of one tile.",
        )


def _cell(scene: Scene, x: float, y: float, rows: int, cols: int) -> tuple[float, float]:
    """Return where a point falls in the map, in cells from the top and the left."""
    return y / scene.height * rows, x / scene.width * cols


def placed(
    scene: Scene, states: Sequence[State], rows: int, cols: int
) -> dict[tuple[int, int], list[State]]:
    """Return the objects by the cell, (row, column) of the map, that their middle is in."""
    found: dict[tuple[int, int], list[State]] = {}
    for state in states:
        down, across = _cell(scene, state.x, state.y, rows, cols)
        if state.view != "gone" and 0 <= down < rows and 0 <= across < cols:
            found.setdefault((int(down), int(across)), []).append(state)
    return found


def _alone(
    scene: Scene, states: Sequence[State], rows: int, cols: int
) -> Iterator[tuple[State, int, int]]:
    """Yield the objects that share their cell with no other."""
    for (row, col), inside in placed(scene, states, rows, cols).items():
        if len(inside) == 1:
            yield inside[0], row, col


def _fill_looks(
    scene: Scene, states: Sequence[State], looks: Labels, sign: tuple[int, int] | None
) -> None:
    rows, cols = looks.shape[0], looks.shape[1] - 1
    cells = looks[:, :cols]
    names = list(LOOKS)
    cells[..., names.index("how many")] = 0
    cells[..., names.index("has sign")] = 0
    cells[:_SIDE, :, names.index("row")] = np.arange(min(rows, _SIDE))[:, None]
    cells[:, :_SIDE, names.index("column")] = np.arange(min(cols, _SIDE))
    for (row, col), inside in placed(scene, states, rows, cols).items():
        cells[row, col, 0] = min(2, len(inside))
        if len(inside) > 1:
            continue
        state = inside[0]
        is_whole = state.view == "whole"
        down, across = _cell(scene, state.x, state.y, rows, cols)
        cells[row, col, 1:6] = (
            _COLOURS.index(state.colour),
            SHAPES.index(state.shape) if is_whole else UNKNOWN,
            sum(state.radius > limit for limit in _RADII) if is_whole else UNKNOWN,
            int((across - col) * 4),
            int((down - row) * 4),
        )
    if sign is not None and scene.sign is not None:
        cells[(*sign, names.index("has sign"))] = 1
        cells[(*sign, names.index("sign"))] = SIGN_WORDS.index(scene.sign.text)


def _fill_patches(scene: Scene, states: Sequence[State], patches: Labels) -> None:
    """Give each patch to the object that it comes nearest to, in radii."""
    side = len(patches)
    down = ((np.arange(side) + 0.5) / side * scene.height)[:, None]
    across = ((np.arange(side) + 0.5) / side * scene.width)[None]
    patches[..., 0] = 0
    nearest = np.full((side, side), _COVERED)
    for state in states:
        if state.view == "gone":
            continue
        y, x = down - state.y, across - state.x
        # From the centre to the patch's edge, not to its middle.
        off_y = np.maximum(np.abs(y) - scene.height / side / 2, 0)
        off_x = np.maximum(np.abs(x) - scene.width / side / 2, 0)
        away = np.hypot(off_y, off_x) / state.radius
        is_own = away < nearest
        nearest[is_own] = away[is_own]
        rows, cols = (
            np.clip(np.floor(z / state.radius + 1.5), 0, 2).astype(np.int8) for z in (y, x)
        )
        patches[is_own, 0] = 1
        patches[is_own, 1] = _COLOURS.index(state.colour)
        patches[is_own, 2] = SHAPES.index(state.shape) if state.view == "whole" else UNKNOWN
        patches[is_own, 3] = (3 * rows + cols)[is_own]


def sign_cell(scene: Scene, rows: int, cols: int) -> tuple[int, int] | None:
    """Return the cell of the middle of the sign."""
    if scene.sign is None:
        return None
    height_px, width_px = sign_size(scene.sign.text, scene.sign.scale)
    x = (scene.sign.left_px + width_px / 2) / scene.unit_px
    y = (scene.sign.top_px + height_px / 2) / scene.unit_px
    down, across = _cell(scene, x, y, rows, cols)
    return int(down), int(across)


def _story_of(scene: Scene, state: State, time_s: float, *, is_first: bool) -> list[int]:
    """Return the classes of `STORY` that are about one object, in order."""
    own = [event for event in scene.events if event.thing == state.thing]
    begun = [event for event in own if event.start_s <= time_s]
    settled = [event for event in begun if event.start_s + _SETTLED_S <= time_s]
    going = [e for e in settled if e.direction and e.kind != "collide"]
    still = len(_DIRECTIONS)
    goes = _DIRECTIONS.index(state.motion) if state.motion else still
    growth = {"grow": 1, "shrink": 2}
    size = next((growth[e.kind] for e in begun if e.kind in growth and time_s < e.end_s), 0)
    return [
        UNKNOWN if is_first or len(begun) > len(settled) else goes,
        _DIRECTIONS.index(going[-1].direction) if going else still,
        size,
        _COLOURS.index(scene.things[state.thing].colours[0][1]),
        _since(begun, time_s),
        *(_did(own, kind, time_s) for kind in _HAPPENED),
        UNKNOWN if (number := round(2 * time_s)) >= _HALF_SECONDS else number,
        UNKNOWN if (place := place_of(scene, state)) is None else _PLACES.index(place),
    ]


def _since(begun: Sequence[Event], time_s: float) -> int:
    """Return how long ago the last event began, as a class; the last is "nothing has"."""
    if not begun:
        return len(_SINCE_S) + 1
    since_s = time_s - max(event.start_s for event in begun)
    return sum(since_s > limit for limit in _SINCE_S)


def _did(own: Sequence[Event], kind: str, time_s: float) -> int:
    """Say whether an object's event of a kind has been; unknown while it begins."""
    starts_s = [event.start_s for event in own if event.kind == kind]
    if any(start_s + _SETTLED_S <= time_s for start_s in starts_s):
        return 1
    return UNKNOWN if any(start_s <= time_s for start_s in starts_s) else 0
