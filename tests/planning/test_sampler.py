"""Frames and times: sorted, distinct, inside the span, ends included, as the reference chooses."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.errors import ConfigError, DecodeError
from llava_video.planning.moments import video_end_s
from llava_video.planning.sampler import sample_frames, thin
from llava_video.planning.settings import SamplingSettings
from llava_video.values import VideoInfo

MakeInfo = Callable[..., VideoInfo]


def idxs_of(info: VideoInfo, max_frames: int = 64, **knobs: object) -> list[int]:
    return list(sample_frames(info, SamplingSettings(**knobs), max_frames=max_frames).frame_idxs)


def slow_then_fast(make_info: MakeInfo) -> VideoInfo:
    """Ten frames a second apart, then 90 frames at 30 per second: 12.97 s."""
    pts_s = [*range(10), *(10 + np.arange(90) / 30)]
    return make_info(pts_s=pts_s, duration_s=13.0)


def test_evenly_spread_over_a_constant_rate(make_info: MakeInfo):
    # 299 / 7 = 42.714 frames apart, truncated.
    sample = sample_frames(make_info(), SamplingSettings(num_frames=8), max_frames=64)
    assert sample.frame_idxs == (0, 42, 85, 128, 170, 213, 256, 299)
    assert [f"{time_s:.2f}" for time_s in sample.times_s[:4]] == ["0.00", "1.40", "2.83", "4.27"]
    assert sample.duration_s == 10.0
    assert sample.warnings == ()
    assert "8 of the video's 300 frames" in sample.reasons[0]


@pytest.mark.parametrize("rate_hz", [30.0, 29.97, 24000 / 1001, 12.5, 60.0])
@pytest.mark.parametrize("ticks_hz", [90000, 1000, 600, None])
def test_the_references_choice_on_a_constant_rate(
    make_info: MakeInfo, rate_hz: float, ticks_hz: int | None
):
    """Also where pts are rounded to milliseconds, and where one frame is one tick."""
    rng = np.random.default_rng(7)
    for total in [*range(1, 70), *rng.integers(70, 2001, 60)]:
        tick_s = 1 / (ticks_hz or rate_hz)
        info = make_info(int(total), rate_hz, tick_s=tick_s)
        for wanted in {1, 2, 3, 63, 64, *rng.integers(1, 65, 4)}:
            expected = np.linspace(0, total - 1, wanted, dtype=int)
            assert idxs_of(info, num_frames=int(wanted)) == sorted(set(expected.tolist()))


def test_rounding_instead_of_truncating_would_be_noticed(make_info: MakeInfo):
    rounded = np.round(np.linspace(0, 299, 8)).astype(int).tolist()
    floored = [i * 300 // 8 for i in range(8)]  # never reaches the last frame
    assert idxs_of(make_info(), num_frames=8) not in (rounded, floored)


def test_evenly_spread_over_time_on_a_variable_rate(make_info: MakeInfo):
    info = slow_then_fast(make_info)
    # 12.967 / 4 = 3.242 s apart: 0, 3.24, 6.48, 9.72, 12.97 show frames 0, 3, 6, 9 and the last.
    assert idxs_of(info, num_frames=5) == [0, 3, 6, 9, 99]
    by_index = np.linspace(0, 99, 5, dtype=int).tolist()
    assert by_index == [0, 24, 49, 74, 99]  # 11.5 s between the first two


def test_no_frame_twice_on_a_variable_rate(make_info: MakeInfo):
    info = slow_then_fast(make_info)
    sample = sample_frames(info, SamplingSettings(num_frames=60), max_frames=64)
    assert len(set(sample.frame_idxs)) == sample.num_frames < 60
    assert "60 moments were asked for" in sample.warnings[0]
    assert sample.frame_idxs[-1] == 99


def test_a_missing_frame_is_no_constant_rate(make_info: MakeInfo):
    pts_s = np.delete(np.arange(40) / 30, range(5, 25))
    info = make_info(pts_s=pts_s, tick_s=1 / 30, duration_s=40 / 30)
    # Middle of 0 … 39/30 s is 0.65 s; frame 4 (0.13 s) is still on screen then.
    assert idxs_of(info, num_frames=3) == [0, 4, 19]


def test_a_coarse_tick_does_not_hide_missing_frames(make_info: MakeInfo):
    """Ticks 0 1 2 5 6 7: at most 0.8 off the line, which is within a tick, but not constant."""
    info = make_info(pts_s=np.array([0, 1, 2, 5, 6, 7]) / 30, tick_s=1 / 30, duration_s=8 / 30)
    # Ticks 0, 2.33, 4.67 and 7, half a tick later: 2.83 shows tick 2, 5.17 shows tick 5.
    assert idxs_of(info, num_frames=4) == [0, 2, 3, 5]
    assert np.linspace(0, 5, 4, dtype=int).tolist() == [0, 1, 3, 5]  # over indices


def test_short_videos_give_all_they_have(make_info: MakeInfo):
    info = make_info(10, 25.0)
    sample = sample_frames(info, SamplingSettings(num_frames=64), max_frames=64)
    assert sample.frame_idxs == tuple(range(10))
    assert sample.warnings == ("64 frames were asked for, there are 10: all are used.",)
    assert sample_frames(info, SamplingSettings(), max_frames=64).warnings == ()


def test_one_frame(make_info: MakeInfo):
    for info in (make_info(1, 25.0), make_info(1, 25.0, duration_s=None, frame_rate_hz=None)):
        for knobs in ({}, {"num_frames": 8}, {"fps": 5.0}, {"times_s": (0.0,)}):
            assert idxs_of(info, **knobs) == [0]


def test_no_frame(make_info: MakeInfo):
    with pytest.raises(DecodeError, match="no frames"):
        idxs_of(make_info(pts_s=[]))


def test_caps(make_info: MakeInfo):
    info = make_info()
    assert len(idxs_of(info)) == 64
    assert len(idxs_of(info, max_frames=32)) == 32
    assert len(idxs_of(info, num_frames=100)) == 100  # a wish lifts the model's cap
    sample = sample_frames(info, SamplingSettings(num_frames=100, max_frames=80), max_frames=64)
    assert sample.num_frames == 80
    assert sample.warnings == ()


def test_a_rate(make_info: MakeInfo):
    info = make_info()
    assert idxs_of(info, fps=1.0) == list(range(0, 300, 30))
    assert idxs_of(info, fps=2.0) == list(range(0, 300, 15))
    assert idxs_of(info, fps=1.0, start_s=2.0, end_s=5.0) == [60, 90, 120]
    assert idxs_of(info, fps=0.01) == [0]


def test_a_rate_keeps_true_times(make_info: MakeInfo):
    """At 29.97 per second the reference's times drift by 1 ms a second; pts do not."""
    info = make_info(3000, 30000 / 1001)
    sample = sample_frames(info, SamplingSettings(fps=1.0), max_frames=1000)
    assert np.abs(np.asarray(sample.times_s) - np.arange(101)).max() < 1 / 29
    assert sample.times_s == tuple(info.pts_s[list(sample.frame_idxs)].tolist())
    assert max(abs(i * 30 * 1001 / 30000 - i) for i in range(100)) > 1 / 29  # the reference


