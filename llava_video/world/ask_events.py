"""What is certain → questions about what happens, to what, whereto, when and in which order."""

import itertools
from collections.abc import Iterator

from llava_video.world.question import Asker, Question
from llava_video.world.scene import Event
from llava_video.world.vocabulary import SIDE_AHEAD, SIDE_BEHIND, VERBS, clock

# An object's acts; what follows from them (stopping, coming back) is told apart by "when" alone.
MAIN_KINDS = ("enter", "leave", "move", "grow", "shrink", "recolour", "hide")
MOTIONS = ("enter", "leave", "move", "hide", "return")


def ask_direction(asker: Asker) -> Iterator[Question]:
    """Ask whereto an object moves that moves once."""
    for idx in asker.drawn([i for i in asker.clear_things() if only_move(asker, i)]):
        move = only_move(asker, idx)
        assert move is not None  # it was chosen so
        name = asker.witness.name(idx)
        texts = (
            f"In which direction does the {name} move?",
            f"Which way does the {name} go?",
        )
        yield asker.make("direction", texts, move.direction)


def only_move(asker: Asker, idx: int) -> Event | None:
    """Return the move of an object that never moves otherwise; None of all others."""
    found = asker.only_event(idx, *MOTIONS)
    return found if found is not None and found.kind == "move" else None


def ask_side(asker: Asker) -> Iterator[Question]:
    """Ask from where an object enters, or where it leaves."""
    by_answer: dict[str, list[str]] = {}
    for idx in asker.clear_things():
        name = asker.witness.name(idx)
        for event in asker.witness.events_of(idx, "enter", "leave"):
            if event.kind == "enter":
                side, text = SIDE_BEHIND[event.direction], f"From which side does the {name} enter?"
            else:
                side, text = SIDE_AHEAD[event.direction], f"On which side does the {name} leave?"
            by_answer.setdefault(side, []).append(text)
    yield from asker.evenly("side", by_answer)


def ask_which(asker: Asker) -> Iterator[Question]:
    """Ask which object does something that only one does."""
    if not asker.witness.all_clear:
        return
    found = []
    for kind, (verb, _) in VERBS.items():
        doers = {event.thing for event in asker.scene.events if event.kind == kind}
        if len(doers) != 1 or len(asker.things) == 1:
            continue
        if kind not in ("move", "stop") or _nobody_else_moves(asker, doers):
            found.append((f"Which object {verb}?", doers.pop()))
    if found:
        text, idx = asker.dice.pick(found)
        yield asker.make("which", (text,), asker.witness.name(idx))


def _nobody_else_moves(asker: Asker, movers: set[int]) -> bool:
    """Say so, since whoever enters moves too, and stops."""
    moving = {event.thing for event in asker.scene.events if event.kind in MOTIONS}
    return moving == movers


def ask_hits(asker: Asker) -> Iterator[Question]:
    """Ask what an object runs into."""
    for event in asker.witness.certain_events:
        if event.other is not None and {event.thing, event.other} <= asker.witness.clear:
            name = asker.witness.name(event.thing)
            texts = (f"What does the {name} hit?", f"Which object does the {name} run into?")
            yield asker.make("hits", texts, asker.witness.name(event.other))


def ask_action(asker: Asker) -> Iterator[Question]:
    """Ask what an object does that does one thing, or nothing."""
    struck = {e.other for e in asker.scene.events} | {
        e.thing for e in asker.scene.events if e.kind == "collide"
    }
    by_answer: dict[str, list[str]] = {}
    for idx in asker.clear_things():
        acts = asker.witness.events_of(idx, *MAIN_KINDS)
        if idx in struck or len(acts) > 1:
            continue
        verb = VERBS[acts[0].kind][0].removesuffix(" behind the wall") if acts else "nothing"
        by_answer.setdefault(verb, []).append(f"What does the {asker.witness.name(idx)} do?")
    yield from asker.evenly("action", by_answer)


def ask_order(asker: Asker) -> Iterator[Question]:
    """Ask which of two objects does something first."""
    for first, then in _drawn_pair(asker):
        names = [asker.witness.name(first.thing), asker.witness.name(then.thing)]
        shown = asker.dice.shuffled(names)
        if first.kind == then.kind:
            does = VERBS[first.kind][0]
            text = f"Which {does} first, the {shown[0]} or the {shown[1]}?"
        else:
            text = f"Which does something first, the {shown[0]} or the {shown[1]}?"
        yield Question("order", text, names[0], tuple(shown))


def ask_before(asker: Asker) -> Iterator[Question]:
    """Ask whether one event comes before another."""
    for first, then in _drawn_pair(asker):
        early, late = _clause(asker, first), _clause(asker, then)
        yes = [f"Does the {early[1]} before the {late[0]}?"]
        no = [f"Does the {late[1]} before the {early[0]}?"]
        yield from asker.yes_no("before", yes, no)


def _clause(asker: Asker, event: Event) -> tuple[str, str]:
    """Return "red ring moves" and "red ring move"."""
    name = asker.witness.name(event.thing)
    return f"{name} {VERBS[event.kind][0]}", f"{name} {VERBS[event.kind][1]}"


def _drawn_pair(asker: Asker) -> Iterator[tuple[Event, Event]]:
    """Yield the first acts of two objects, far enough apart, the earlier one first; or nothing."""
    firsts = []
    for idx in asker.clear_things():
        acts = asker.witness.events_of(idx, *MAIN_KINDS)
        if acts:
            firsts.append(acts[0])
    firsts.sort(key=lambda event: event.start_s)
    least_s = max(1.0, 2 * asker.witness.gap_s)
    pairs = [
        (a, b) for a, b in itertools.combinations(firsts, 2) if b.start_s - a.start_s >= least_s
    ]
    if pairs:
        yield asker.dice.pick(pairs)


def ask_when(asker: Asker) -> Iterator[Question]:
    """Ask when something begins that an object does once; not where looks are too seldom."""
    if asker.witness.gap_s > 1.0:
        return
    found = []
    for event in asker.witness.certain_events:
        alone = asker.only_event(event.thing, event.kind)
        is_half = abs(event.start_s * 2 - round(event.start_s * 2)) < 1e-9
        if event.thing in asker.witness.clear and alone is not None and is_half:
            found.append(event)
    if not found:
        return
    event = asker.dice.pick(found)
    verb = VERBS[event.kind][1]
    text = f"When does the {asker.witness.name(event.thing)} {verb}?"
    yield Question("when", text, clock(event.start_s), (), event.start_s)
