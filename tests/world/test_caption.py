"""Captions of a scene made by hand, word for word."""

from scene_maker import moving, scene, thing

from llava_video.world.caption import STYLES, caption, clause, tellings
from llava_video.world.composer import compose
from llava_video.world.mentions import SIGN as SIGN_NUMBER
from llava_video.world.mentions import mentions
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


def test_each_part_says_what_it_tells_of_and_when_that_shows() -> None:
    told = [(one.text, one.things, one.spans) for one in tellings(WITNESS, "detailed")]
    assert told == [
        ("The background is plain.", (), ()),
        (" A sign says STOP.", (SIGN_NUMBER,), ()),
        (" There is a small red square in the top left at the start.", (0,), ((0.0, 1.0),)),
        (" There is a large orange ring.", (1,), ()),
        (" The red square moves slowly right.", (0,), ((2.0, 3.0),)),
        (" The red square stops.", (0,), ((3.0, 4.0),)),
        (" The orange ring enters from the right.", (1,), ((4.0, 5.5),)),
        (" Two objects can be seen at the end.", (), ()),
    ]
    told = [(one.text, one.things, one.spans) for one in tellings(WITNESS, "timed")]
    assert told[:3] == [
        ("0.0 s:", (), ()),
        (" a red square.\n", (0,), ((0.0, 1.0),)),
        ("2.0 s: the red square moves right.\n", (0,), ((2.0, 3.0),)),
    ]
    told = [(one.text, one.things, one.spans) for one in tellings(WITNESS, "short")]
    assert told[:2] == [("A red square", (0,), ()), (" and an orange ring.", (1,), ())]


def test_what_is_hit_is_told_of_too() -> None:
    hit = Event("collide", 3.0, 3.0, 0, "right", other=1)
    ring = thing("ring", "green", x=0.6, y=0.2)
    witness = Witness(scene(SQUARE, ring, events=(MOVE, hit, STOP)), WorldSettings())
    told = {one.text: one.things for one in tellings(witness, "short")}
    assert told[" The red square hits the green ring."] == (0, 1)


def test_parts_name_what_they_tell_of() -> None:
    """The parts' objects are those that whoever reads the text finds named in it."""
    num_named = 0
    for idx in range(60):
        made = compose(WorldSettings(), "told", idx)
        witness = Witness(made, WorldSettings())
        for style in STYLES:
            for one in tellings(witness, style):
                named = mentions(made, one.text)
                assert named == one.things or None in named
                num_named += None not in named and bool(named)
    assert num_named > 800