def test_a_rate_over_the_cap_is_spread(make_info: MakeInfo):
    info = make_info(3000)
    sample = sample_frames(info, SamplingSettings(fps=1.0), max_frames=64)
    assert sample.frame_idxs == tuple(np.linspace(0, 2999, 64, dtype=int).tolist())
    assert "1 per second are 100, the limit is 64" in sample.reasons[0]


def test_a_rate_above_the_videos_own(make_info: MakeInfo):
    info = make_info(20)
    sample = sample_frames(info, SamplingSettings(fps=120.0), max_frames=64)
    assert sample.frame_idxs == tuple(range(20))
    assert "120 frames per second were asked for" in sample.warnings[0]
    assert sample_frames(info, SamplingSettings(fps=30.0), max_frames=64).warnings == ()


def test_rate_and_number_combine(make_info: MakeInfo):
    info = make_info()
    assert len(idxs_of(info, fps=1.0, num_frames=4)) == 4
    sample = sample_frames(info, SamplingSettings(fps=1.0, num_frames=50), max_frames=64)
    assert sample.num_frames == 10
    assert sample.warnings


def test_spans(make_info: MakeInfo):
    info = make_info()
    assert idxs_of(info, 1000, start_s=1.0, end_s=2.0) == list(range(30, 60))
    # At 1.01 s frame 30 (1.000 s) is on screen.
    assert idxs_of(info, 1000, start_s=1.01, end_s=1.05) == [30, 31]
    assert idxs_of(info, 1000, start_s=1.01, end_s=1.02) == [30]
    assert idxs_of(info, 1000, start_s=9.99) == [299]
    assert idxs_of(info, 2, start_s=1.0, end_s=2.0) == [30, 59]


