"""The reference's indices and times, from its recorded outputs and from hand counts."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from llava_video.planning.reference_sampling import (
    reference_indices,
    reference_sample,
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
