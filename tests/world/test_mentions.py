"""What a text names: objects by colour, shape or both, and the sign."""

from dataclasses import replace

import pytest

from llava_video.world.composer import compose
from llava_video.world.mentions import NOUNS, SIGN, mentions
from llava_video.world.scene import Scene, Sign
from llava_video.world.splits import split_settings
from llava_video.world.vocabulary import SHAPES


@pytest.fixture(scope="module")
def scene() -> Scene:
    """A red circle, a blue circle, a ring that turns from red to green."""
    made = next(
        one
        for number in range(200)
        if len((one := compose(split_settings("train"), "train", 0, number)).things) == 3
    )
    looks = (("circle", "red"), ("circle", "blue"), ("ring", "red"))
    things = [
        replace(thing, shape=shape, colours=((0.0, colour),))
        for thing, (shape, colour) in zip(made.things, looks, strict=True)
    ]
    things[2] = replace(things[2], colours=((0.0, "red"), (2.0, "green")))
    return replace(made, things=tuple(things))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("What colour is the ring?", (2,)),
        ("What shape is the blue object?", (1,)),
        ("Does the blue circle move before the green ring stops?", (1, 2)),
        ("Which moves first, the red circle or the ring?", (0, 2)),
        ("Is there a circle?", (None,)),  # it may be either
        ("What shape is the red thing?", (None,)),
        ("Is there a pink circle, or a square?", (None, None)),
        ("Which object hides?", (None,)),
        ("How many objects are there in all?", ()),
        ("Circles, rings and redcircle.", ()),
    ],
)
def test_what_is_named(scene: Scene, text: str, named: tuple[int | None, ...]):
    assert mentions(scene, text) == named


def test_the_sign(scene: Scene):
    text = "What does the sign say?"
    assert mentions(replace(scene, sign=None), text) == (None,)
    sign = Sign(text="GO", left_px=1, top_px=1, scale=1)
    assert mentions(replace(scene, sign=sign), text) == (SIGN,)
    assert {*SHAPES, "sign"} < set(NOUNS)
