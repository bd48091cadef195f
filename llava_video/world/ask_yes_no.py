"""What is certain → questions with the answers yes and no, each right half of the time.

A wrong claim is put together from what the same scene shows: another object's shape, colour or
deed, a neighbouring direction, an object that was there and has left.
"""

import itertools
from collections.abc import Iterator

from llava_video.world.ask_events import MOTIONS, only_move
from llava_video.world.question import Asker, Question
from llava_video.world.settings import WorldSettings
from llava_video.world.vocabulary import (
    COLOURS,
    DIRECTIONS,
    SHAPES,
    SIGN_WORDS,
    VERBS,
    with_article,
)

_EASY_SHARE = 0.25  # of wrong claims about what there is
_BESIDE_GAP = 0.05  # units, beyond both radii


def ask_is_there(asker: Asker) -> Iterator[Question]:
    """Ask whether there is an object; a wrong one has the shape or the colour of one that is."""
    if len(asker.witness.seen) < len(asker.things):
        return
    pairs = {(colour, thing.shape) for thing in asker.things for _, colour in thing.colours}
    lasting = [(t.colours[0][1], t.shape) for t in asker.things if not t.changes_colour]
    absent = [(c, s) for c in COLOURS for s in SHAPES if (c, s) not in pairs]
    colours, shapes = {c for c, _ in pairs}, {s for _, s in pairs}
    hard = [(c, s) for c, s in absent if c in colours or s in shapes]
    both = [(c, s) for c, s in hard if c in colours and s in shapes]
    wrong = absent if asker.dice.chance(_EASY_SHARE) else (both or hard)
    yes, no = (
        [f"Is there {with_article(f'{c} {s}')}?" for c, s in claims] for claims in (lasting, wrong)
    )
    yield from asker.yes_no("is_there", yes, no)


def ask_is_there_now(asker: Asker) -> Iterator[Question]:
    """Ask whether an object shows at the end; a wrong one was there before, in its old colour."""
    views = asker.witness.views_at_end()
    if views is None:
        return
    now = {
        (state.colour, state.shape)
        for state in asker.witness.states[-1]
        if views[state.thing] == "whole"
    }
    ever = {
        (colour, asker.things[idx].shape)
        for idx in asker.clear_things()
        for _, colour in asker.things[idx].colours
    }
    yes, no = (
        [
            text
            for colour, shape in sorted(pairs)
            for text in (
                f"Is there {with_article(f'{colour} {shape}')} now?",
                f"Can {with_article(f'{colour} {shape}')} be seen at the end?",
            )
        ]
        for pairs in (now & ever, ever - now)
    )
    yield from asker.yes_no("is_there_now", yes, no)


def ask_does(asker: Asker) -> Iterator[Question]:
    """Ask whether an object does something; mostly what another one does."""
    forms: dict[str, tuple[list[str], list[str]]] = {}
    for kind, (_, verb) in VERBS.items():
        yes, no = [], []
        for idx in asker.clear_things():
            text = f"Does the {asker.witness.name(idx)} {verb}?"
            kinds: set[str] = {event.kind for event in asker.witness.events_of(idx)}
            if kind in kinds and not _is_part(kind, kinds):
                yes.append(text)
            elif kind not in kinds and not _is_vague(asker, idx, kind, kinds):
                no.append(text)
        # What only some objects could be asked would give its answer away where one stands alone.
        if (yes and no) or kind not in ("move", "stop", "return", "collide"):
            forms[kind] = (yes, no)
    yield from asker.yes_no_by_form("does", forms)


def _is_part(kind: str, kinds: set[str]) -> bool:
    """Say whether "move" would be no more than part of the truth about an object."""
    return kind == "move" and bool(kinds & {"enter", "leave", "hide"})


def _is_vague(asker: Asker, idx: int, kind: str, kinds: set[str]) -> bool:
    """Say whether "no" could be argued with: what comes in moves, what is struck hits back."""
    if kind == "move":
        return bool(kinds & set(MOTIONS))
    if kind == "stop":  # whoever stands still has stopped somehow, unless it never moved
        return bool(kinds & {"enter", "leave", "hide"})
    if kind == "collide":
        return any(event.other == idx for event in asker.scene.events)
    return False


def ask_did_change(asker: Asker) -> Iterator[Question]:
    """Ask whether an object's colour or size changed."""
    forms: dict[str, tuple[list[str], list[str]]] = {"colour": ([], []), "size": ([], [])}
    for idx in asker.clear_things():
        thing, name = asker.things[idx], asker.witness.name(idx)
        is_other = bool(asker.witness.events_of(idx, "grow", "shrink"))
        forms["size"][0 if is_other else 1].append(f"Did the size of the {name} change?")
        # A name with a colour would give the answer away.
        if sum(other.shape == thing.shape for other in asker.things) == 1:
            right = 0 if thing.changes_colour else 1
            forms["colour"][right].append(f"Did the colour of the {thing.shape} change?")
    yield from asker.yes_no_by_form("did_change", forms)


