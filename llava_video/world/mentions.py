"""A text about a scene → what it names, in the order of the words."""

import re
from typing import Final

from llava_video.world.scene import Scene
from llava_video.world.vocabulary import COLOURS, SHAPES

SIGN: Final = -1
_ANY: Final = ("object", "thing")
# The words that end a name.
NOUNS: Final = (*SHAPES, *_ANY, "sign")
_NAME: Final = re.compile(rf"\b(?:({'|'.join(COLOURS)}) )?({'|'.join(NOUNS)})\b")


def mentions(scene: Scene, text: str) -> tuple[int | None, ...]:
    """Return the number of each object that is named, in order.

    Args:
        scene: what the text is about.
        text: a question or an answer.

    Returns:
        For every noun the object's number, -1 for the sign, and None for what is not there, or may
        be several.
    """
    return tuple(_named(scene, *found) for found in _NAME.findall(text))


def _named(scene: Scene, colour: str, noun: str) -> int | None:
    if noun == "sign":
        return None if scene.sign is None else SIGN
    if noun in _ANY and not colour:
        return None
    found = [
        idx
        for idx, thing in enumerate(scene.things)
        if noun in (*_ANY, thing.shape)
        and (not colour or any(own == colour for _, own in thing.colours))
    ]
    return found[0] if len(found) == 1 else None
