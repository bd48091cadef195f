import datetime
import math

import hypothesis
import pytest
from hypothesis import strategies

from llava_video.errors import ConfigError
from llava_video.video.span import parse_time


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        (0, 0.0),
        (12.5, 12.5),
        ("12.5", 12.5),
        (" 7 ", 7.0),
        (".5", 0.5),
        ("01:30", 90.0),
        ("1:30.250", 90.25),
        ("90:00", 5400.0),
        ("01:02:03.250", 3723.25),
        ("100:00:00", 360000.0),
        (datetime.timedelta(minutes=1, milliseconds=500), 60.5),
    ],
)
def test_times(time: object, seconds: float) -> None:
    assert parse_time(time) == seconds


@pytest.mark.parametrize(
    "time",
    [
        -1,
        "-1",
        "-00:01",
        "",
        "abc",
        "1:2",
        "00:60",
        "1:60:00",
        "1:2:03",
        "1:02:03:04",
        "1e3",
        "nan",
        "inf",
        "1,5",
        "٣",
        "12s",
        math.nan,
        math.inf,
        True,
        None,
        [1],
        datetime.timedelta(seconds=-1),
    ],
)
def test_what_is_no_time(time: object) -> None:
    with pytest.raises(ConfigError, match="MM:SS"):
        parse_time(time)


@hypothesis.given(strategies.integers(0, 360_000_000))
def test_a_clock_reads_back(milliseconds: int) -> None:
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours:02}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"
    assert parse_time(text) == pytest.approx(milliseconds / 1000, abs=1e-9)
