"""Each question on scenes made by hand: what is asked, and what is not."""

from collections.abc import Callable, Iterator

import pytest
from scene_maker import scene, thing

from llava_video.world import ask_looks
from llava_video.world.dice import Dice
from llava_video.world.question import Asker, Question
from llava_video.world.scene import Event, Scene, Sign
from llava_video.world.settings import WorldSettings
from llava_video.world.track import Track
from llava_video.world.witness import Witness


def asked(ask: Callable[[Asker], Iterator[Question]], made: Scene) -> set[tuple[str, str]]:
    """Return all pairs of text and answer that a question can take, over many draws."""
    return {
        (question.text, question.answer)
        for idx in range(60)
        for question in ask(Asker(Witness(made, WorldSettings()), Dice("looks", idx)))
    }


RED, BLUE = thing(x=0.2), thing(shape="ring", colour="blue", x=0.8)
RED_TOO = thing(shape="cross", x=0.5)


def test_shape_of_the_only_red_one() -> None:
    answers = {answer for text, answer in asked(ask_looks.ask_shape, scene(RED, BLUE))}
    assert answers == {"square", "ring"}
    assert asked(ask_looks.ask_shape, scene(RED, RED_TOO)) == set()
    # Blue is what the square turns too.
    turning = thing(x=0.2, later=((4.0, "blue"),))
    assert asked(ask_looks.ask_shape, scene(turning, BLUE)) == set()


def test_colour_of_the_only_ring() -> None:
    assert ("What colour is the ring?", "blue") in asked(ask_looks.ask_colour, scene(RED, BLUE))
    twice = scene(BLUE, thing(shape="ring", colour="red", x=0.2))
    assert asked(ask_looks.ask_colour, twice) == set()


def test_colours_of_one_that_turns() -> None:
    turning = thing(x=0.2, later=((4.0, "blue"),))
    event = Event("recolour", 4.0, 4.0, 0, colour="blue")
    assert asked(ask_looks.ask_colour, scene(turning, events=(event,))) == {
        ("What colour was the square at first?", "red"),
        ("What colour is the square now?", "blue"),
        ("What colour does the square turn?", "blue"),
    }
    late = Event("recolour", 7.4, 7.4, 0, colour="blue")
    too_late = thing(x=0.2, later=((7.4, "blue"),))
    assert asked(ask_looks.ask_colour, scene(too_late, events=(late,))) == set()


def test_size_of_one_that_keeps_it() -> None:
    assert {a for _, a in asked(ask_looks.ask_size, scene(thing(radius=0.144)))} == {"large"}
    grown = thing(radius=Track((0.0, 2.0, 3.0), (0.09, 0.09, 0.144)))
    event = Event("grow", 2.0, 3.0, 0)
    assert asked(ask_looks.ask_size, scene(grown, events=(event,))) == set()


def test_places_now_and_before() -> None:
    path = Track((0.0, 2.0, 4.0), (0.2, 0.2, 0.8))
    event = Event("move", 2.0, 4.0, 0, "right", "quickly")
    found = asked(ask_looks.ask_place, scene(thing(x=path), events=(event,)))
    assert found == {
        ("Where is the red square at the start?", "left"),
        ("Where is the red square at the end?", "right"),
        ("Where is the red square now?", "right"),
    }


def test_counts() -> None:
    gone = thing(shape="ring", colour="blue", x=Track((0.0, 2.0, 4.0), (0.8, 0.8, 1.3)))
    event = Event("leave", 2.0, 4.0, 1, "right")
    made = scene(RED, gone, RED_TOO, events=(event,))
    assert {a for _, a in asked(ask_looks.ask_count, made)} == {"3"}
    assert {a for _, a in asked(ask_looks.ask_count_now, made)} == {"2"}
    alike = asked(ask_looks.ask_count_alike, made)
    assert ("How many red objects are there in all?", "2") in alike
    assert ("How many rings are there in all?", "1") in alike
    assert ("How many circles are there in all?", "0") in alike


def test_nothing_is_counted_that_may_have_been_missed() -> None:
    glimpse = Track((0.0, 4.0, 4.0, 4.4, 4.4), (-1.0, -1.0, 0.8, 0.8, -1.0))
    made = scene(RED, thing(colour="blue", x=glimpse))
    for ask in (ask_looks.ask_count, ask_looks.ask_count_alike, ask_looks.ask_count_now):
        assert asked(ask, made) == set()


@pytest.mark.parametrize("text", ["GO", "911"])
def test_sign(text: str) -> None:
    assert {a for _, a in asked(ask_looks.ask_sign, scene(sign=Sign(text, 5, 5, 1)))} == {text}
    assert asked(ask_looks.ask_sign, scene()) == set()
