"""What clips of the small world may be like; every choice is drawn evenly from what is given."""

from dataclasses import dataclass
from typing import Literal

from llava_video.config import check, setting
from llava_video.errors import ConfigError

LEAST_SIDE_PX, MOST_SIDE_PX = 32, 4096
LEAST_LENGTH_S = 4.0
BackdropKind = Literal["plain", "gradient", "textured", "noisy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldSettings:
    """The world that clips are drawn from."""

    sizes_px: tuple[tuple[int, int], ...] = setting(
        ((64, 64),), "frame sizes, (height, width); even, as H.264 wants them", unit="px"
    )
    rates_hz: tuple[float, ...] = setting(
        (2.0,), "frame rates of the clips", unit="frames/s", at_least=0.5, at_most=120
    )
    lengths_s: tuple[float, ...] = setting(
        (8.0,), "lengths of the clips", unit="s", at_least=LEAST_LENGTH_S, at_most=86_400
    )
    sampled_hz: float | None = setting(
        None,
        "frames per second that whoever answers is shown; what only more frames would tell is not "
        "asked. None: all of the clip's, at most 2",
        unit="frames/s",
        at_least=0.1,
        at_most=120,
    )
    min_objects: int = setting(1, "fewest objects", at_least=1, at_most=4)
    max_objects: int = setting(4, "most objects; more would not find room", at_least=1, at_most=4)
    max_acts: int = setting(
        5, "most things that are made to happen; long clips have them seldom", at_least=0
    )
    still_share: float = setting(
        0.12, "share of clips in which nothing happens", at_least=0, at_most=1
    )
    quiet_share: float = setting(
        0.12, "share of clips with one or two events, as cameras see", at_least=0, at_most=1
    )
    sign_share: float = setting(0.3, "share of clips with a sign", at_least=0, at_most=1)
    backdrops: tuple[BackdropKind, ...] = setting(
        ("plain", "gradient", "textured", "noisy"), "kinds of background"
    )
    palette: Literal["a", "b"] = setting(
        "a", "which of two sets of background colours and patterns; they share none"
    )
    shake_share: float = setting(0.2, "share of clips with a camera that shakes", at_least=0)
    shake: float = setting(
        0.02, "how far it is off at most, over the shorter side", at_least=0, at_most=0.05
    )
    noise: int = setting(
        12, "most grey levels of noise; each clip draws from 0 to this", at_least=0, at_most=40
    )
    crfs: tuple[int, ...] = setting(
        (12, 18, 23), "quality of H.264 in files; lower is better", at_least=0, at_most=35
    )
    least_motion_px: float = setting(
        4.0, "a shorter way is not asked about; a shaking camera adds to it", unit="px", above=0
    )
    least_growth_px: float = setting(
        1.5, "a smaller change of a radius is not asked about", unit="px", above=0
    )

    def __post_init__(self) -> None:
        """Check ranges, sizes, and that the limits do not contradict one another."""
        check(self)
        for name in ("sizes_px", "rates_hz", "lengths_s", "backdrops", "crfs"):
            if not getattr(self, name):
                raise ConfigError(f"{name} is empty.", "give at least one.")
        for height_px, width_px in self.sizes_px:
            sides = (height_px, width_px)
            is_even = all(side % 2 == 0 for side in sides)
            if not is_even or min(sides) < LEAST_SIDE_PX or max(sides) > MOST_SIDE_PX:
                raise ConfigError(
                    f"a frame of {height_px} x {width_px} px.",
                    f"even sides from {LEAST_SIDE_PX} to {MOST_SIDE_PX} px.",
                )
        if self.min_objects > self.max_objects:
            raise ConfigError(
                f"min_objects = {self.min_objects} is above max_objects = {self.max_objects}.",
                "give a smallest number that is no larger.",
            )
        if self.still_share + self.quiet_share > 1:
            raise ConfigError(
                f"still_share + quiet_share = {self.still_share + self.quiet_share}.",
                "together at most 1.",
            )

    def gap_s(self, rate_hz: float) -> float:
        """Return the time between two frames that are looked at, of a clip of a rate, s."""
        return 1 / min(rate_hz, 2.0 if self.sampled_hz is None else self.sampled_hz)
