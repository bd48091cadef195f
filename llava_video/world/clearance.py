"""Two lives, or a life and a wall → whether they ever come near each other.

Between the moments of all tracks every number changes in a straight line, so the least distance of
each such stretch is found exactly.
"""

import itertools
import math
from collections.abc import Iterable
from typing import Final

from llava_video.world.scene import Thing, Wall
from llava_video.world.shapes import MOST_REACH
from llava_video.world.track import Track

_GAP: Final = 0.03  # between two objects, units
# Circles around two shapes whose corners point at each other would keep them farther apart than
# the eye needs; this much of the farthest reach is kept.
_ROUNDNESS: Final = 0.92


def is_apart(first: Thing, second: Thing) -> bool:
    """Say whether two objects never touch, whatever their shapes."""
    moments = _moments((first.x, first.y, first.radius, second.x, second.y, second.radius))
    for start_s, end_s in itertools.pairwise([*moments, moments[-1] + 1.0]):
        radius = max(first.radius.at(t) + second.radius.at(t) for t in (start_s, end_s))
        least = radius * MOST_REACH * _ROUNDNESS + _GAP
        start = (
            first.x.at(start_s) - second.x.at(start_s),
            first.y.at(start_s) - second.y.at(start_s),
        )
        end = first.x.at(end_s) - second.x.at(end_s), first.y.at(end_s) - second.y.at(end_s)
        if least_distance(start, end) < least:
            return False
    return True


def is_beside(thing: Thing, wall: Wall) -> bool:
    """Say whether an object never comes near a wall."""
    moments = _moments((thing.x, thing.y, thing.radius))
    for start_s, end_s in itertools.pairwise([*moments, moments[-1] + 1.0]):
        reach = max(thing.radius.at(t) for t in (start_s, end_s)) * MOST_REACH + _GAP
        # The box around the stretch: moves are short, so little room is lost.
        xs, ys = (
            [thing.x.at(t) for t in (start_s, end_s)],
            [thing.y.at(t) for t in (start_s, end_s)],
        )
        is_across = max(xs) + reach > wall.left and min(xs) - reach < wall.right
        if is_across and max(ys) + reach > wall.top and min(ys) - reach < wall.bottom:
            return False
    return True


def least_distance(start: tuple[float, float], end: tuple[float, float]) -> float:
    """Return how near a straight way from `start` to `end` comes to the origin."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    squared = dx * dx + dy * dy
    share = 0.0 if squared == 0 else -(start[0] * dx + start[1] * dy) / squared
    share = min(1.0, max(0.0, share))
    x, y = start[0] + share * dx, start[1] + share * dy
    return math.sqrt(x * x + y * y)


def _moments(tracks: Iterable[Track]) -> list[float]:
    return sorted({time_s for track in tracks for time_s in track.times_s})
