"""Acts against ways and times counted by hand."""

import math

import pytest

from llava_video.world.actor import Act, Actor, Stage, push
from llava_video.world.shapes import REACH

_STAGE = Stage(0.02, 0.02, 0.98, 0.98, 1.0, 1.0, 0.0, 12.0)


def actor(idx: int = 0, shape: str = "square", size: str = "small", x: float = 0.5) -> Actor:
    return Actor(idx, shape, "red", size, x, 0.5)


def test_a_move_goes_as_far_as_speed_and_time_say() -> None:
    mover = actor()
    assert mover.play(Act("move", 1.0, "down left", "slowly", 2.0), _STAGE)
    made = mover.thing((0, 0, 0))
    # 0.16 units/s for 2 s, aslant.
    way = 0.32 / math.sqrt(2)
    assert (made.x.at(3.0), made.y.at(3.0)) == pytest.approx((0.5 - way, 0.5 + way))
    assert (made.x.at(2.0), made.y.at(2.0)) == pytest.approx((0.5 - way / 2, 0.5 + way / 2))
    assert [(e.kind, e.start_s, e.end_s) for e in mover.events] == [
        ("move", 1.0, 3.0),
        ("stop", 3.0, 3.0),
    ]


def test_a_move_that_goes_on_does_not_stop() -> None:
    mover = actor()
    assert mover.play(Act("move", 10.5, "up", "slowly", 1.5, goes_on=True), _STAGE)
    assert [e.kind for e in mover.events] == ["move"]


@pytest.mark.parametrize("shape", REACH)
@pytest.mark.parametrize("direction", ["right", "left", "up", "down"])
def test_who_enters_was_outside_and_who_leaves_is(shape: str, direction: str) -> None:
    for kind, outside_s, inside_s in (("enter", 1.0, 11.9), ("leave", 11.9, 1.0)):
        mover = actor(shape=shape)
        assert mover.play(Act(kind, 1.0, direction), _STAGE)
        made, side = mover.thing((0, 0, 0)), REACH[shape]
        assert (made.x.at(inside_s), made.y.at(inside_s)) == pytest.approx((0.5, 0.5))
        x, y = made.x.at(outside_s), made.y.at(outside_s)
        gap = max(x - side[0] * 0.09 - 1, -x - side[0] * 0.09, y - side[1] * 0.09 - 1)
        gap = max(gap, -y - side[2] * 0.09)
        assert 0.02 < gap < 0.05
        (event,) = mover.events
        assert 0.9 <= event.end_s - event.start_s <= 2.6


def test_nobody_passes_the_edge_with_the_sign() -> None:
    closed = Stage(0.02, 0.02, 0.98, 0.8, 1.0, 1.0, 0.0, 12.0, "bottom")
    assert not actor().play(Act("leave", 1.0, "down"), closed)
    assert not actor().play(Act("enter", 1.0, "up"), closed)
    assert actor().play(Act("enter", 1.0, "down"), closed)


def test_sizes_and_colours() -> None:
    mover = actor()
    assert mover.play(Act("grow", 1.0, length_s=1.0), _STAGE)
    assert mover.play(Act("recolour", 5.0, colour="blue"), _STAGE)
    made = mover.thing((0, 0, 0))
    assert [made.radius.at(t) for t in (1.0, 1.5, 2.0)] == pytest.approx([0.09, 0.117, 0.144])
    assert made.colours == ((0.0, "red"), (5.0, "blue"))


@pytest.mark.parametrize("is_return", [True, False])
def test_who_hides_is_behind_the_wall_for_as_long_as_said(is_return: bool) -> None:
    mover = actor(x=0.3)
    assert mover.play(Act("hide", 1.0, "right", length_s=2.0, is_return=is_return), _STAGE)
    hide, back = mover.events
    assert back.start_s - hide.end_s == pytest.approx(2.0)
    wall, made = mover.wall, mover.thing((0, 0, 0))
    assert wall is not None
    middle = made.x.at(hide.end_s + 1.0)
    assert wall.left < middle - 0.9 * 0.09
    assert middle + 0.9 * 0.09 < wall.right
    assert made.x.at(0.0) + 0.9 * 0.09 < wall.left
    assert made.x.at(12.0) == pytest.approx(0.3 if is_return else 2 * middle - 0.3)
    assert back.direction == ("left" if is_return else "right")


def test_no_room_and_no_time() -> None:
    assert not actor(x=0.8).play(Act("move", 1.0, "right", "quickly", 1.0), _STAGE)
    assert not actor().play(Act("move", 10.5, "up", "slowly", 1.0), _STAGE)  # ends too late
    busy = actor()
    assert busy.play(Act("move", 1.0, "up", "slowly", 1.0), _STAGE)
    assert not busy.play(Act("grow", 2.5), _STAGE)  # less than a second after its stop
    assert not actor(x=0.15).play(Act("hide", 1.0, "left"), _STAGE)


def test_a_push_hands_the_way_on() -> None:
    runner, struck = actor(x=0.2), actor(1, "circle")
    assert push(runner, struck, Act("collide", 1.0, "right", "slowly", 1.0), _STAGE)
    first, then = runner.thing((0, 0, 0)), struck.thing((0, 0, 0))
    # 0.16 units to the hit; square and circle of radius 0.09 touch at 0.9 + 1 radii.
    assert first.x.at(2.0) == pytest.approx(0.36)
    assert then.x.at(0.0) == then.x.at(2.0) == pytest.approx(0.36 + 1.9 * 0.09)
    assert then.x.at(3.0) == pytest.approx(0.36 + 1.9 * 0.09 + 0.16)
    assert first.y.at(0.0) == then.y.at(0.0)
    assert [(e.kind, e.start_s, e.thing) for e in (*runner.events, *struck.events)] == [
        ("move", 1.0, 0),
        ("stop", 2.0, 0),
        ("collide", 2.0, 0),
        ("move", 2.0, 1),
        ("stop", 3.0, 1),
    ]


def test_only_who_has_done_nothing_can_be_struck() -> None:
    struck = actor(1)
    assert struck.play(Act("recolour", 1.0, colour="blue"), _STAGE)
    assert not push(actor(x=0.2), struck, Act("collide", 5.0, "right"), _STAGE)
