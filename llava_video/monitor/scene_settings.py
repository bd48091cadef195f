"""What a user may set about windows, the change gate and the reuse of answers."""

from dataclasses import dataclass

from llava_video.config import check, setting
from llava_video.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSettings:
    """How a stream is cut into windows, and how much of it is held."""

    length_s: float = setting(
        8.0,
        "How much of a stream one question is about; somebody crosses the picture in it.",
        unit="s",
        above=0,
    )
    step_s: float = setting(
        4.0, "From one window's begin to the next one's; half overlap.", unit="s", above=0
    )
    before_s: float = setting(
        10.0, "What is held of the time before an event, as its evidence.", unit="s", at_least=0
    )
    most_bytes: int = setting(
        2**28,
        "What held pictures may take, of one stream; the oldest go, and their window says so.",
        unit="bytes",
        at_least=1,
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """When a picture counts as changed."""

    threshold: float = setting(
        6.0,
        "Mean difference of a block, in levels of 0 to 255, from which on a picture has changed; 0 "
        "for a single pixel. Above what a quiet scene's noise and compression make of themselves.",
        unit="levels",
        at_least=0,
        at_most=255,
    )
    block_px: int = setting(
        16,
        "Side of a block, even; an object of half that side is seen when its contrast is four "
        "times the threshold.",
        unit="px",
        at_least=2,
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self)
        if self.block_px % 2:
            raise ConfigError(
                f"block_px = {self.block_px}.", "an even number: blocks overlap by half."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReuseSettings:
    """When an earlier answer stands for a window that did not change."""

    is_on: bool = setting(True, "Reuse answers at all.")
    max_age_s: float = setting(
        600.0,
        "Age from which on an answer is asked for again though nothing changed; what is too small "
        "or too slow for the gate is so seen in the end.",
        unit="s",
        above=0,
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        check(self)
