"""The words of the small world and what each stands for: colours, shapes, directions, places."""

from typing import Final

Rgb = tuple[int, int, int]

COLOURS: Final[dict[str, Rgb]] = {
    "red": (216, 36, 36),
    "orange": (242, 138, 16),
    "yellow": (246, 222, 40),
    "green": (36, 166, 56),
    "cyan": (36, 202, 214),
    "blue": (36, 76, 222),
    "purple": (132, 40, 186),
    "pink": (246, 120, 188),
}
SHAPES: Final = ("circle", "square", "triangle", "diamond", "cross", "ring")
# Radius in units of the frame's shorter side: 5.8 and 9.2 px of 64.
SIZES: Final[dict[str, float]] = {"small": 0.09, "large": 0.144}
# Units of the shorter side per second.
SPEEDS: Final[dict[str, float]] = {"slowly": 0.16, "quickly": 0.32}

_DIAGONAL = 0.7071067811865476
# (to the right, down); as many to every side, so that a guess is right once in eight.
DIRECTIONS: Final[dict[str, tuple[float, float]]] = {
    "right": (1.0, 0.0),
    "down right": (_DIAGONAL, _DIAGONAL),
    "down": (0.0, 1.0),
    "down left": (-_DIAGONAL, _DIAGONAL),
    "left": (-1.0, 0.0),
    "up left": (-_DIAGONAL, -_DIAGONAL),
    "up": (0.0, -1.0),
    "up right": (_DIAGONAL, -_DIAGONAL),
}
STRAIGHT: Final = ("right", "down", "left", "up")
# The side a direction leads to, and the one it comes from.
SIDE_AHEAD: Final = {"right": "right", "down": "bottom", "left": "left", "up": "top"}
SIDE_BEHIND: Final = {"right": "left", "down": "top", "left": "right", "up": "bottom"}
PLACES: Final = (
    ("top left", "top", "top right"),
    ("left", "centre", "right"),
    ("bottom left", "bottom", "bottom right"),
)
BACKGROUNDS: Final = ("plain", "gradient", "textured", "noisy")
SIGN_WORDS: Final = (
    "GO", "STOP", "EXIT", "OPEN", "SHUT", "PARK", "TAXI", "BUS", "CAFE", "BANK", "SHOP", "ZOO",
    "HOT", "COLD", "WET", "SLOW", "FAST", "EAST", "WEST", "HOME", "PLAY", "REST", "GYM", "INN",
    "7", "12", "24", "30", "50", "86", "911", "2049",
)  # fmt: skip

# kind of event → (it …s, does it …)
VERBS: Final[dict[str, tuple[str, str]]] = {
    "enter": ("enters", "enter"),
    "leave": ("leaves", "leave"),
    "move": ("moves", "move"),
    "stop": ("stops", "stop"),
    "grow": ("grows", "grow"),
    "shrink": ("shrinks", "shrink"),
    "recolour": ("changes colour", "change colour"),
    "hide": ("hides behind the wall", "hide behind the wall"),
    "return": ("comes back from behind the wall", "come back from behind the wall"),
    "collide": ("hits another object", "hit another object"),
}


def with_article(words: str) -> str:
    """Put "a" or "an" in front.

    >>> with_article("orange ring"), with_article("red ring")
    ('an orange ring', 'a red ring')
    """
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def clock(time_s: float) -> str:
    """Write a moment as answers do: seconds with one decimal place.

    >>> clock(2.5)
    '2.5 s'
    """
    return f"{time_s:.1f} s"
