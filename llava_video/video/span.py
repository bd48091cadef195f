"""A time as people write it → seconds: 12.5, "12.5", "MM:SS", "HH:MM:SS.mmm", a timedelta.

Knows no video: whether a time lies inside one is the sampler's business.
"""

import datetime
import math
import re

from llava_video.errors import ConfigError

_CLOCK = re.compile(r"(?:(?P<hours>\d+):(?=\d\d:))?(?P<minutes>\d+):(?P<seconds>\d\d(?:\.\d+)?)")
_SECONDS = re.compile(r"\d+(?:\.\d*)?|\.\d+")
_HINT = 'write seconds (12.5), "MM:SS", "HH:MM:SS.mmm", or a timedelta; never negative.'


def parse_time(time: str | float | datetime.timedelta) -> float:
    """Turn a written time into seconds.

    >>> parse_time("01:02:03.250")
    3723.25
    >>> parse_time("90:00")
    5400.0

    Args:
        time: seconds as a number or text, "MM:SS" (minutes may exceed 59 when no hours are
            given), "HH:MM:SS" with any number of decimals, or a timedelta.

    Returns:
        Seconds, finite, >= 0.

    Raises:
        ConfigError: when it is none of these.
    """
    seconds = _seconds(time)
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        raise ConfigError(f"{time!r} is not a time.", _HINT)
    return seconds


def _seconds(time: object) -> float | None:
    if isinstance(time, bool):
        return None
    if isinstance(time, int | float):
        return float(time)
    if isinstance(time, datetime.timedelta):
        return time.total_seconds()
    return _seconds_of_text(time.strip()) if isinstance(time, str) else None


def _seconds_of_text(text: str) -> float | None:
    if not text.isascii():  # \d and float() also take digits of other scripts
        return None
    if _SECONDS.fullmatch(text):
        return float(text)
    clock = _CLOCK.fullmatch(text)
    if clock is None:
        return None
    hours, minutes, seconds = clock["hours"], int(clock["minutes"]), float(clock["seconds"])
    if seconds >= 60 or (hours is not None and minutes >= 60):
        return None
    return int(hours or 0) * 3600.0 + minutes * 60.0 + seconds