def test_a_span_beyond_the_end_is_cut_and_said(make_info: MakeInfo):
    sample = sample_frames(make_info(), SamplingSettings(start_s=9.0, end_s=60.0), max_frames=64)
    assert sample.frame_idxs == tuple(range(270, 300))
    assert sample.warnings == ("The span ends at 60 s, the video already at 10.00 s.",)


@pytest.mark.parametrize("start_s", [10.0, 10.5, 1e9])
def test_a_span_outside_the_video(make_info: MakeInfo, start_s: float):
    with pytest.raises(ConfigError, match=r"the video ends at 10\.00 s.*a time before 10\.00"):
        idxs_of(make_info(), start_s=start_s)


def test_explicit_times(make_info: MakeInfo):
    info = make_info()
    assert idxs_of(info, times_s=(2.5, 0.0, 1.01)) == [0, 30, 75]
    sample = sample_frames(info, SamplingSettings(times_s=(1.0, 1.001, 2.0)), max_frames=1)
    assert sample.frame_idxs == (30, 60)  # the model's own cap does not touch named moments
    assert sample.warnings == ("3 times were given, they show 2 different frames.",)
    assert sample.times_s == tuple(info.pts_s[[30, 60]].tolist())
    capped = SamplingSettings(times_s=tuple(float(t) for t in range(10)), max_frames=4)
    assert sample_frames(info, capped, max_frames=64).frame_idxs == (0, 90, 180, 270)


@pytest.mark.parametrize(
    "knobs",
    [
        {"times_s": (1.0, 10.0)},
        {"times_s": (1.0,), "start_s": 2.0},
        {"times_s": (3.0,), "end_s": 3.0},
    ],
)
def test_explicit_times_outside(make_info: MakeInfo, knobs: dict):
    with pytest.raises(ConfigError, match=r"the times name .* outside"):
        idxs_of(make_info(), **knobs)


def test_half_a_tick_of_grace(make_info: MakeInfo):
    info = make_info(tick_s=0.001)  # pts 0.033, 0.067, 0.1
    assert idxs_of(info, times_s=(0.0664,)) == [1]
    assert idxs_of(info, times_s=(0.0666,)) == [2]
    assert info.frame_idxs_at([-1.0, 0.0, 99.0]).tolist() == [0, 0, 299]


