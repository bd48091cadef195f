"""True captions are complete and true; every fault planted in one is found, and no other."""

import dataclasses

import pytest
from scene_maker import moving, scene, thing

from llava_video.eval.caption_scoring import measure_caption
from llava_video.world.caption import STYLES, CaptionStyle, caption
from llava_video.world.caption_reader import EventClaim, read_caption
from llava_video.world.example import make_example
from llava_video.world.scene import Event, Sign
from llava_video.world.settings import WorldSettings
from llava_video.world.splits import split_settings
from llava_video.world.track import Track
from llava_video.world.vocabulary import COLOURS
from llava_video.world.witness import Witness

SQUARE, MOVE = moving(2.0, 3.0, 0.3, x=0.2, y=0.2)
STOP = Event("stop", 3.0, 3.0, 0)
RING = thing("ring", "orange", Track((0.0, 4.0, 5.5), (1.3, 1.3, 0.8)), 0.8, 0.144)
ENTER = Event("enter", 4.0, 5.5, 1, "left")
SIGN = Sign("STOP", 50, 3, 1)
WITNESS = Witness(scene(SQUARE, RING, events=(MOVE, STOP, ENTER), sign=SIGN), WorldSettings())


def shares(witness: Witness, style: CaptionStyle, text: str) -> dict[str, tuple[int, int]]:
    measures = measure_caption(witness, style, text)
    return {measure.name: (measure.part, measure.whole) for measure in measures}


def test_every_true_caption_is_complete_and_true() -> None:
    totals = dict.fromkeys(("objects named", "events named", "invented", "details right"), 0)
    for split in ("heldout", "long", "monitor"):
        settings = split_settings(split)
        for idx in range(100):
            example = make_example(settings, split, 0, idx)
            witness = Witness(example.scene, settings)
            for style in STYLES:
                found = shares(witness, style, example.captions[style])
                for name, (part, whole) in found.items():
                    assert part == (0 if name == "invented" else whole), (style, name, example)
                    totals[name] += whole
    assert all(total > 1000 for total in totals.values())


def test_a_caption_counted_by_hand() -> None:
    assert shares(WITNESS, "short", caption(WITNESS, "short")) == {
        "objects named": (2, 2),
        "events named": (2, 2),
        "invented": (0, 4),
        "details right": (0, 0),
    }
    assert shares(WITNESS, "detailed", caption(WITNESS, "detailed")) == {
        "objects named": (2, 2),
        "events named": (3, 3),
        "invented": (0, 5),
        "details right": (6, 6),  # background, sign, two sizes, a place, the number at the end
    }
    assert shares(WITNESS, "timed", "") == {
        "objects named": (0, 2),
        "events named": (0, 3),
        "invented": (0, 0),
        "details right": (0, 0),
    }


# style, what stands there, what is put there; objects and events named, and invented, change by.
FAULTS: list[tuple[CaptionStyle, str, str, int, int, int]] = [
    ("short", "A red square and", "A red circle and", 0, 0, 1),  # its event still names it
    ("short", "square moves right", "square moves left", 0, -1, 1),
    ("short", "square moves right", "square moves down right", 0, -1, 1),
    ("short", "from the right", "from the left", 0, -1, 1),
    ("short", " The red square moves right.", "", 0, -1, 0),
    ("short", "moves right.", "moves right. The red square moves right.", 0, 0, 1),
    ("short", "an orange ring.", "an orange ring and a blue ring.", 0, 0, 1),
    ("short", "an orange ring.", "an orange ring and a red square.", 0, 0, 1),
    ("short", "moves right.", "moves right. The red square grows.", 0, 0, 1),
    ("short", "moves right.", "moves right. Nothing happens.", 0, 0, 1),
    ("short", "moves right.", "moves right. Birds sing.", 0, 0, 1),
    ("detailed", "slowly right", "quickly right", 0, -1, 1),
    ("detailed", "slowly right", "right", 0, 0, 0),  # a speed may be left out
    ("detailed", "The red square stops", "The orange ring stops", 0, -1, 1),
    ("timed", "0.0 s: a red square", "0.0 s: an orange ring", 0, 0, 1),  # it enters later
    ("timed", "0.0 s: a red square", "0.0 s: a red circle", 0, 0, 1),
    ("timed", "2.0 s", "2.5 s", 0, 0, 0),
    ("timed", "2.0 s", "1.5 s", 0, 0, 0),
    ("timed", "2.0 s", "2.6 s", 0, -1, 1),
    ("timed", "4.0 s: the orange ring enters from the right.", "", -1, -1, 0),
]


