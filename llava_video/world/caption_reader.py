"""A caption's text → the claims it makes: the inverse of `caption.py`, by the same words.

A sentence that is no form of the small world becomes an `Unread`: nothing is guessed. Knows no
scene, so it says what a caption claims and not whether that is true.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from llava_video.world.scene import EventKind
from llava_video.world.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    PLACES,
    SHAPES,
    SIDE_AHEAD,
    SIDE_BEHIND,
    SIZES,
    SPEEDS,
)


@dataclass(frozen=True, slots=True)
class Name:
    """What a caption calls an object.

    Attributes:
        shape: its shape.
        colour: its colour, "" where the name has none.
    """

    shape: str
    colour: str = ""


@dataclass(frozen=True, slots=True)
class ObjectClaim:
    """That there is an object.

    Attributes:
        name: what it is called.
        size: "small", "large" or "" where nothing is said of it.
        place: one of nine, at the start; "" where nothing is said of it.
        at_start: whether it is said to be seen at the start.
    """

    name: Name
    size: str = ""
    place: str = ""
    at_start: bool = False


@dataclass(frozen=True, slots=True)
class EventClaim:
    """That something happens.

    Attributes:
        kind: what.
        name: of the object it happens to.
        direction: where it goes, "" where nothing does.
        speed: "slowly", "quickly", or "" where nothing is said of it.
        colour: the new one of a change of colour.
        other: the name of what is hit; None otherwise.
        time_s: when it begins, s; None where nothing is said of it.
    """

    kind: EventKind
    name: Name
    direction: str = ""
    speed: str = ""
    colour: str = ""
    other: Name | None = None
    time_s: float | None = None


@dataclass(frozen=True, slots=True)
class NothingHappens:
    """That nothing happens."""


@dataclass(frozen=True, slots=True)
class DetailClaim:
    """Something else.

    Attributes:
        kind: "background", "sign", "count at end" or "count at start".
        value: the kind of background, the sign's text, or the number in digits.
    """

    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Unread:
    """A sentence of another kind.

    Attributes:
        text: as it stands.
    """

    text: str


Claim = ObjectClaim | EventClaim | NothingHappens | DetailClaim | Unread


def _any_of(words: tuple[str, ...] | dict[str, object]) -> str:
    # The longest first: "top left" is not "top" with something behind it.
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_COLOURS: Final = _any_of(tuple(COLOURS))
_NAME: Final = rf"(?:(?P<colour>{_COLOURS}) )?(?P<shape>{_any_of(SHAPES)})"
_OTHER: Final = _NAME.replace("<colour>", "<other_colour>").replace("<shape>", "<other_shape>")
_WAYS: Final = _any_of(tuple(DIRECTIONS))
_SIDES: Final = "left|right|top|bottom"
_PLACE: Final = _any_of(tuple(place for row in PLACES for place in row))
_NUMBERS: Final = {"no": 0, "one": 1, "two": 2, "three": 3, "four": 4}

_TIME: Final = re.compile(r"(?P<time>\d+(?:\.\d+)?) s: (?P<rest>.*)")
_OBJECT: Final = re.compile(rf"an? {_NAME}")
_THERE: Final = re.compile(
    rf"there is an? (?P<size>{_any_of(tuple(SIZES))}) {_NAME}"
    rf"(?: (?:at|on|in) the (?P<place>{_PLACE}) at the start)?"
)
_DETAILS: Final = {
    "background": re.compile(rf"the background is (?P<value>{_any_of(BACKGROUNDS)})"),
    "sign": re.compile(r"a sign says (?P<value>\S+)"),
    "count at end": re.compile(
        rf"(?P<value>{_any_of(tuple(_NUMBERS))}) objects? can be seen at the end"
    ),
}
_DEEDS: Final[dict[EventKind, str]] = {
    "enter": rf"enters from the (?P<behind>{_SIDES})",
    "leave": rf"leaves towards the (?P<ahead>{_SIDES})",
    "move": rf"moves (?:(?P<speed>{_any_of(tuple(SPEEDS))}) )?(?P<direction>{_WAYS})",
    "stop": "stops",
    "grow": "grows",
    "shrink": "shrinks",
    "recolour": rf"turns (?P<new>{_COLOURS})",
    "hide": "hides behind the wall",
    "return": "comes back from behind the wall",
    "collide": f"hits the {_OTHER}",
}
_EVENTS: Final = {kind: re.compile(f"the {_NAME} {deed}") for kind, deed in _DEEDS.items()}
_FROM_SIDE: Final = {side: way for way, side in SIDE_BEHIND.items()}
_TO_SIDE: Final = {side: way for way, side in SIDE_AHEAD.items()}


def read_caption(text: str) -> tuple[Claim, ...]:
    """Return what a caption of any style claims, in its order.

    >>> read_caption("A red ring. The red ring stops.")[1]
    EventClaim(kind='stop', name=Name(shape='ring', colour='red'), direction='', speed='', \
colour='', other=None, time_s=None)
    """
    return tuple(claim for line in text.split("\n") for claim in _line(line.strip()))


def _line(line: str) -> Iterator[Claim]:
    timed = _TIME.fullmatch(line)
    if timed:
        yield from _sentence(timed["rest"].removesuffix("."), float(timed["time"]))
        return
    for sentence in filter(None, re.split(r"(?<=\.)\s+", line)):
        yield from _sentence(sentence.removesuffix("."), None)


def _sentence(text: str, time_s: float | None) -> Iterator[Claim]:
    words = text[:1].lower() + text[1:]
    if words == "nothing happens":
        yield NothingHappens()
        return
    if words == "no objects" and time_s is not None:
        yield DetailClaim("count at start", "0")
        return
    found = _there(words) or _detail(words) or _event(words, time_s)
    yield from [found] if found else _listed(words, time_s) or [Unread(text)]


def _there(words: str) -> ObjectClaim | None:
    found = _THERE.fullmatch(words)
    if found is None:
        return None
    return ObjectClaim(_name(found), found["size"], found["place"] or "")


def _detail(words: str) -> DetailClaim | None:
    for kind, form in _DETAILS.items():
        found = form.fullmatch(words)
        if found:
            value = found["value"]
            return DetailClaim(kind, str(_NUMBERS.get(value, value)))
    return None


def _event(words: str, time_s: float | None) -> EventClaim | None:
    for kind, form in _EVENTS.items():
        found = form.fullmatch(words)
        if found is None:
            continue
        said = found.groupdict()
        way = said.get("direction") or ""
        if kind == "enter":
            way = _FROM_SIDE[said["behind"]]
        elif kind == "leave":
            way = _TO_SIDE[said["ahead"]]
        other = Name(said["other_shape"], said["other_colour"] or "") if kind == "collide" else None
        return EventClaim(
            kind=kind,
            name=_name(found),
            direction=way,
            speed=said.get("speed") or "",
            colour=said.get("new") or "",
            other=other,
            time_s=time_s,
        )
    return None


def _listed(words: str, time_s: float | None) -> list[Claim]:
    """Read "a red ring, a blue square and an orange cross"; [] where one of them is no object."""
    parts = [_OBJECT.fullmatch(part) for part in re.split(r", | and ", words)]
    at_start = time_s is not None
    names = [_name(part) for part in parts if part is not None]
    return [ObjectClaim(name, at_start=at_start) for name in names if len(names) == len(parts)]


def _name(found: re.Match[str]) -> Name:
    return Name(found["shape"], found["colour"] or "")
