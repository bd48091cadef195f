"""Days and hours of a place → whether a moment is inside them.

A span that ends before it starts goes on past midnight and belongs to the day it starts on. Hours
are those of a wall clock in the time zone: when clocks go back an hour is there twice, when they go
forward one is missing. Reads no clock.
"""

import datetime
import re
import zoneinfo
from dataclasses import dataclass
from typing import Final, Literal, get_args

from llava_video.config import check, setting
from llava_video.errors import ConfigError

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

DAYS: Final[tuple[Day, ...]] = get_args(Day)
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Hours of some days."""

    days: tuple[Day, ...] = setting(DAYS, "The days on which it starts.")
    start: str = setting("00:00", "From this minute on, HH:MM.")
    end: str = setting("24:00", "Up to this minute, HH:MM; before `start` it is the next day's.")

    def __post_init__(self) -> None:
        check(self)
        for name in ("start", "end"):
            if not _CLOCK.fullmatch(getattr(self, name)):
                raise ConfigError(
                    f"{name} = {getattr(self, name)!r}.", '"HH:MM" from "00:00" to "24:00", quoted.'
                )
        if not self.days:
            raise ConfigError("a span has no days, so it never is.", f"days: {list(DAYS)}")
        if self.start_minute == self.end_minute or self.start == "24:00":
            raise ConfigError(
                f"start = {self.start!r}, end = {self.end!r}: it never is.",
                'the whole day is "00:00" to "24:00".',
            )

    @property
    def start_minute(self) -> int:
        """Minutes from midnight to the start."""
        return _minutes(self.start)

    @property
    def end_minute(self) -> int:
        """Minutes from midnight to the end."""
        return _minutes(self.end)

    def holds(self, local: datetime.datetime) -> bool:
        """Say whether a local time is inside."""
        minute = local.hour * 60 + local.minute
        today, yesterday = DAYS[local.weekday()], DAYS[local.weekday() - 1]
        if self.start_minute < self.end_minute:
            return today in self.days and self.start_minute <= minute < self.end_minute
        return (today in self.days and minute >= self.start_minute) or (
            yesterday in self.days and minute < self.end_minute
        )


def is_scheduled(spans: tuple[Span, ...], at_s: float, zone: str) -> bool:
    """Say whether a moment is in one of the spans; always where there are none.

    Args:
        spans: of a rule.
        at_s: wall clock, s since 1970 in UTC.
        zone: as `check_zone` takes it.
    """
    if not spans:
        return True
    local = datetime.datetime.fromtimestamp(at_s, _zone(zone))
    return any(span.holds(local) for span in spans)


def check_zone(zone: str) -> None:
    """Refuse a time zone that is not known.

    Raises:
        ConfigError: its name and what names look like.
    """
    try:
        _zone(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as cause:
        raise ConfigError(
            f"time_zone = {zone!r} is not known here.",
            "UTC or a name such as Europe/Berlin; `pip install tzdata` where there are none.",
        ) from cause


def _zone(zone: str) -> datetime.tzinfo:
    return datetime.UTC if zone == "UTC" else zoneinfo.ZoneInfo(zone)


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)
