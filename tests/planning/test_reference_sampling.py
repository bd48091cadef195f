"""The reference's indices and times, from its recorded outputs and from hand counts."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from llava_video.errors import ConfigError
from llava_video.planning.reference_sampling import (
    evenly,
    midpoint_indices,
    reference_indices,
    reference_sample,
    sample_by,
    uniform_indices,
)


def test_evenly_spread_indices_are_truncated():
    # 299 / 7 = 42.714: 85.43, 128.14, 170.86 (rounding would give 171), 213.57 (214), 256.29.
    assert uniform_indices(300, 8).tolist() == [0, 42, 85, 128, 170, 213, 256, 299]


def test_rounding_the_indices_would_be_noticed():
    rounded = [round(i * 299 / 7) for i in range(8)]
    assert rounded != uniform_indices(300, 8).tolist()


def test_more_samples_than_frames_repeat_frames():
    # 9 / 19 = 0.47 per sample.
    expected = [i * 9 // 19 for i in range(20)]
    assert uniform_indices(10, 20).tolist() == expected
    assert expected[:5] == [0, 0, 0, 1, 1]


def test_one_sample_is_the_first_frame():
    assert uniform_indices(100, 1).tolist() == [0]


def test_a_rate_takes_every_rth_frame():
    idxs, times_s = reference_sample(300, 30.0, 64, force_sample=False, fps=1)
    assert idxs.tolist() == list(range(0, 300, 30))
    assert times_s.tolist() == [float(second) for second in range(10)]


def test_times_drift_where_the_rate_is_not_whole():
    # r = 30, so the 10th candidate, 270 / 29.97 = 9.009 s, is told as 9.00 s.
    _, times_s = reference_sample(299, 29.97, 64, force_sample=False, fps=1)
    assert times_s[9] == 9.0


def test_other_rates_count_candidates_instead_of_seconds():
    idxs, times_s = reference_sample(300, 30.0, 64, force_sample=False, fps=2)
    assert idxs[:3].tolist() == [0, 15, 30]
    assert times_s[:3].tolist() == [0.0, 1.0, 2.0]


def test_halves_round_to_the_even_number():
    assert reference_indices(60, 12.5, 64, force_sample=False).tolist() == [0, 12, 24, 36, 48]
    half_up = math.floor(12.5 + 0.5)
    assert list(range(0, 60, half_up)) == [0, 13, 26, 39, 52]  # what it must not be


@pytest.mark.parametrize("force_sample", [True, False])
def test_too_many_candidates_are_spread(force_sample: bool):
    idxs, times_s = reference_sample(2000, 12.5, 64, force_sample=force_sample)
    assert idxs[:4].tolist() == [0, 31, 63, 95]  # 1999 / 63 = 31.73
    assert times_s[1] == 31 / 12.5


def test_a_rate_that_rounds_to_zero_is_fixed():
    # The original fails here. Every frame is a candidate; 100 are more than 8.
    assert reference_indices(100, 0.4, 8, force_sample=False).tolist() == [
        0, 14, 28, 42, 56, 70, 84, 99,
    ]  # fmt: skip
    assert reference_indices(5, 0.4, 8, force_sample=False).tolist() == [0, 1, 2, 3, 4]


def test_the_recorded_cases(shared: Path):
    cases = json.loads((shared / "golden/onevision_video/cases/frame_sampling.json").read_text())
    assert len(cases) == 9
    for case in cases:
        total, limit = case["total_frames"], case["max_frames"]
        assert uniform_indices(total, limit).tolist() == case["uniform_indices"]
        idxs, times_s = reference_sample(
            total, case["avg_fps"], limit, case["force_sample"], case["fps"]
        )
        if case.get("error"):
            assert idxs.tolist() == case["uniform_indices"]  # the fix: r = 1
            continue
        assert idxs.tolist() == case["indices"]
        assert ",".join(f"{time_s:.2f}s" for time_s in times_s) == case["frame_time"]
        assert total / case["avg_fps"] == case["video_time"]


def test_shapes_and_kinds():
    idxs, times_s = reference_sample(1, 25.0, 4, force_sample=True)
    assert (idxs.dtype, times_s.dtype) == (np.int64, np.float64)
    assert idxs.tolist() == [0, 0, 0, 0]


# --- the other members


def test_the_recorded_cases_of_next_video(shared: Path):
    cases = json.loads((shared / "golden/family/cases/video_frame_indices.json").read_text())
    assert len(cases) > 5
    for case in cases:
        total, rate_hz = case["total_frames"], case["fps"]
        forced = case["force_sample"]
        idxs, times_s = reference_sample(total, rate_hz, case["limit"], forced)
        assert idxs.tolist() == case["indices"]
        assert ",".join(f"{time_s:.2f}s" for time_s in times_s) == case["frame_time"]
        fps = None if forced else 1.0
        assert sample_by("steps", total, rate_hz, case["limit"], fps)[0].tolist() == case["indices"]


def test_the_recorded_cases_of_mini(shared: Path):
    cases = json.loads((shared / "golden/family/cases/mini_frame_indices.json").read_text())
    assert len(cases) > 5
    for case in cases:
        assert midpoint_indices(case["total"], case["want"]).tolist() == case["indices"]


def test_midpoints_by_hand():
    """Borders 0, 3, 6, 9; of 7 frames in 5 parts 0, 1.2, 2.4, 3.6, 4.8, 6."""
    assert midpoint_indices(10, 3).tolist() == [1, 4, 7]
    assert midpoint_indices(7, 5).tolist() == [0, 1, 3, 4, 5]
    assert midpoint_indices(1, 1).tolist() == [0]
    assert midpoint_indices(6, 2).tolist() == [1, 3]  # 2.5 is 2, the even number


def test_wrong_midpoints_would_be_noticed():
    """Of 5 frames in 8 parts, half a frame each: borders 0, 0, 1, 2, 2, 2, 3, 4, 4."""
    borders = [idx / 2 for idx in range(9)]
    parts = list(itertools.pairwise(borders))
    mutants = {
        "borders cut": [(int(a) + int(b)) // 2 for a, b in parts],
        "borders as they are": [int((a + b) / 2) for a, b in parts],
        "halves up": [(int(a + 0.5) + int(b + 0.5)) // 2 for a, b in parts],
        "of N": [5 * (2 * idx + 1) // 16 for idx in range(8)],
    }
    truth = midpoint_indices(5, 8).tolist()
    assert truth == [0, 0, 1, 2, 2, 2, 3, 4]
    assert [name for name, idxs in mutants.items() if idxs == truth] == []


@pytest.mark.parametrize(
    ("total", "rate_hz", "fps", "count"),
    [
        (100, 25.0, 1.0, 4),
        (99, 25.0, 1.0, 3),  # whole seconds
        (899, 29.97, 1.0, 29),  # 29.997 s, by the true rate
        (900, 29.97, 1.0, 30),
        (100, 25.0, 2.0, 8),
        (24, 25.0, 1.0, 1),  # the original fails: no second is whole
        (10_000, 25.0, 1.0, 64),  # the limit
        (10, 25.0, None, 64),
    ],
)
def test_midpoints_take_one_frame_a_second(total: int, rate_hz: float, fps: float, count: int):
    idxs, times_s = sample_by("midpoints", total, rate_hz, 64, fps)
    assert idxs.tolist() == midpoint_indices(total, count).tolist()
    assert times_s.tolist() == (idxs / rate_hz).tolist()


def test_a_spread_knows_no_rate():
    idxs, times_s = sample_by("spread", 300, 30.0, 8, None)
    assert idxs.tolist() == [0, 42, 85, 128, 170, 213, 256, 299]
    assert times_s[1] == 42 / 30
    with pytest.raises(ConfigError, match="first release spreads its frames and knows no rate"):
        sample_by("spread", 300, 30.0, 8, 1.0)


def test_fewer_frames_are_spread_by_the_same_rule():
    assert evenly("midpoints", 100, 4).tolist() == [12, 37, 62, 86]
    assert evenly("spread", 100, 4).tolist() == evenly("steps", 100, 4).tolist() == [0, 33, 66, 99]
