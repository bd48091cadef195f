"""A split's name → the settings of its clips; no clip of one split can be in another.

Their frame sizes have none in common, so not one frame can be the same; what is measured on a
held-out split also has rates, lengths, backgrounds and codec settings that training never shows.
"""

import difflib
from typing import Final

from llava_video.errors import ConfigError
from llava_video.world.settings import WorldSettings

SPLITS: Final[dict[str, WorldSettings]] = {
    "train": WorldSettings(
        sizes_px=((64, 64), (48, 64), (64, 96), (96, 64), (96, 96)),
        rates_hz=(2.0, 4.0, 8.0),
        lengths_s=(6.0, 8.0, 10.0, 12.0),
        crfs=(12, 18, 23),
        palette="a",
    ),
    # As training, for choosing between trainings.
    "val": WorldSettings(
        sizes_px=((60, 60), (60, 80), (90, 90)),
        rates_hz=(2.0, 4.0, 8.0),
        lengths_s=(6.0, 8.0, 10.0, 12.0),
        crfs=(12, 18, 23),
        palette="a",
    ),
    "heldout": WorldSettings(
        sizes_px=((56, 56), (72, 72), (56, 88), (88, 56), (112, 112)),
        rates_hz=(2.5, 5.0, 12.0),
        lengths_s=(7.0, 9.0, 11.0),
        crfs=(15, 20, 25),
        palette="b",
    ),
    # Two to eight times as long as anything in training.
    "long": WorldSettings(
        sizes_px=((68, 68), (76, 104)),
        rates_hz=(2.5, 5.0),
        lengths_s=(24.0, 48.0, 96.0),
        crfs=(15, 20, 25),
        palette="b",
        max_acts=8,
    ),
    # As a camera sees the world: hardly anything happens.
    "monitor": WorldSettings(
        sizes_px=((84, 112), (100, 100)),
        rates_hz=(2.5, 5.0),
        lengths_s=(30.0, 60.0),
        crfs=(15, 20, 25),
        palette="b",
        still_share=0.3,
        quiet_share=0.7,
    ),
}
HELD_OUT: Final = ("heldout", "long", "monitor")


def split_settings(name: str) -> WorldSettings:
    """Return the settings of a split.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in SPLITS:
        near = difflib.get_close_matches(name, SPLITS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(SPLITS)}."
        raise ConfigError(f"there is no split {name!r}.", hint)
    return SPLITS[name]
