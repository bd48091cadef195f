"""Every form of a caption is read as what it says, and nothing else is read at all."""

import pytest
from scene_maker import moving, scene, thing

from llava_video.world.caption import caption
from llava_video.world.caption_reader import (
    DetailClaim,
    EventClaim,
    Name,
    NothingHappens,
    ObjectClaim,
    Unread,
    read_caption,
)
from llava_video.world.example import make_example
from llava_video.world.scene import Event, Scene, Sign
from llava_video.world.settings import WorldSettings
from llava_video.world.splits import split_settings
from llava_video.world.track import Track
from llava_video.world.witness import Witness

SQUARE, RING = Name("square", "red"), Name("ring", "orange")


def test_objects_and_events_of_a_short_caption() -> None:
    text = (
        "A red square, a blue cross and an orange ring. The red square moves down right. "
        "The orange ring enters from the right. The cross turns green."
    )
    assert read_caption(text) == (
        ObjectClaim(SQUARE),
        ObjectClaim(Name("cross", "blue")),
        ObjectClaim(RING),
        EventClaim("move", SQUARE, "down right"),
        EventClaim("enter", RING, "left"),  # who comes from the right goes left
        EventClaim("recolour", Name("cross"), colour="green"),
    )


def test_all_parts_of_a_detailed_caption() -> None:
    text = (
        "The background is noisy. A sign says STOP. "
        "There is a small red square in the top left at the start. "
        "There is a large orange ring on the left at the start. There is a large blue cross. "
        "The red square moves slowly down. No objects can be seen at the end."
    )
    assert read_caption(text) == (
        DetailClaim("background", "noisy"),
        DetailClaim("sign", "STOP"),
        ObjectClaim(SQUARE, "small", "top left"),
        ObjectClaim(RING, "large", "left"),
        ObjectClaim(Name("cross", "blue"), "large"),
        EventClaim("move", SQUARE, "down", "slowly"),
        DetailClaim("count at end", "0"),
    )


def test_moments_of_a_timed_caption() -> None:
    text = (
        "0.0 s: a red square and an orange ring.\n12.5 s: the red square hits the orange ring.\n"
        "13.0 s: the orange ring leaves towards the bottom."
    )
    assert read_caption(text) == (
        ObjectClaim(SQUARE, at_start=True),
        ObjectClaim(RING, at_start=True),
        EventClaim("collide", SQUARE, other=RING, time_s=12.5),
        EventClaim("leave", RING, "down", time_s=13.0),
    )
    nothing = read_caption("0.0 s: no objects.\nNothing happens.")
    assert nothing == (DetailClaim("count at start", "0"), NothingHappens())


@pytest.mark.parametrize(
    "text",
    [
        "The red square dances",
        "The red square moves",
        "The red square moves downwards",
        "A red square and a cat",
        "The grey square stops",
        "A huge red square",
        "The red square moves left and stops",
        "The red square enters from the top left",
        "Five objects can be seen at the end",
    ],
)
def test_what_is_no_form_is_not_read(text: str) -> None:
    assert read_caption(f"{text}. Nothing happens.") == (Unread(text), NothingHappens())
    assert read_caption("") == ()


def test_an_end_that_was_cut_off_is_not_read() -> None:
    assert read_caption("A red square. The red sq")[1] == Unread("The red sq")


def _made(witness: Witness, *, has_speed: bool, has_time: bool) -> list[tuple[object, ...]]:
    """Return what every certain event says of itself, from the scene alone."""
    return [
        (
            event.kind,
            witness.scene.things[event.thing].shape,
            event.direction if event.kind in ("enter", "leave", "move") else "",
            event.speed if has_speed else "",
            event.colour,
            round(event.start_s, 1) if has_time else None,
        )
        for event in witness.certain_events
    ]


def test_what_is_written_is_read_back() -> None:
    """In clips of every split, against the scene that the text was made of."""
    num_events = 0
    for split in ("train", "heldout", "long", "monitor"):
        settings = split_settings(split)
        for idx in range(12):
            example = make_example(settings, split, 3, idx)
            witness = Witness(example.scene, settings)
            for style in ("detailed", "timed"):
                claims = read_caption(example.captions[style])
                assert not [claim for claim in claims if isinstance(claim, Unread)]
                events = [claim for claim in claims if isinstance(claim, EventClaim)]
                is_timed = style == "timed"
                due = _made(witness, has_speed=not is_timed, has_time=is_timed)
                assert [
                    (e.kind, e.name.shape, e.direction, e.speed, e.colour, e.time_s) for e in events
                ] == due
                num_events += len(due)
    assert num_events > 100


def test_a_scene_by_hand_is_read_back_whole() -> None:
    square, move = moving(2.0, 3.0, 0.3, x=0.2, y=0.2)
    ring = thing("ring", "orange", Track((0.0, 4.0, 5.5), (1.3, 1.3, 0.8)), 0.8, 0.144)
    enter = Event("enter", 4.0, 5.5, 1, "left")
    made: Scene = scene(square, ring, events=(move, enter), sign=Sign("STOP", 50, 3, 1))
    text = caption(Witness(made, WorldSettings()), "detailed")
    assert read_caption(text) == (
        DetailClaim("background", "plain"),
        DetailClaim("sign", "STOP"),
        ObjectClaim(SQUARE, "small", "top left"),
        ObjectClaim(RING, "large"),
        EventClaim("move", SQUARE, "right", "slowly"),
        EventClaim("enter", RING, "left"),
        DetailClaim("count at end", "2"),
    )
