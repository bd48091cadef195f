"""What is certain → questions about what things are, where they are and how many there are."""

from collections import Counter
from collections.abc import Iterator

from llava_video.world.question import Asker, Question
from llava_video.world.vocabulary import COLOURS, SHAPES


def ask_shape(asker: Asker) -> Iterator[Question]:
    """Ask for the shape of the one object that ever has a colour."""
    owners = Counter(colour for thing in asker.things for _, colour in thing.colours)
    alone = [
        idx
        for idx in sorted(asker.witness.seen)
        if not asker.things[idx].changes_colour and owners[asker.things[idx].colours[0][1]] == 1
    ]
    for idx in asker.drawn(alone):
        colour = asker.things[idx].colours[0][1]
        texts = (
            f"What shape is the {colour} object?",
            f"Which shape does the {colour} thing have?",
        )
        yield asker.make("shape", texts, asker.things[idx].shape)


def ask_colour(asker: Asker) -> Iterator[Question]:
    """Ask for the colour of the one object of a shape, all the time, now or in the beginning."""
    shapes = Counter(thing.shape for thing in asker.things)
    alone = [idx for idx in sorted(asker.witness.seen) if shapes[asker.things[idx].shape] == 1]
    for idx in asker.drawn(alone):
        thing = asker.things[idx]
        if not thing.changes_colour:
            texts = [
                f"What colour is the {thing.shape}?",
                f"Which colour does the {thing.shape} have?",
            ]
            yield asker.make("colour", texts, thing.colours[0][1])
        elif idx in asker.witness.clear:
            views = asker.witness.views_at_end()
            if asker.dice.chance(0.5):
                texts = [f"What colour was the {thing.shape} at first?"]
                yield asker.make("colour", texts, thing.colours[0][1])
            elif views is not None and views[idx] == "whole":
                texts = [
                    f"What colour is the {thing.shape} now?",
                    f"What colour does the {thing.shape} turn?",
                ]
                yield asker.make("colour", texts, thing.colours[-1][1])


def ask_size(asker: Asker) -> Iterator[Question]:
    """Ask for the size of an object that keeps it."""
    same = [i for i in asker.clear_things() if not asker.witness.events_of(i, "grow", "shrink")]
    for idx in asker.drawn(same):
        name = asker.witness.name(idx)
        texts = (f"Is the {name} small or large?", f"What size is the {name}?")
        yield asker.make("size", texts, asker.witness.size(idx, 0.0))


def ask_place(asker: Asker) -> Iterator[Question]:
    """Ask which of nine places an object is in, at the start or now."""
    by_answer: dict[str, list[str]] = {}
    for idx in sorted(asker.witness.seen):
        name = asker.witness.name(idx)
        for at_end, when in ((True, "now"), (True, "at the end"), (False, "at the start")):
            place = asker.witness.place(idx, at_end=at_end)
            if place is not None:
                by_answer.setdefault(place, []).append(f"Where is the {name} {when}?")
    yield from asker.evenly("place", by_answer)


def ask_count(asker: Asker) -> Iterator[Question]:
    """Ask how many objects the clip shows in all."""
    if len(asker.witness.seen) == len(asker.things):
        texts = ("How many objects are there in all?", "How many objects does the video show?")
        yield asker.make("count", texts, str(len(asker.things)))


def ask_count_alike(asker: Asker) -> Iterator[Question]:
    """Ask how many objects of a shape, or of a colour that none changes, there are in all."""
    if len(asker.witness.seen) < len(asker.things):
        return
    shapes = Counter(thing.shape for thing in asker.things)
    by_answer: dict[str, list[str]] = {}
    for shape in SHAPES:
        plural = "crosses" if shape == "cross" else f"{shape}s"
        by_answer.setdefault(str(shapes[shape]), []).append(f"How many {plural} are there in all?")
    if not any(thing.changes_colour for thing in asker.things):
        colours = Counter(thing.colours[0][1] for thing in asker.things)
        for colour in COLOURS:
            by_answer.setdefault(str(colours[colour]), []).append(
                f"How many {colour} objects are there in all?"
            )
    yield from asker.evenly("count_alike", by_answer)


def ask_count_now(asker: Asker) -> Iterator[Question]:
    """Ask how many objects show at the end."""
    views = asker.witness.views_at_end()
    if views is not None and asker.witness.all_clear:
        texts = ("How many objects can be seen now?", "How many objects are visible at the end?")
        yield asker.make("count_now", texts, str(views.count("whole")))


def ask_sign(asker: Asker) -> Iterator[Question]:
    """Ask what the sign says."""
    if asker.scene.sign is not None:
        texts = ("What does the sign say?", "What is written on the sign?")
        yield asker.make("sign", texts, asker.scene.sign.text)
