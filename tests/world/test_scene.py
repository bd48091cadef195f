"""The state at a moment, counted by hand on scenes of 100 px, where a unit is 100 px."""

import pytest
from scene_maker import moving, scene, thing

from llava_video.config import from_mapping, to_mapping
from llava_video.world.composer import compose
from llava_video.world.scene import Event, Scene, Wall
from llava_video.world.settings import WorldSettings
from llava_video.world.track import Track


def test_units_are_of_the_shorter_side() -> None:
    wide = scene(size_px=(50, 200))
    assert (wide.unit_px, wide.height, wide.width) == (50, 1.0, 4.0)
    assert (wide.length_s, wide.time_of(3)) == (8.0, 1.5)


@pytest.mark.parametrize(
    ("time_s", "x", "motion"),
    [(0.9, 0.3, ""), (1.0, 0.3, "right"), (2.0, 0.4, "right"), (3.0, 0.5, "")],
)
def test_where_a_mover_is(time_s: float, x: float, motion: str) -> None:
    mover, event = moving(1.0, 3.0, 0.2)
    (state,) = scene(mover, events=(event,)).state_at(time_s)
    assert (state.x, state.motion) == (pytest.approx(x), motion)


def test_colours_and_sizes_change() -> None:
    made = thing(radius=Track((0.0, 2.0, 4.0), (0.1, 0.1, 0.2)), later=((3.0, "blue"),))
    states = [scene(made).state_at(t)[0] for t in (0.0, 2.9, 3.0, 4.0)]
    assert [state.colour for state in states] == ["red", "red", "blue", "blue"]
    assert [state.radius for state in states] == pytest.approx([0.1, 0.145, 0.15, 0.2])


@pytest.mark.parametrize(
    ("x", "view"),
    # A square of radius 0.1 reaches 0.09 to the side; a pixel is 0.01.
    [(0.5, "whole"), (0.091, "whole"), (0.089, "partly"), (-0.09, "partly"), (-0.101, "gone"),
     (0.909, "whole"), (0.911, "partly"), (1.101, "gone")],
)  # fmt: skip
def test_how_much_shows_at_an_edge(x: float, view: str) -> None:
    assert scene(thing(x=x)).state_at(0.0)[0].view == view


@pytest.mark.parametrize(
    ("x", "view"),
    [(0.5, "gone"), (0.51, "gone"), (0.53, "partly"), (0.7, "partly"), (0.72, "whole")],
)
def test_how_much_shows_at_a_wall(x: float, view: str) -> None:
    wall = Wall(0.39, 0.39, 0.61, 0.61)
    assert scene(thing(x=x), wall=wall).state_at(0.0)[0].view == view


def test_a_shaking_camera_needs_room() -> None:
    assert scene(thing(x=0.1)).state_at(0.0)[0].view == "whole"
    assert scene(thing(x=0.1), shake_px=2).state_at(0.0)[0].view == "partly"
    assert scene(thing(x=-0.11), shake_px=2).state_at(0.0)[0].view == "partly"


def test_a_hit_gives_no_direction_of_its_own() -> None:
    hit = Event("collide", 2.0, 2.0, 0, "right", other=1)
    states = scene(thing(), thing(colour="blue", x=0.8), events=(hit,)).state_at(2.0)
    assert [state.motion for state in states] == ["", ""]


def test_a_scene_goes_through_plain_values() -> None:
    for idx in range(12):
        made = compose(WorldSettings(), "plain values", idx)
        assert from_mapping(Scene, to_mapping(made)) == made