def test_reference_times_and_repeats(make_info: MakeInfo):
    info = make_info(10, 25.0, size_px=(9, 9))
    sample = sample_frames(info, SamplingSettings(compat="reference"), max_frames=64)
    expected = [i * 9 // 63 for i in range(64)]
    assert list(sample.frame_idxs) == expected
    assert list(sample.times_s) == [idx / 25.0 for idx in expected]
    assert sample.duration_s == 0.4


def test_reference_rates(make_info: MakeInfo):
    info = make_info(299, 29.97)
    asked = SamplingSettings(compat="reference", fps=1.0)
    sample = sample_frames(info, asked, max_frames=64)
    assert sample.frame_idxs == tuple(range(0, 299, 30))
    assert sample.times_s == tuple(float(second) for second in range(10))  # told, not true
    thinned = thin(sample, 4)
    assert thinned.frame_idxs == (0, 99, 198, 298)
    assert thinned.times_s == tuple(idx / 29.97 for idx in (0, 99, 198, 298))


def test_reference_spans_count_from_the_file(make_info: MakeInfo):
    asked = SamplingSettings(compat="reference", start_s=2.0, end_s=4.0, num_frames=3)
    sample = sample_frames(make_info(), asked, max_frames=64)
    assert sample.frame_idxs == (60, 89, 119)
    assert sample.times_s == pytest.approx((60 / 30, 89 / 30, 119 / 30))


def test_the_reference_needs_a_rate(make_info: MakeInfo):
    with pytest.raises(ConfigError, match="states none"):
        idxs_of(make_info(frame_rate_hz=None), compat="reference")


def test_a_models_own_rate(make_info: MakeInfo):
    """One frame a second of ten; less than a second is one frame; a wish is a wish."""

    def idxs(info: VideoInfo, **knobs: object) -> tuple[int, ...]:
        return sample_frames(info, SamplingSettings(**knobs), max_frames=64, fps=1.0).frame_idxs

    assert idxs(make_info()) == tuple(range(0, 300, 30))
    assert idxs(make_info(20)) == (0,)
    assert idxs(make_info(), max_frames=3) == (0, 149, 299)
    assert idxs(make_info(), num_frames=2) == (0, 299)
    assert idxs(make_info(), fps=0.5) == tuple(range(0, 300, 60))
    assert idxs(make_info(), times_s=(0.5, 9.0)) == (15, 270)
    assert len(idxs(make_info(30 * 100))) == 64  # of 100 seconds


def test_a_models_own_rate_was_not_asked_for(make_info: MakeInfo):
    """Frames every 5 s are fewer than one a second: a warning only where a user wanted them."""
    slow = make_info(10, 0.2)
    own = sample_frames(slow, SamplingSettings(), max_frames=64, fps=1.0)
    asked = sample_frames(slow, SamplingSettings(fps=1.0), max_frames=64)
    assert own.frame_idxs == asked.frame_idxs == tuple(range(10))
    assert own.warnings == ()
    assert "frames per second were asked for, there are fewer" in asked.warnings[0]


def test_the_references_of_the_family(make_info: MakeInfo):
    info = make_info(100, 25.0)
    reference = SamplingSettings(compat="reference")

    def idxs(rule: str, fps: float | None = None, sampling: SamplingSettings = reference) -> list:
        sample = sample_frames(info, sampling, max_frames=8, fps=fps, reference_rule=rule)
        assert sample.times_s == tuple(idx / 25 for idx in sample.frame_idxs)
        return list(sample.frame_idxs)

    assert idxs("midpoints", 1.0) == [12, 37, 62, 86]
    assert idxs("spread") == [0, 14, 28, 42, 56, 70, 84, 99]  # 99 / 7 = 14.14
    four = replace(reference, num_frames=4)
    assert idxs("midpoints", 1.0, four) == [12, 37, 62, 86]
    assert idxs("spread", sampling=four) == [0, 33, 66, 99]
    with pytest.raises(ConfigError, match="knows no rate"):
        idxs("spread", sampling=replace(reference, fps=1.0))


def test_midpoints_are_thinned_to_midpoints(make_info: MakeInfo):
    whole = sample_frames(
        make_info(100, 25.0),
        SamplingSettings(compat="reference", num_frames=8),
        max_frames=64,
        reference_rule="midpoints",
    )
    thinned = thin(whole, 4)
    assert thinned.frame_idxs == (12, 37, 62, 86)
    assert thinned.times_s == (0.48, 1.48, 2.48, 3.44)


def test_thinning(make_info: MakeInfo):
    info = make_info()
    sample = sample_frames(info, SamplingSettings(), max_frames=64)
    assert thin(sample, 64) is sample
    assert thin(sample, 99) is sample
    # Chosen anew: 8 of 300, not 8 of the 64.
    assert thin(sample, 8).frame_idxs == (0, 42, 85, 128, 170, 213, 256, 299)
    named = sample_frames(info, SamplingSettings(times_s=(1.0, 2.0, 3.0, 7.0)), max_frames=64)
    assert thin(named, 2).frame_idxs == (30, 210)
    with pytest.raises(ConfigError, match="num_frames = 0"):
        thin(sample, 0)


@st.composite
def pts(draw: st.DrawFn) -> tuple[list[float], float]:
    """Draw timestamps and their tick: constant, jittering, or with long gaps."""
    tick_s = draw(st.sampled_from([1 / 90000, 0.001, 1 / 600, 1 / 25]))
    gaps = draw(st.lists(st.integers(1, draw(st.sampled_from([1, 2, 400]))), max_size=200))
    return np.cumsum([0, *gaps]).astype(float) * tick_s, tick_s


@settings(max_examples=300)
@given(
    pts=pts(),
    start=st.floats(0, 0.99),
    length=st.floats(0.01, 2),
    fps=st.none() | st.floats(0.05, 500),
    num_frames=st.none() | st.integers(1, 80),
    cap=st.none() | st.integers(1, 80),
    fewer=st.integers(1, 80),
)
def test_every_sample_is_sorted_distinct_and_inside(
    make_info: MakeInfo, pts, start, length, fps, num_frames, cap, fewer
):
    pts_s, tick_s = pts
    info = make_info(pts_s=pts_s, tick_s=tick_s, duration_s=None)
    end_s = video_end_s(info)
    asked = SamplingSettings(
        fps=fps,
        num_frames=num_frames,
        max_frames=cap,
        start_s=start * end_s,
        end_s=(start + length) * end_s,
    )
    sample = sample_frames(info, asked, max_frames=64)
    shown_first = int(info.frame_idxs_at([asked.start_s])[0])
    inside = [
        idx
        for idx in range(info.num_frames)
        if asked.start_s <= pts_s[idx] < asked.end_s - 2e-6 or idx == shown_first
    ]
    for chosen in (sample, thin(sample, fewer)):
        idxs = list(chosen.frame_idxs)
        assert idxs == sorted(set(idxs))
        assert 1 <= len(idxs) <= min(cap or 80, num_frames or max(64, cap or 0))
        assert idxs[0] == shown_first
        assert set(idxs) <= {*inside, shown_first}
        assert list(chosen.times_s) == [pts_s[idx] for idx in idxs]
        assert info.frame_idxs_at(chosen.times_s).tolist() == idxs
    assert thin(sample, fewer).num_frames == min(fewer, sample.num_frames)
    if fps is None and sample.num_frames > 1:
        assert sample.frame_idxs[-1] == inside[-1]


@settings(max_examples=300)
@given(pts=pts(), fps=st.floats(0.05, 500), start=st.floats(0, 0.9))
def test_a_rate_by_its_definition(make_info: MakeInfo, pts, fps: float, start: float):
    """The frames on screen at start + k / fps, asked moment by moment."""
    pts_s, tick_s = pts
    info = make_info(pts_s=pts_s, tick_s=tick_s, duration_s=None)
    end_s = video_end_s(info)
    start_s = start * end_s
    moments_s = start_s + np.arange(int(np.ceil((end_s - start_s) * fps))) / fps
    moments_s = moments_s[moments_s < end_s - 1e-6]
    edges_s = np.abs(moments_s[:, None] - (info.pts_s - tick_s / 2)[None]).min(initial=1.0)
    if len(moments_s) and edges_s > 1e-9:  # a moment on an edge may fall to either side
        shown = np.unique(info.frame_idxs_at(moments_s))
        assert idxs_of(info, 10**6, fps=fps, start_s=start_s) == shown.tolist()
