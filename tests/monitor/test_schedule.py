"""Days and hours, past midnight and where clocks change."""

import datetime
from typing import Any

import pytest

from llava_video.errors import ConfigError
from llava_video.monitor.schedule import Span, check_zone, is_scheduled


def at(text: str) -> float:
    """Return seconds of a UTC time; 2026-01-05 is a Monday."""
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()


@pytest.mark.parametrize(
    ("span", "inside", "outside"),
    [
        (Span(), ["2026-01-05T00:00", "2026-01-11T23:59:59"], []),
        (Span(start="08:00", end="18:00"), ["2026-01-05T08:00", "2026-01-05T17:59:59.999"],
         ["2026-01-05T07:59:59.999", "2026-01-05T18:00"]),
        (Span(days=("mon",), start="22:00", end="06:00"),
         ["2026-01-05T22:00", "2026-01-06T05:59"],
         ["2026-01-05T05:59", "2026-01-05T21:59", "2026-01-06T06:00", "2026-01-06T22:00"]),
        (Span(days=("sun",), start="12:00", end="00:00"), ["2026-01-11T23:59"],
         ["2026-01-12T00:00", "2026-01-11T11:59"]),
        (Span(days=("sat", "sun")), ["2026-01-10T12:00"], ["2026-01-09T12:00"]),
    ],
)  # fmt: skip
def test_a_span_holds_from_its_first_minute_up_to_its_last(
    span: Span, inside: list[str], outside: list[str]
) -> None:
    assert [text for text in inside if not is_scheduled((span,), at(text), "UTC")] == []
    assert [text for text in outside if is_scheduled((span,), at(text), "UTC")] == []


def test_no_span_is_always_and_one_of_several_is_enough() -> None:
    assert is_scheduled((), at("2026-01-05T03:00"), "UTC")
    spans = (Span(end="01:00"), Span(start="02:00", end="04:00"))
    assert is_scheduled(spans, at("2026-01-05T03:00"), "UTC")
    assert not is_scheduled(spans, at("2026-01-05T01:30"), "UTC")


def test_hours_are_those_of_the_place_in_summer_and_winter() -> None:
    morning = (Span(start="08:00", end="09:00"),)
    assert is_scheduled(morning, at("2026-01-05T07:30"), "Europe/Berlin")
    assert not is_scheduled(morning, at("2026-01-05T06:30"), "Europe/Berlin")
    assert is_scheduled(morning, at("2026-07-06T06:30"), "Europe/Berlin")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"days": ()}, "never is"),
        ({"days": ("monday",)}, "'mon'"),
        ({"start": "8:00"}, '"HH:MM"'),
        ({"end": "24:01"}, '"HH:MM"'),
        ({"start": "12:60"}, '"HH:MM"'),
        ({"start": "09:00", "end": "09:00"}, "never is"),
        ({"start": "24:00", "end": "06:00"}, "never is"),
    ],
)
def test_a_span_that_never_is_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Span(**wrong)


@pytest.mark.parametrize("zone", ["Mars/Base", "../etc/passwd", "", "/UTC"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(ConfigError, match="Europe/Berlin"):
        check_zone(zone)
