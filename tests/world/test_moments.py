"""When a question's answer shows: at the end, at the start, while something happens."""

import math
from dataclasses import replace

import pytest

from llava_video.world.composer import compose
from llava_video.world.moments import moments
from llava_video.world.scene import Event, Scene
from llava_video.world.splits import split_settings

SHOWS_S = (1.5, 2.0, 8.0, 8.5)


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A ring enters, moves twice, hits a cross that then moves off, hides; its colour changes."""
    made = next(
        one
        for number in range(200)
        if len((one := compose(split_settings("train"), "train", 0, number)).things) == 2
    )
    looks = (("ring", ((0.0, "red"), (7.0, "green"))), ("cross", ((0.0, "red"),)))
    things = [
        replace(thing, shape=shape, colours=colours)
        for thing, (shape, colours) in zip(made.things, looks, strict=True)
    ]
    events = (
        Event("enter", 1.0, 2.5, 0, direction="up"),
        Event("move", 4.0, 6.5, 0, direction="left", speed="slowly"),
        Event("collide", 6.5, 6.5, 0, other=1),
        Event("stop", 6.5, 6.5, 0),
        Event("move", 6.5, 7.0, 1, direction="left", speed="slowly"),
        Event("stop", 7.0, 7.0, 1),
        Event("recolour", 7.0, 7.0, 0, colour="green"),
        Event("move", 7.5, 8.5, 0, direction="up", speed="slowly"),
        Event("hide", 8.0, 8.5, 1),
    )
    return replace(made, num_frames=40, rate_hz=4.0, events=events, things=tuple(things))


@pytest.mark.parametrize(
    ("question", "thing", "spans"),
    [
        ("Where is the ring now?", 0, [(7.5, math.inf)]),
        ("Is the ring to the left of the red cross now?", 1, [(7.5, math.inf)]),
        ("Can a red ring be seen at the end?", 0, [(7.5, math.inf)]),
        ("Where is the ring at the start?", 0, [(1.5, 2.5)]),
        ("What colour was the ring at first?", 0, [(1.5, 2.5)]),
        ("What shape is the red object?", 0, []),
        ("What colour is the ring?", 0, []),
        ("In which direction does the red cross move?", 1, [(6.5, 7.5)]),
        ("Which way does the ring go?", 0, [(4.0, 6.5), (7.5, 8.5)]),
        ("Does the ring move down right?", 0, [(4.0, 6.5), (7.5, 8.5)]),
        ("Does the red cross grow?", 1, []),  # it never does
        ("From which side does the ring enter?", 0, [(1.0, 2.5)]),
        ("When does the ring stop?", 0, [(6.5, 7.5)]),
        ("When does the red cross hide behind the wall?", 1, [(8.0, 9.0)]),
        ("What does the ring hit?", 0, [(6.5, 7.5)]),
        ("Which object does the ring run into?", 0, [(6.5, 7.5)]),
        ("Did the colour of the ring change?", 0, [(7.0, 8.0)]),
        ("What colour does the ring turn?", 0, [(7.0, 8.0)]),
        ("Did the size of the ring change?", 0, []),
        ("Which object changes colour?", 0, [(7.0, 8.0)]),
        # Stopping and being struck are no deeds.
        ("What does the red cross do?", 1, [(6.5, 7.5), (8.0, 9.0)]),
        # Each has its own verb, and the first of its kind counts.
        ("Does the ring move before the red cross hides behind the wall?", 0, [(4.0, 5.0)]),
        ("Does the ring move before the red cross hides behind the wall?", 1, [(8.0, 9.0)]),
        ("Does the red cross move before the ring enters?", 0, [(1.0, 2.0)]),
        ("Does the red cross move before the ring enters?", 1, [(6.5, 7.5)]),
        ("Which does something first, the ring or the red cross?", 0, [(1.0, 2.0)]),
        ("Which does something first, the ring or the red cross?", 1, [(6.5, 7.5)]),
        ("Which moves first, the ring or the red cross?", 0, [(4.0, 5.0)]),
    ],
)
def test_when_it_shows(scene: Scene, question: str, thing: int, spans: list[tuple[float, float]]):
    assert list(moments(scene, question, thing, SHOWS_S)) == spans


def test_at_first_ends_where_the_colour_changes(scene: Scene):
    events = tuple(
        replace(one, start_s=2.0) if one.kind == "recolour" else one for one in scene.events
    )
    asked = (replace(scene, events=events), "What colour was the ring at first?", 0)
    assert moments(*asked, SHOWS_S) == ((1.5, 2.0),)