@pytest.mark.parametrize(("style", "old", "new", "objects", "events", "invented"), FAULTS)
def test_a_planted_fault_is_found_and_no_other(
    style: CaptionStyle, old: str, new: str, objects: int, events: int, invented: int
) -> None:
    right = caption(WITNESS, style)
    assert right.count(old) == 1
    before, after = (shares(WITNESS, style, text) for text in (right, right.replace(old, new)))
    changes = {name: after[name][0] - before[name][0] for name in before}
    assert changes["objects named"] == objects
    assert changes["events named"] == events
    assert changes["invented"] == invented
    assert changes["details right"] == 0
    # What is due does not depend on what is said.
    assert after["objects named"][1] == before["objects named"][1]
    assert after["events named"][1] == before["events named"][1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("is plain", "is noisy"),
        ("says STOP", "says GO"),
        ("a small red", "a large red"),
        ("in the top left", "in the centre"),
        ("Two objects", "Three objects"),
    ],
)
def test_a_wrong_detail_is_neither_missing_nor_invented(old: str, new: str) -> None:
    right = caption(WITNESS, "detailed")
    assert right.count(old) == 1
    found = shares(WITNESS, "detailed", right.replace(old, new))
    assert found["details right"] == (5, 6)
    assert (found["objects named"], found["events named"]) == ((2, 2), (3, 3))
    assert found["invented"] == (0, 5)


def test_what_is_uncertain_is_neither_missed_nor_invented() -> None:
    twitch, event = moving(2.0, 3.0, 0.02)  # 2 px: nobody can be sure of it
    hidden = thing("cross", "blue", 3.0)  # never in the picture
    witness = Witness(scene(twitch, hidden, events=(event,)), WorldSettings())
    assert witness.certain_events == ()
    silent, told = "A red square. Nothing happens.", "A red square. The red square moves right."
    for text in (silent, told):
        found = shares(witness, "short", text)
        assert (found["objects named"], found["events named"]) == ((1, 1), (0, 0))
        assert found["invented"] == (0, 2)
    assert shares(witness, "short", "A red square and a blue cross.")["invented"] == (0, 2)
    assert shares(witness, "short", "A red square and a blue ring.")["invented"] == (1, 2)


def test_a_colour_that_changes_names_the_object_at_any_time_but_the_start() -> None:
    turn = Event("recolour", 4.0, 4.0, 0, colour="blue")
    other = thing("ring", "green", 0.8)
    witness = Witness(scene(thing(later=((4.0, "blue"),)), other, events=(turn,)), WorldSettings())
    text = "A {} square and a green ring. The square turns {}."
    assert shares(witness, "short", text.format("red", "blue"))["invented"] == (0, 3)
    assert shares(witness, "short", text.format("blue", "blue"))["invented"] == (0, 3)
    assert shares(witness, "short", text.format("red", "green"))["invented"] == (1, 3)
    timed = "0.0 s: a {} square and a green ring."
    assert shares(witness, "timed", timed.format("red"))["invented"] == (0, 2)
    assert shares(witness, "timed", timed.format("blue"))["invented"] == (1, 2)


def test_who_hits_whom_matters() -> None:
    left, run = moving(1.0, 2.0, 0.2, x=0.2)
    right = thing("ring", "green", Track((0.0, 2.0, 3.0), (0.6, 0.6, 0.8)))
    hit = Event("collide", 2.0, 2.0, 0, "right", other=1)
    on = Event("move", 2.0, 3.0, 1, "right", "slowly")
    witness = Witness(scene(left, right, events=(run, hit, on)), WorldSettings())
    assert "The red square hits the green ring." in caption(witness, "short")
    told = "A red square and a green ring. The {} hits the {}."
    assert shares(witness, "short", told.format("red square", "green ring"))["invented"] == (0, 3)
    assert shares(witness, "short", told.format("green ring", "red square"))["invented"] == (1, 3)


def test_one_fault_in_each_of_many_captions_is_found() -> None:
    """The first event of a clip is given to an object of a colour that nothing has."""
    settings, num_faults = split_settings("heldout"), 0
    for idx in range(60):
        example = make_example(settings, "heldout", 1, idx)
        witness = Witness(example.scene, settings)
        lines = example.captions["timed"].split("\n")
        events = [k for k, line in enumerate(lines) if _is_event(line)]
        if not events:
            continue
        shown = {colour for thing in example.scene.things for _, colour in thing.colours}
        strange = next(colour for colour in COLOURS if colour not in shown)
        (claim,) = read_caption(lines[events[0]])
        assert isinstance(claim, EventClaim)
        subject = f"{claim.name.colour} {claim.name.shape}".strip()
        time_words, _, deed = lines[events[0]].partition(subject)
        lines[events[0]] = f"{time_words}{strange} {claim.name.shape}{deed}"
        found = shares(witness, "timed", "\n".join(lines))
        part, whole = found["events named"]
        assert (part, found["invented"][0]) == (whole - 1, 1), lines
        num_faults += 1
    assert num_faults > 30


def _is_event(line: str) -> bool:
    return any(isinstance(claim, EventClaim) for claim in read_caption(line))


def test_settings_decide_what_is_certain() -> None:
    """Looked at every two seconds, a move of one second may have been missed."""
    rare = dataclasses.replace(WorldSettings(), sampled_hz=0.5)
    witness = Witness(WITNESS.scene, rare)
    found = shares(witness, "short", "A red square. Nothing happens.")
    assert found["events named"] == (0, 0)
