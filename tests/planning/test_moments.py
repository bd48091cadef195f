"""Spans, rates and even spreads over timestamps, by hand counts."""

from collections.abc import Callable

import numpy as np
import pytest

from llava_video.errors import ConfigError
from llava_video.planning.moments import (
    at_rate,
    cap_of,
    has_constant_rate,
    rate_of,
    span_end_s,
    span_of,
    spread,
    stated_rate_hz,
    video_end_s,
)
from llava_video.planning.settings import SamplingSettings
from llava_video.values import VideoInfo

MakeInfo = Callable[..., VideoInfo]


def test_the_end_of_a_video(make_info: MakeInfo):
    assert video_end_s(make_info()) == 10.0
    assert video_end_s(make_info(duration_s=None)) == pytest.approx(10.0)
    assert video_end_s(make_info(1, 25.0, duration_s=None, tick_s=0.5)) == 0.5
    assert video_end_s(make_info(duration_s=3.0)) > make_info().pts_s[-1]  # a header that lies


def test_a_span_is_half_open_and_begins_with_what_is_on_screen(make_info: MakeInfo):
    info = make_info(50, 10.0)  # a frame every 0.1 s
    assert span_of(info, SamplingSettings()) == (0, 50, ())
    assert span_of(info, SamplingSettings(start_s=1.0, end_s=2.0)) == (10, 20, ())
    assert span_of(info, SamplingSettings(start_s=1.05, end_s=2.05)) == (10, 21, ())
    assert span_of(info, SamplingSettings(end_s=9.0))[2]  # said: the video ends before
    with pytest.raises(ConfigError, match=r"ends at 5\.00 s"):
        span_of(info, SamplingSettings(start_s=5.0))


def test_the_end_of_a_span_is_the_next_frame_or_the_end(make_info: MakeInfo):
    info = make_info(50, 10.0)
    assert span_end_s(info, (3, 20)) == pytest.approx(2.0)
    assert span_end_s(info, (3, 50)) == 5.0


@pytest.mark.parametrize(
    ("knobs", "cap"),
    [
        ({}, 64),
        ({"max_frames": 9}, 9),
        ({"num_frames": 100}, 100),
        ({"num_frames": 100, "max_frames": 9}, 9),
        ({"num_frames": 5, "max_frames": 9}, 5),
    ],
)
def test_a_wish_lifts_the_models_cap_and_a_limit_holds(knobs: dict, cap: int):
    assert cap_of(SamplingSettings(**knobs), 64) == cap


@pytest.mark.parametrize(
    ("knobs", "default", "rate"),
    [
        ({}, None, None),
        ({}, 1.0, 1.0),
        ({"fps": 2.0}, 1.0, 2.0),
        ({"fps": 2.0, "num_frames": 8}, 1.0, 2.0),
        ({"num_frames": 8}, 1.0, None),
        ({"max_frames": 8}, 1.0, 1.0),
    ],
)
def test_the_models_rate_gives_way_to_a_wish(knobs: dict, default: float | None, rate: object):
    assert rate_of(SamplingSettings(**knobs), default) == rate


def test_a_rate_that_is_not_stated(make_info: MakeInfo):
    assert stated_rate_hz(make_info(30, 29.97)) == 29.97
    for unknown in (None, 0.0):
        with pytest.raises(ConfigError, match="states none"):
            stated_rate_hz(make_info(30, frame_rate_hz=unknown))


def test_constant_or_not(make_info: MakeInfo):
    assert has_constant_rate(make_info(100, 29.97, tick_s=0.001), (0, 100))
    gap = make_info(pts_s=np.delete(np.arange(40) / 30, range(5, 25)))
    assert not has_constant_rate(gap, (0, 20))
    assert has_constant_rate(gap, (0, 5))
    assert has_constant_rate(gap, (4, 6))  # two frames are always a line


def test_a_rate_and_a_spread_over_a_gap(make_info: MakeInfo):
    # 0 0.1 0.2 0.3 | 2.0 2.1 2.2 2.3, ends at 2.4
    pts_s = np.array([0.0, 0.1, 0.2, 0.3, 2.0, 2.1, 2.2, 2.3])
    info = make_info(pts_s=pts_s, duration_s=2.4)
    # 0, 0.5, 1, 1.5 (all frame 3 but the first) and 2.0
    assert at_rate(info, 2.0, SamplingSettings(), (0, 8)).tolist() == [0, 3, 4]
    # 0, 0.575, 1.15, 1.725 and 2.3
    assert spread(info, (0, 8), 5).tolist() == [0, 3, 7]
    assert spread(info, (4, 8), 9).tolist() == [4, 5, 6, 7]
