"""A question about a thing → when what it asks about shows."""

import re
from typing import Final

from llava_video.world.scene import Event, Scene
from llava_video.world.vocabulary import VERBS

Span = tuple[float, float]

_GLIMPSE_S: Final = 1.0  # what begins, or is asked about now, is looked at for so long
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


def moments(scene: Scene, question: str, thing: int) -> tuple[Span, ...]:
    """Return when a thing shows what a question asks of it.

    Args:
        scene: the truth.
        question: which names the thing.
        thing: its number.

    Returns:
        (from, to) in seconds: the last moments of what is so now, the first of what was so at
        first, each of its events that are asked about (when they begin, where that is the
        question). () where it does not matter, as for its shape, or nothing of it happened.
    """
    if _AT_END.search(question):
        end_s = scene.num_frames / scene.rate_hz
        return ((end_s - _GLIMPSE_S, end_s),)
    if _AT_START.search(question):
        return ((0.0, _GLIMPSE_S),)
    kinds = {kind for kind, words in _KINDS.items() if words.search(question)}
    is_any = not kinds and _ANY_DEED.search(question) is not None
    own = [one for one in scene.events if one.thing == thing and (is_any or one.kind in kinds)]
    is_beginning = _BEGINNING.search(question) is not None
    return tuple(_span_of(event, is_beginning=is_beginning) for event in own)


def _span_of(event: Event, *, is_beginning: bool) -> Span:
    least_s = event.start_s + _GLIMPSE_S
    return event.start_s, least_s if is_beginning else max(event.end_s, least_s)
