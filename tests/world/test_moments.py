"""When a question's answer shows: at the end, at the start, while something happens."""

from dataclasses import replace

import pytest

from llava_video.world.composer import compose
from llava_video.world.moments import moments
from llava_video.world.scene import Event, Scene
from llava_video.world.splits import split_settings


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Ten seconds: one thing enters, moves and changes its colour, another is hit and hides."""
    made = compose(split_settings("train"), "train", 0, 0)
    events = (
        Event("enter", 1.0, 2.5, 0, direction="up"),
        Event("move", 4.0, 6.5, 0, direction="left", speed="slowly"),
        Event("collide", 6.5, 6.5, 0, other=1),
        Event("recolour", 7.0, 7.0, 0, colour="green"),
        Event("hide", 8.0, 8.5, 1),
    )
    return replace(made, num_frames=40, rate_hz=4.0, events=events)


@pytest.mark.parametrize(
    ("question", "thing", "spans"),
    [
        ("Where is the ring now?", 0, [(9.0, 10.0)]),
        ("Is the ring to the left of the red cross now?", 1, [(9.0, 10.0)]),
        ("Can a red ring be seen at the end?", 0, [(9.0, 10.0)]),
        ("Where is the ring at the start?", 0, [(0.0, 1.0)]),
        ("What colour was the ring at first?", 0, [(0.0, 1.0)]),
        ("What shape is the red object?", 0, []),
        ("What colour is the ring?", 0, []),
        ("In which direction does the ring move?", 0, [(4.0, 6.5)]),
        ("Which way does the ring go?", 0, [(4.0, 6.5)]),
        ("Does the ring move down right?", 0, [(4.0, 6.5)]),
        ("Does the red cross move?", 1, []),  # it never does
        ("From which side does the ring enter?", 0, [(1.0, 2.5)]),
        ("When does the ring move?", 0, [(4.0, 5.0)]),
        ("When does the red cross hide behind the wall?", 1, [(8.0, 9.0)]),
        ("What does the ring hit?", 0, [(6.5, 7.5)]),
        ("Which object does the ring run into?", 0, [(6.5, 7.5)]),
        ("Did the colour of the ring change?", 0, [(7.0, 8.0)]),
        ("What colour does the ring turn?", 0, [(7.0, 8.0)]),
        ("Did the size of the ring change?", 0, []),
        ("Which object changes colour?", 0, [(7.0, 8.0)]),
        ("What does the red cross do?", 1, [(8.0, 9.0)]),
        ("Does the ring enter before the red cross hides behind the wall?", 0, [(1.0, 2.0)]),
        ("Does the ring enter before the red cross hides behind the wall?", 1, [(8.0, 9.0)]),
        ("Which does something first, the ring or the red cross?", 1, [(8.0, 9.0)]),
        ("Which moves first, the ring or the red cross?", 0, [(4.0, 5.0)]),
    ],
)
def test_when_it_shows(scene: Scene, question: str, thing: int, spans: list[tuple[float, float]]):
    assert list(moments(scene, question, thing)) == spans


def test_all_deeds_matter_where_any_is_asked_for(scene: Scene):
    found = moments(scene, "What does the ring do?", 0)
    assert found == ((1.0, 2.5), (4.0, 6.5), (6.5, 7.5), (7.0, 8.0))
