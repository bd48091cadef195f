"""A question about a thing → when what it asks about shows."""

import math
import re
from collections.abc import Sequence
from typing import Final

from llava_video.world.ask_events import MAIN_KINDS
from llava_video.world.mentions import mentions
from llava_video.world.scene import Event, Scene
from llava_video.world.vocabulary import VERBS

Span = tuple[float, float]

GLIMPSE_S: Final = 1.0  # what begins, or is asked about now, is looked at for so long
# What else than its verbs asks about a kind of event.
_OTHER_WORDS: Final[dict[str, str]] = {
    "move": "direction|way",
    "grow": "size .* change",
    "shrink": "size .* change",
    "recolour": "colour .* change|turn",
    "collide": "hit|run into",
}
_KINDS: Final = {
    kind: re.compile(rf"\b({'|'.join([*verbs, *filter(None, [_OTHER_WORDS.get(kind)])])})\b")
    for kind, verbs in VERBS.items()
}
_AT_END: Final = re.compile(r"\b(now|at the end)\b")
_AT_START: Final = re.compile(r"\b(at the start|at first)\b")
_BEGINNING: Final = re.compile(r"^When\b|\b(first|before)\b")
_ANY_DEED: Final = re.compile(r"\b(do|something)\b")


def moments(scene: Scene, question: str, thing: int, shows_s: Sequence[float]) -> tuple[Span, ...]:
    """Return when a thing shows what a question asks of it.

    Args:
        scene: the truth.
        question: which names the thing.
        thing: its number.
        shows_s: when the thing shows, ascending, s; at least once.

    Returns:
        (from, before) in seconds: of what is so now, the last that shows of it; of what was so at
        first, the first, before its colour changes; else each of its events that are asked about,
        or the beginning of the first where that is the question. () where it does not matter, as
        for its shape, or nothing of it happened.
    """
    own = [event for event in scene.events if event.thing == thing]
    if _AT_END.search(question):
        return ((shows_s[-1] - GLIMPSE_S, math.inf),)
    if _AT_START.search(question):
        others_s = [event.start_s for event in own if event.kind == "recolour"]
        return ((shows_s[0], min([shows_s[0] + GLIMPSE_S, *others_s])),)
    about = _half_about(scene, question, thing)
    kinds = {kind for kind, words in _KINDS.items() if words.search(about)}
    if not kinds and _ANY_DEED.search(question):
        kinds = {*MAIN_KINDS}
    asked = [event for event in own if event.kind in kinds]
    if _BEGINNING.search(question):
        return tuple((one.start_s, one.start_s + GLIMPSE_S) for one in asked[:1])
    return tuple(shows_while(one) for one in asked)


def shows_while(event: Event) -> Span:
    """Return when an event shows: while it lasts, and for a glimpse at least."""
    return event.start_s, max(event.end_s, event.start_s + GLIMPSE_S)


def _half_about(scene: Scene, question: str, thing: int) -> str:
    """Return the half of "Does A move before B stops?" that names a thing; all of other texts."""
    halves = question.split(" before ")
    return next((half for half in halves if thing in mentions(scene, half)), question)
