import itertools
import math

import numpy as np
import pytest
from scene_maker import thing

from llava_video.world.clearance import is_apart, is_beside, least_distance
from llava_video.world.composer import compose
from llava_video.world.scene import Wall
from llava_video.world.settings import WorldSettings
from llava_video.world.track import Track


@pytest.mark.parametrize(
    ("start", "end", "distance"),
    [
        ((-1.0, 0.5), (1.0, 0.5), 0.5),  # passes by in the middle: neither end is that near
        ((1.0, 1.0), (2.0, 2.0), math.sqrt(2)),  # nearest at the start
        ((3.0, 4.0), (3.0, 4.0), 5.0),
        ((2.0, 0.0), (0.0, 2.0), math.sqrt(2)),
    ],
)
def test_least_distance(start, end, distance: float) -> None:
    assert least_distance(start, end) == pytest.approx(distance)
    shares = np.linspace(0, 1, 2001)[:, None]
    way = (1 - shares) * np.array(start) + shares * np.array(end)
    assert np.hypot(*way.T).min() == pytest.approx(distance, abs=1e-3)


def test_two_that_cross_at_different_times_are_apart() -> None:
    first = thing(x=Track((0.0, 1.0, 2.0), (0.1, 0.1, 0.9)), y=0.5)
    crosses_late = thing(colour="blue", x=0.5, y=Track((0.0, 3.0, 4.0), (0.1, 0.1, 0.9)))
    crosses_then = thing(colour="blue", x=0.5, y=Track((0.0, 1.0, 2.0), (0.1, 0.1, 0.9)))
    # The ends of the ways would not tell: the last two have the same.
    assert is_apart(first, thing(colour="blue", x=0.5, y=0.1))
    assert not is_apart(first, crosses_then)
    assert is_apart(first, crosses_late)
    assert not is_apart(first, thing(colour="blue", x=0.5, y=0.62))


def test_growing_needs_room() -> None:
    still, other = thing(x=0.3), thing(colour="blue", x=0.62)
    assert is_apart(still, other)
    assert not is_apart(thing(x=0.3, radius=Track((0.0, 1.0, 2.0), (0.1, 0.1, 0.2))), other)


def test_walls_are_kept_clear() -> None:
    wall = Wall(0.4, 0.4, 0.6, 0.6)
    assert is_beside(thing(x=0.2), wall)
    assert not is_beside(thing(x=0.3), wall)
    assert not is_beside(thing(x=Track((0.0, 1.0, 2.0), (0.1, 0.1, 0.9))), wall)
    assert is_beside(thing(x=Track((0.0, 1.0, 2.0), (0.1, 0.1, 0.9)), y=0.15), wall)


def test_nobody_in_a_scene_touches_anybody_but_in_a_collision() -> None:
    settings = WorldSettings(min_objects=4)
    for idx in range(15):
        made = compose(settings, "apart", idx)
        hits = {(e.thing, e.other) for e in made.events if e.other is not None}
        for one, other in itertools.combinations(range(4), 2):
            if (one, other) in hits or (other, one) in hits:
                continue
            for moment in np.arange(0, 8, 0.125):
                states = made.state_at(float(moment))
                a, b = states[one], states[other]
                assert math.hypot(a.x - b.x, a.y - b.y) > (a.radius + b.radius) * 1.2
