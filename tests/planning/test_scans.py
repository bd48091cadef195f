"""Where a rule looks, what it keeps, and what it says of that."""

from collections.abc import Callable

import numpy as np
import pytest

from llava_video.planning.scans import (
    dedupe_threshold,
    kept_idxs,
    scan_idxs,
    scan_rate_hz,
    scan_warnings,
    scan_words,
)
from llava_video.planning.settings import SamplingSettings
from llava_video.values import Scan, VideoInfo

MakeInfo = Callable[..., VideoInfo]


def scan_of(idxs: object, changes: object, num_asked: int | None = None) -> Scan:
    idxs = np.asarray(idxs, dtype=np.int64)
    return Scan(
        frame_idxs=idxs,
        changes=np.asarray(changes, dtype=float),
        num_asked=num_asked or len(idxs),
    )


def test_twice_a_second_unless_asked_otherwise(make_info: MakeInfo):
    info = make_info(50, 10.0)  # 5 s
    scene, dedupe = SamplingSettings(rule="scene"), SamplingSettings(rule="dedupe")
    assert scan_idxs(info, scene).tolist() == [*range(0, 50, 5), 49]  # the last one too
    assert scan_idxs(info, dedupe).tolist() == [*range(0, 50, 5)]
    once = SamplingSettings(rule="scene", scan_fps=1.0, start_s=1.0, end_s=3.0)
    assert scan_idxs(info, once).tolist() == [10, 20, 29]


def test_dedupe_looks_at_the_candidates_of_a_rate(make_info: MakeInfo):
    asked = SamplingSettings(rule="dedupe", fps=1.0)
    assert scan_idxs(make_info(50, 10.0), asked).tolist() == [0, 10, 20, 30, 40]
    # A rate says how many frames a scene may have, not how often it looks.
    assert scan_rate_hz(SamplingSettings(rule="scene", fps=1.0)) == 2.0
    assert scan_rate_hz(SamplingSettings(rule="scene", fps=1.0, scan_fps=5.0)) == 5.0


@pytest.mark.parametrize("rule", ["scene", "dedupe"])
def test_a_long_video_is_looked_at_less_often(make_info: MakeInfo, rule: str):
    info = make_info(7200, 1.0)  # two hours
    assert len(scan_idxs(info, SamplingSettings(rule=rule))) == 3600
    few = SamplingSettings(rule=rule, max_scan_frames=3)
    assert scan_idxs(info, few).tolist() == [0, 3599, 7199]  # 7199 / 2 truncated
    assert "(2 per second are 7,200, max_scan_frames is 3)" in scan_words(
        info, few, scan_of([0, 3599, 7199], [np.inf, 0, 0])
    )


def test_a_variable_rate_is_looked_at_by_time(make_info: MakeInfo):
    pts_s = [0, 1, 2, 3, 4, *(4 + np.arange(1, 41) / 40)]  # one a second, then 40: 5 s
    info = make_info(pts_s=pts_s, duration_s=5.025)
    # 0 … 3.5 show frames 0 to 3 (each twice), 4 frame 4, 4.5 frame 24, 5 frame 44.
    assert scan_idxs(info, SamplingSettings(rule="dedupe")).tolist() == [0, 1, 2, 3, 4, 24, 44]


def test_one_frame(make_info: MakeInfo):
    for rule in ("scene", "dedupe"):
        assert scan_idxs(make_info(1, 25.0), SamplingSettings(rule=rule)).tolist() == [0]


def test_equal_frames_are_dropped_at_any_threshold():
    scan = scan_of([3, 6, 9, 12], [np.inf, 0.0, 10.0, 10.5])
    assert kept_idxs(scan, 0.0).tolist() == [3, 9, 12]
    assert kept_idxs(scan, 10.0).tolist() == [3, 12]
    assert kept_idxs(scan, 255.0).tolist() == [3]


def test_the_threshold_is_the_users_or_ten():
    assert dedupe_threshold(SamplingSettings(rule="dedupe")) == 10.0
    assert dedupe_threshold(SamplingSettings(rule="dedupe", dedupe_threshold=0)) == 0


def test_what_was_looked_at_is_said(make_info: MakeInfo):
    info, asked = make_info(50, 10.0), SamplingSettings(rule="dedupe")
    scan = scan_of(range(0, 50, 5), [np.inf, *[0] * 9])
    assert scan_words(info, asked, scan) == (
        "Looked at 10 frames before the plan, at 2 per second: 0.00 s to 4.50 s."
    )
    assert scan_warnings(scan) == ()
    lost = scan_of([0, 5], [np.inf, 9], num_asked=10)
    assert scan_warnings(lost) == ("8 of 10 frames could not be looked at: the data is damaged.",)
