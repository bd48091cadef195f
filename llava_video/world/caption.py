"""What is certain about a scene → captions: short, detailed, timed. Nothing uncertain is told."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from llava_video.world.mentions import SIGN
from llava_video.world.moments import GLIMPSE_S, Span, shows_while
from llava_video.world.scene import Event
from llava_video.world.vocabulary import SIDE_AHEAD, SIDE_BEHIND, clock, with_article
from llava_video.world.witness import Witness

CaptionStyle = Literal["short", "detailed", "timed"]
STYLES: Final[tuple[CaptionStyle, ...]] = ("short", "detailed", "timed")
_STILL = "Nothing happens."
_AT_START_S: Final[Span] = (0.0, GLIMPSE_S)
_AT: Final = {"top": "at", "bottom": "at", "left": "on", "right": "on"}
_NUMBERS: Final = ("No objects", "One object", "Two objects", "Three objects", "Four objects")


@dataclass(frozen=True, slots=True)
class Telling:
    """A part of a caption, and what it tells of.

    Attributes:
        text: its words; those of all parts, one behind the other, are the caption.
        things: numbers of the objects, as `mentions` gives them; () of the scene as a whole.
        spans: when what is told of shows, each (from, before) in seconds; () where it does not
            matter.
    """

    text: str
    things: tuple[int, ...] = ()
    spans: tuple[Span, ...] = ()


def caption(witness: Witness, style: CaptionStyle) -> str:
    """Describe a clip.

    Args:
        witness: what is certain about it.
        style: "short" (what there is and what happens), "detailed" (sizes, places, speeds, the
            background, the sign and the end too) or "timed" (a line a moment).
    """
    return "".join(one.text for one in tellings(witness, style))


def tellings(witness: Witness, style: CaptionStyle) -> tuple[Telling, ...]:
    """Describe a clip part by part, with what each part tells of.

    Args:
        witness: as `caption`.
        style: as `caption`.
    """
    write = {"short": _short, "detailed": _detailed, "timed": _timed}[style]
    return tuple(write(witness))


def clause(witness: Witness, event: Event, *, has_speed: bool = False) -> str:
    """Say what happens, as "the red circle moves left"; with the speed where it is asked for."""
    name = f"the {witness.name(event.thing)}"
    speed = f"{event.speed} " if has_speed and event.speed else ""
    if event.kind == "collide" and event.other is not None:
        return f"{name} hits the {witness.name(event.other)}"
    words = {
        "enter": f"enters from the {SIDE_BEHIND.get(event.direction, '')}",
        "leave": f"leaves towards the {SIDE_AHEAD.get(event.direction, '')}",
        "move": f"moves {speed}{event.direction}",
        "stop": "stops",
        "grow": "grows",
        "shrink": "shrinks",
        "recolour": f"turns {event.colour}",
        "hide": "hides behind the wall",
        "return": "comes back from behind the wall",
    }
    return f"{name} {words[event.kind]}"


def _short(witness: Witness) -> Iterator[Telling]:
    yield from _listed(witness, sorted(witness.seen), ())
    told = [event for event in witness.certain_events if event.kind not in ("stop", "return")]
    blank = " " if witness.seen else ""
    for event in told:
        yield _of_event(event, f"{blank}{_upper(clause(witness, event))}.")
        blank = " "
    if not told:
        yield Telling(f"{blank}{_STILL}")


def _detailed(witness: Witness) -> Iterator[Telling]:
    scene = witness.scene
    yield Telling(f"The background is {scene.backdrop.kind}.")
    if scene.sign is not None:
        yield Telling(f" A sign says {scene.sign.text}.", (SIGN,))
    for idx in sorted(witness.seen):
        thing = scene.things[idx]
        first = f"{witness.size(idx, 0.0)} {thing.colours[0][1]} {thing.shape}"
        place = witness.place(idx, at_end=False)
        where = f" {_AT.get(place, 'in')} the {place} at the start" if place is not None else ""
        spans = () if place is None else (_AT_START_S,)
        yield Telling(f" There is {with_article(first)}{where}.", (idx,), spans)
    for event in witness.certain_events:
        yield _of_event(event, f" {_upper(clause(witness, event, has_speed=True))}.")
    if not witness.certain_events:
        yield Telling(f" {_STILL}")
    views = witness.views_at_end()
    if views is not None and witness.all_clear:
        yield Telling(f" {_NUMBERS[views.count('whole')]} can be seen at the end.")


def _timed(witness: Witness) -> Iterator[Telling]:
    views = witness.views_at_start()
    # What ends a line stands in its last part, as in its last token.
    lines = [f"{clock(e.start_s)}: {clause(witness, e)}." for e in witness.certain_events]
    if views is not None:
        yield Telling(f"{clock(0.0)}:")
        shown = [idx for idx in sorted(witness.seen) if views[idx] == "whole"]
        yield from _listed(witness, shown, (_AT_START_S,), " ", ".\n")
        if not shown:
            yield Telling(" no objects.\n")
    for idx, (event, line) in enumerate(zip(witness.certain_events, lines, strict=True), start=1):
        yield _of_event(event, line if idx == len(lines) else f"{line}\n")
    if not lines:
        yield Telling(_STILL)


def _listed(
    witness: Witness, idxs: Sequence[int], spans: tuple[Span, ...], first: str = "", last: str = "."
) -> Iterator[Telling]:
    """Yield "A red ring, a blue cross and a green ring.", name by name; nothing of none."""
    for number, idx in enumerate(idxs):
        name = with_article(_first_name(witness, idx))
        is_last = number == len(idxs) - 1
        if not number:
            text = f"{first}{name}" if first else _upper(name)
        else:
            text = f" and {name}" if is_last else f", {name}"
        yield Telling(f"{text}{last}" if is_last else text, (idx,), spans)


def _of_event(event: Event, text: str) -> Telling:
    things = (event.thing,) if event.other is None else (event.thing, event.other)
    return Telling(text, things, (shows_while(event),))


def _first_name(witness: Witness, idx: int) -> str:
    thing = witness.scene.things[idx]
    return f"{thing.colours[0][1]} {thing.shape}"


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
