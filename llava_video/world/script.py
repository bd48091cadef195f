"""Draws → who does what and when: the acts of a scene, before anybody has a place.

Starts are whole halves of a second. What cannot be (an object that leaves twice) is not drawn.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from llava_video.world.actor import Act
from llava_video.world.dice import Dice
from llava_video.world.scene import EventKind
from llava_video.world.vocabulary import (
    COLOURS,
    DIRECTIONS,
    SHAPES,
    SIDE_AHEAD,
    SIDE_BEHIND,
    SIZES,
    SPEEDS,
    STRAIGHT,
)

_WEIGHTS: Final[tuple[tuple[EventKind, float], ...]] = (
    ("move", 3.0),
    ("enter", 2.2),
    ("leave", 1.8),
    ("grow", 1.6),
    ("shrink", 1.6),
    ("recolour", 1.6),
    ("hide", 3.5),
    ("collide", 5.0),
)
_LENGTHS_S: Final = (1.0, 1.5, 2.0)
# An act, its pause and its end take about this long; two acts of one object may not overlap.
_ACT_S: Final = 3.5
# Until the end of the clip, s: what would be over too late is not begun.
_NEEDS_S: Final[dict[str, float]] = {"hide": 5.5, "collide": 5.0, "enter": 2.5, "leave": 2.5}


@dataclass(slots=True)
class Part:
    """What one object is and does.

    Attributes:
        shape: its shape.
        colour: its first colour.
        size: its first size.
        acts: in order of time; a collision is one of who runs.
        victim_of: number of the object that runs into it; None otherwise.
    """

    shape: str
    colour: str
    size: str
    acts: list[Act] = field(default_factory=list)
    victim_of: int | None = None
    _free_s: float = 0.0
    _is_large: bool = False
    _is_gone: bool = False

    def __post_init__(self) -> None:
        """Take the size it begins with."""
        self._is_large = self.size == "large"

    def can(self, kind: EventKind, start_s: float) -> bool:
        """Say whether an act is possible after all others."""
        if self._is_gone or self.victim_of is not None or start_s < self._free_s:
            return False
        if kind == "enter":
            return not self.acts
        if kind in ("grow", "shrink"):
            is_again = any(act.kind in ("grow", "shrink") for act in self.acts)
            return not is_again and self._is_large == (kind == "shrink")
        if kind == "hide":
            return not self._is_large
        return True

    def add(self, act: Act, num_s: float = _ACT_S) -> None:
        """Take on an act."""
        self.acts.append(act)
        self._free_s = act.start_s + num_s
        self._is_gone = act.kind == "leave" or act.goes_on
        if act.kind in ("grow", "shrink"):
            self._is_large = act.kind == "grow"


def draw_parts(
    dice: Dice, num_things: int, starts_s: list[float], length_s: float, closed: str = ""
) -> list[Part]:
    """Draw objects and what they do.

    Args:
        dice: where the draws come from.
        num_things: 1 to 4.
        starts_s: when something is to begin, ascending, s.
        length_s: of the clip, s.
        closed: the edge where nobody enters or leaves, "top" or "bottom".

    Returns:
        As many parts; each pair of a colour and a shape belongs to one object at most.
    """
    pairs = _identities(dice, num_things)
    parts = [Part(shape, colour, dice.pick(tuple(SIZES))) for colour, shape in pairs]
    for start_s in starts_s:
        _draw_act(dice, parts, start_s, length_s, closed)
    return parts


def _identities(dice: Dice, num_things: int) -> list[tuple[str, str]]:
    """Draw different pairs of colour and shape; every third new one shares one with another."""
    pairs: list[tuple[str, str]] = []
    while len(pairs) < num_things:
        colour, shape = dice.pick(tuple(COLOURS)), dice.pick(SHAPES)
        if pairs and dice.chance(0.33):
            old = dice.pick(pairs)
            colour, shape = (old[0], shape) if dice.chance(0.5) else (colour, old[1])
        if (colour, shape) not in pairs:
            pairs.append((colour, shape))
    return pairs


def _draw_act(dice: Dice, parts: list[Part], start_s: float, length_s: float, closed: str) -> None:
    """Give one act to somebody who has done little so far; nobody may be able to."""
    few = min(len(part.acts) for part in parts)
    fresh = [part for part in parts if len(part.acts) == few]
    part = dice.pick(fresh if dice.chance(0.7) else parts)
    options = [pair for pair in _WEIGHTS if _is_open(pair[0], part, parts, start_s)]
    options = [pair for pair in options if start_s + _NEEDS_S.get(pair[0], 0) <= length_s]
    if not options:
        return
    kind = dice.weighted(options)
    act = _make(dice, kind, part, parts, start_s, length_s)
    if kind in ("enter", "leave"):
        sides = SIDE_BEHIND if kind == "enter" else SIDE_AHEAD
        ways = [way for way in STRAIGHT if sides[way] != closed]
        act = dataclasses.replace(act, direction=dice.pick(ways))
    if kind == "collide":
        others = list(_victims(part, parts))
        dice.pick(others).victim_of = parts.index(part)
    part.add(act, _ACT_S + 1.0 if kind == "hide" else _ACT_S)


def _is_open(kind: EventKind, part: Part, parts: list[Part], start_s: float) -> bool:
    if not part.can(kind, start_s):
        return False
    if kind == "hide":  # there is one wall
        return all(act.kind != "hide" for other in parts for act in other.acts)
    if kind == "collide":
        return any(_victims(part, parts)) and all(p.victim_of is None for p in parts)
    if kind == "recolour":  # its name is its shape alone, then
        is_unique = sum(other.shape == part.shape for other in parts) == 1
        return is_unique and all(act.kind != "recolour" for act in part.acts)
    return True


def _victims(part: Part, parts: list[Part]) -> Iterator[Part]:
    """Yield whom a part may run into: of one colour the two would melt into each other."""
    return (
        other
        for other in parts
        if other is not part and not other.acts and other.colour != part.colour
    )


def _make(
    dice: Dice, kind: EventKind, part: Part, parts: list[Part], start_s: float, length_s: float
) -> Act:
    direction, speed = dice.pick(tuple(DIRECTIONS)), dice.pick(tuple(SPEEDS))
    if kind == "collide":
        direction = dice.pick(STRAIGHT)
    elif kind == "hide":
        direction = dice.pick(("left", "right"))
    elif kind != "move":
        direction = ""
    # Who grows for longer hardly changes in the first half second.
    act_s = dice.pick(_LENGTHS_S[:2] if kind in ("grow", "shrink") else _LENGTHS_S)
    goes_on = kind == "move" and 1.5 <= length_s - start_s <= 3.5
    if goes_on:
        act_s = length_s - start_s
    colour = ""
    if kind == "recolour":
        taken = {other.colour for other in parts if other.shape == part.shape}
        colour = dice.pick([name for name in COLOURS if name not in taken])
    return Act(kind, start_s, direction, speed, act_s, colour, dice.chance(0.5), goes_on)
