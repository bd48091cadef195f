"""What is certain, on scenes made by hand: 100 px, 8 s, a look every half second unless said."""

import pytest
from scene_maker import moving, scene, thing

from llava_video.world.scene import Event, Scene, Wall
from llava_video.world.settings import WorldSettings
from llava_video.world.track import Track
from llava_video.world.witness import Witness


def witness(made: Scene, **settings: object) -> Witness:
    return Witness(made, WorldSettings(**settings))


def test_what_shows_is_seen() -> None:
    assert witness(scene(thing(), thing(x=2.0, colour="blue"))).seen == {0}


def test_a_glimpse_is_not_seen() -> None:
    # Whole in the frames at 2.0 and 2.5 s only; seen by two looks a second, not by one.
    pops = thing(x=Track((0.0, 2.0, 2.0, 2.9, 2.9), (-1.0, -1.0, 0.5, 0.5, -1.0)))
    assert witness(scene(pops)).seen == {0}
    assert witness(scene(pops), sampled_hz=1.0).seen == frozenset()


def test_what_is_hidden_all_the_time_is_not_seen() -> None:
    made = scene(thing(), wall=Wall(0.3, 0.3, 0.7, 0.7))
    assert witness(made).seen == frozenset()
    assert not witness(made).all_clear


@pytest.mark.parametrize(
    ("way", "settings", "is_certain"),
    [
        (0.05, {}, True),  # 5 px
        (0.03, {}, False),  # 3 px: below the 4 that are stated
        (0.03, {"least_motion_px": 2.0}, True),
    ],
)
def test_a_short_way_is_no_move(way: float, settings: dict, is_certain: bool) -> None:
    mover, event = moving(2.0, 4.0, way)
    assert witness(scene(mover, events=(event,)), **settings).is_certain(event) is is_certain


def test_a_shaking_camera_asks_for_longer_ways() -> None:
    mover, event = moving(2.0, 4.0, 0.06)
    assert witness(scene(mover, events=(event,), shake_px=1)).is_certain(event)  # 6 px of 4 + 2
    assert not witness(scene(mover, events=(event,), shake_px=2)).is_certain(event)  # of 4 + 4


@pytest.mark.parametrize(
    ("start_s", "end_s", "sampled_hz", "is_certain"),
    [
        (2.0, 2.5, 2.0, True),
        (2.0, 2.4, 2.0, False),  # shorter than the time between two looks
        (2.0, 2.5, 1.0, False),
        (2.0, 3.0, 1.0, True),
        (0.0, 2.0, 2.0, False),  # nobody saw it at rest before
        (5.5, 7.4, 2.0, False),  # the last frame is at 7.5 s: nobody saw it stop
        (5.5, 7.0, 2.0, True),
        (5.0, 8.0, 2.0, True),  # goes on: seen moving for long enough
        (7.0, 8.0, 2.0, False),
    ],
)
def test_an_event_needs_time(start_s: float, end_s: float, sampled_hz: float, is_certain) -> None:
    mover, event = moving(start_s, end_s, 0.4)
    made = scene(mover, events=(event,))
    assert witness(made, sampled_hz=sampled_hz).is_certain(event) is is_certain


def test_a_change_of_colour_shows_on_both_sides() -> None:
    def certain(when_s: float, sampled_hz: float = 2.0) -> bool:
        event = Event("recolour", when_s, when_s, 0, colour="blue")
        made = scene(thing(later=((when_s, "blue"),)), events=(event,))
        return witness(made, sampled_hz=sampled_hz).is_certain(event)

    assert certain(4.0)
    assert certain(1.0)
    assert not certain(0.4)
    assert not certain(7.4)
    assert not certain(7.0, sampled_hz=1.0)


def test_a_small_growth_is_none() -> None:
    def certain(after: float) -> bool:
        event = Event("grow", 2.0, 3.0, 0)
        made = scene(thing(radius=Track((0.0, 2.0, 3.0), (0.1, 0.1, after))), events=(event,))
        return witness(made).is_certain(event)

    assert certain(0.12)
    assert not certain(0.11)  # 1 px of the 1.5 that are stated


def test_entering_wants_nothing_before_and_all_after() -> None:
    def certain(outside: float) -> bool:
        event = Event("enter", 2.0, 4.0, 0, "right")
        path = Track((0.0, 2.0, 4.0), (outside, outside, 0.5))
        return witness(scene(thing(x=path), events=(event,))).is_certain(event)

    assert certain(-0.12)
    assert not certain(-0.05)  # half of it showed all the time


def test_one_doubtful_event_makes_its_object_doubtful() -> None:
    mover, event = moving(2.0, 4.0, 0.03)
    seen = witness(scene(mover, thing(colour="blue", x=0.8), events=(event,)))
    assert seen.seen == {0, 1}
    assert seen.clear == {1}
    assert not seen.all_clear
    assert seen.certain_events == ()


def test_both_of_a_doubtful_collision_are_doubtful() -> None:
    runner, event = moving(2.0, 4.0, 0.02)
    hit = Event("collide", 4.0, 4.0, 0, "right", other=1)
    seen = witness(scene(runner, thing(colour="blue", x=0.8), events=(event, hit)))
    assert seen.clear == frozenset()


@pytest.mark.parametrize(
    ("x", "y", "place"),
    [
        (0.2, 0.2, "top left"),
        (0.5, 0.5, "centre"),
        (0.8, 0.5, "right"),
        (0.5, 0.8, "bottom"),
        (0.36, 0.5, None),  # 0.027 from a third
        (0.2, 0.65, None),
    ],
)
def test_places_are_thirds_and_their_borders_are_not_asked(x: float, y: float, place) -> None:
    assert witness(scene(thing(x=x, y=y))).place(0, at_end=False) == place


def test_the_end_must_be_steady() -> None:
    out = Event("leave", 6.0, 7.25, 0, "right")
    path = Track((0.0, 6.0, 7.25), (0.5, 0.5, 1.2))
    assert witness(scene(thing(x=path), events=(out,))).views_at_end() is None
    early = Track((0.0, 4.0, 5.5), (0.5, 0.5, 1.2))
    assert witness(scene(thing(x=early), thing(colour="blue"))).views_at_end() == ("gone", "whole")


def test_names_leave_out_a_colour_that_changes() -> None:
    changing = thing(shape="ring", later=((4.0, "blue"),))
    seen = witness(scene(thing(x=0.2), changing))
    assert [seen.name(idx) for idx in range(2)] == ["red square", "ring"]
    assert seen.size(0, 0.0) == "small"
