"""What is certain about a scene → captions: short, detailed, timed. Nothing uncertain is told."""

from typing import Final, Literal

from llava_video.world.scene import Event
from llava_video.world.vocabulary import SIDE_AHEAD, SIDE_BEHIND, clock, listed, with_article
from llava_video.world.witness import Witness

CaptionStyle = Literal["short", "detailed", "timed"]
STYLES: Final[tuple[CaptionStyle, ...]] = ("short", "detailed", "timed")
_STILL = "Nothing happens."
_AT: Final = {"top": "at", "bottom": "at", "left": "on", "right": "on"}
_NUMBERS: Final = ("No objects", "One object", "Two objects", "Three objects", "Four objects")


def caption(witness: Witness, style: CaptionStyle) -> str:
    """Describe a clip.

    Args:
        witness: what is certain about it.
        style: "short" (what there is and what happens), "detailed" (sizes, places, speeds, the
            background, the sign and the end too) or "timed" (a line a moment).
    """
    write = {"short": _short, "detailed": _detailed, "timed": _timed}[style]
    return write(witness)


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


def _short(witness: Witness) -> str:
    told = [event for event in witness.certain_events if event.kind not in ("stop", "return")]
    sentences = [f"{_upper(listed(_objects(witness)))}."] if witness.seen else []
    sentences += [f"{_upper(clause(witness, event))}." for event in told] or [_STILL]
    return " ".join(sentences)


def _detailed(witness: Witness) -> str:
    scene = witness.scene
    sentences = [f"The background is {scene.backdrop.kind}."]
    if scene.sign is not None:
        sentences.append(f"A sign says {scene.sign.text}.")
    for idx in sorted(witness.seen):
        thing = scene.things[idx]
        first = f"{witness.size(idx, 0.0)} {thing.colours[0][1]} {thing.shape}"
        place = witness.place(idx, at_end=False)
        where = f" {_AT.get(place, 'in')} the {place} at the start" if place is not None else ""
        sentences.append(f"There is {with_article(first)}{where}.")
    told = [_upper(clause(witness, e, has_speed=True)) + "." for e in witness.certain_events]
    sentences += told or [_STILL]
    views = witness.views_at_end()
    if views is not None and witness.all_clear:
        sentences.append(f"{_NUMBERS[views.count('whole')]} can be seen at the end.")
    return " ".join(sentences)


def _timed(witness: Witness) -> str:
    views = witness.views_at_start()
    shown = [idx for idx in sorted(witness.seen) if views is not None and views[idx] == "whole"]
    names = [with_article(_first_name(witness, idx)) for idx in shown]
    lines = [f"{clock(0.0)}: {listed(names) if names else 'no objects'}."] if views else []
    lines += [f"{clock(e.start_s)}: {clause(witness, e)}." for e in witness.certain_events]
    return "\n".join(lines if witness.certain_events else [*lines, _STILL])


def _objects(witness: Witness) -> list[str]:
    return [with_article(_first_name(witness, idx)) for idx in sorted(witness.seen)]


def _first_name(witness: Witness, idx: int) -> str:
    thing = witness.scene.things[idx]
    return f"{thing.colours[0][1]} {thing.shape}"


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