def ask_did_number(asker: Asker) -> Iterator[Question]:
    """Ask whether the number of objects that show changed from the first frame to the last."""
    first, last = asker.witness.views_at_start(), asker.witness.views_at_end()
    if not asker.witness.all_clear or first is None or last is None or not asker.scene.events:
        return
    change = "Did the number of objects change?"
    more, fewer = (f"Are there {word} objects now than at the start?" for word in ("more", "fewer"))
    same = "Are there as many objects now as at the start?"
    added = last.count("whole") - first.count("whole")
    if added:
        right, wrong = (more, fewer) if added > 0 else (fewer, more)
        yield from asker.yes_no("did_number", [change, right], [same, wrong])
    else:
        # The first one twice: it is half of the wrong ones here and half of the right ones above.
        yield from asker.yes_no("did_number", [same], [change, change, more, fewer])


def ask_did_anything(asker: Asker, settings: WorldSettings) -> Iterator[Question]:
    """Ask whether anything happened, in lively clips as often as in still ones."""
    texts = ("Did anything change?", "Did anything happen?")
    still = settings.still_share
    if not asker.scene.events:
        yield asker.make("did_anything", texts, "no")
    elif asker.witness.certain_events and still < 1 and asker.dice.chance(still / (1 - still)):
        yield asker.make("did_anything", texts, "yes")


def ask_moves_to(asker: Asker) -> Iterator[Question]:
    """Ask whether an object that moves once moves in a direction; the opposite, or a neighbour."""
    for idx in asker.drawn([i for i in asker.clear_things() if only_move(asker, i)]):
        move = only_move(asker, idx)
        assert move is not None  # it was chosen so
        names = list(DIRECTIONS)
        at = names.index(move.direction)
        wrong = [names[(at + turn) % 8] for turn in (2, 4, 6)]
        start = f"Does the {asker.witness.name(idx)} move"
        yield from asker.yes_no(
            "moves_to", [f"{start} {move.direction}?"], [f"{start} {name}?" for name in wrong]
        )


def ask_beside(asker: Asker) -> Iterator[Question]:
    """Ask whether one object is to the left of, to the right of, above or below another now."""
    views = asker.witness.views_at_end()
    if views is None:
        return
    forms: dict[str, tuple[list[str], list[str]]] = {}
    shown = [i for i in asker.clear_things() if views[i] == "whole" and not _is_moving(asker, i)]
    for first, second in itertools.permutations(shown, 2):
        one, other = asker.witness.at_end(first), asker.witness.at_end(second)
        least = one.radius + other.radius + _BESIDE_GAP
        names = asker.witness.name(first), asker.witness.name(second)
        for words, away in (
            ("to the left of", other.x - one.x),
            ("to the right of", one.x - other.x),
            ("above", other.y - one.y),
            ("below", one.y - other.y),
        ):
            if abs(away) >= least:
                yes_or_no = forms.setdefault(words, ([], []))[0 if away > 0 else 1]
                yes_or_no.append(f"Is the {names[0]} {words} the {names[1]} now?")
    yield from asker.yes_no_by_form("beside", forms)


def _is_moving(asker: Asker, idx: int) -> bool:
    return bool(asker.witness.at_end(idx).motion)


def ask_is_sign(asker: Asker, settings: WorldSettings) -> Iterator[Question]:
    """Ask whether there is a sign, where there is one as often as where there is none."""
    texts = ("Is there a sign?", "Does the video show a sign?")
    share = settings.sign_share
    has_sign = asker.scene.sign is not None
    mine, others = (share, 1 - share) if has_sign else (1 - share, share)
    if 0 < share < 1 and asker.dice.chance(min(1.0, others / mine)):
        yield asker.make("is_sign", texts, "yes" if has_sign else "no")


def ask_sign_says(asker: Asker) -> Iterator[Question]:
    """Ask whether the sign says a word; a wrong one is as long as the right one where it can be."""
    if asker.scene.sign is not None:
        right = asker.scene.sign.text
        others = [word for word in SIGN_WORDS if word != right]
        alike = [word for word in others if len(word) == len(right)]
        no = [f"Does the sign say {word}?" for word in alike or others]
        yield from asker.yes_no("sign_says", [f"Does the sign say {right}?"], no)
