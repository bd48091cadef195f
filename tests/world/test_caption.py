"""Captions of a scene made by hand, word for word."""

from scene_maker import moving, scene, thing

from llava_video.world.caption import caption, clause
from llava_video.world.scene import Event, Sign
from llava_video.world.settings import WorldSettings
from llava_video.world.track import Track
from llava_video.world.witness import Witness

SQUARE, MOVE = moving(2.0, 3.0, 0.3, x=0.2, y=0.2)
STOP = Event("stop", 3.0, 3.0, 0)
RING = thing("ring", "orange", Track((0.0, 4.0, 5.5), (1.3, 1.3, 0.8)), 0.8, 0.144)
ENTER = Event("enter", 4.0, 5.5, 1, "left")
SIGN = Sign("STOP", 50, 3, 1)
WITNESS = Witness(scene(SQUARE, RING, events=(MOVE, STOP, ENTER), sign=SIGN), WorldSettings())


def test_short() -> None:
    assert caption(WITNESS, "short") == (
        "A red square and an orange ring. The red square moves right. "
        "The orange ring enters from the right."
    )


def test_detailed() -> None:
    assert caption(WITNESS, "detailed") == (
        "The background is plain. A sign says STOP. "
        "There is a small red square in the top left at the start. There is a large orange ring. "
        "The red square moves slowly right. The red square stops. "
        "The orange ring enters from the right. Two objects can be seen at the end."
    )


def test_timed() -> None:
    assert caption(WITNESS, "timed") == (
        "0.0 s: a red square.\n"
        "2.0 s: the red square moves right.\n"
        "3.0 s: the red square stops.\n"
        "4.0 s: the orange ring enters from the right."
    )


def test_nothing() -> None:
    still = Witness(scene(thing()), WorldSettings())
    assert caption(still, "short") == "A red square. Nothing happens."
    assert caption(still, "timed") == "0.0 s: a red square.\nNothing happens."


def test_what_is_not_certain_is_not_told() -> None:
    twitch, event = moving(2.0, 3.0, 0.02)
    told = Witness(scene(twitch, events=(event,)), WorldSettings())
    assert caption(told, "short") == "A red square. Nothing happens."


def test_every_event_has_a_clause() -> None:
    seen = Witness(
        scene(thing(later=((4.0, "blue"),)), thing("ring", "green", 0.8)), WorldSettings()
    )
    events = {
        "leave": Event("leave", 1.0, 2.0, 1, "down"),
        "grow": Event("grow", 1.0, 2.0, 1),
        "shrink": Event("shrink", 1.0, 2.0, 1),
        "recolour": Event("recolour", 4.0, 4.0, 0, colour="blue"),
        "hide": Event("hide", 1.0, 2.0, 1, "left"),
        "return": Event("return", 1.0, 2.0, 1, "left"),
        "collide": Event("collide", 2.0, 2.0, 1, "left", other=0),
    }
    assert {kind: clause(seen, event) for kind, event in events.items()} == {
        "leave": "the green ring leaves towards the bottom",
        "grow": "the green ring grows",
        "shrink": "the green ring shrinks",
        "recolour": "the square turns blue",
        "hide": "the green ring hides behind the wall",
        "return": "the green ring comes back from behind the wall",
        "collide": "the green ring hits the square",
    }
