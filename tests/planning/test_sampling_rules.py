"""What every rule promises, over made-up timestamps and scans; and what each says of itself."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava_video.errors import ConfigError
from llava_video.planning.moments import video_end_s
from llava_video.planning.sampler import Sample, sample_frames, thin
from llava_video.planning.scans import scan_idxs
from llava_video.planning.settings import Rule, SamplingSettings
from llava_video.values import Scan, Segment, VideoInfo

MakeInfo = Callable[..., VideoInfo]
RULES: tuple[Rule, ...] = ("uniform", "keyframe", "scene", "dedupe")


def scan_of(info: VideoInfo, asked: SamplingSettings, changes: list[float]) -> Scan | None:
    """Look where the rule says, and see these changes, over and over."""
    if not asked.needs_scan:
        return None
    idxs = scan_idxs(info, asked)
    levels = np.resize(np.asarray(changes, dtype=float), len(idxs))
    levels[0] = np.inf
    return Scan(frame_idxs=idxs, changes=levels, num_asked=len(idxs))


def sample_by(info: VideoInfo, changes: list[float], **knobs: object) -> Sample:
    """Sample for a model whose own cap is 64."""
    asked = SamplingSettings(**knobs)
    return sample_frames(info, asked, max_frames=64, scan=scan_of(info, asked, changes))


@st.composite
def videos(draw: st.DrawFn) -> dict:
    """Draw pts of constant, variable or broken rates with keyframes: one frame, two, or many."""
    tick_s = draw(st.sampled_from([1 / 90000, 0.001, 1 / 600, 1 / 25]))
    size = draw(st.sampled_from([0, 1, 30, 300]))
    gaps = draw(st.lists(st.integers(1, draw(st.sampled_from([1, 2, 40, 9000]))), max_size=size))
    pts_s = np.cumsum([0, *gaps]).astype(float) * tick_s
    every = draw(st.integers(1, 100))
    keys = draw(st.sampled_from([(), tuple(range(0, len(pts_s), every))]))
    return {"pts_s": pts_s, "tick_s": tick_s, "duration_s": None, "keyframe_idxs": keys}


KNOBS = {
    "rule": st.sampled_from(RULES),
    "fps": st.none() | st.floats(0.05, 500),
    "num_frames": st.none() | st.integers(1, 80),
    "max_frames": st.none() | st.integers(1, 80),
}


@settings(max_examples=400)
@given(
    video=videos(),
    knobs=st.fixed_dictionaries(KNOBS),
    changes=st.lists(st.sampled_from([0.0, 2.0, 9.0, 22.0, 70.0]), min_size=1, max_size=40),
    start=st.floats(0, 0.99),
    length=st.floats(0.01, 2),
    fewer=st.integers(1, 80),
)
def test_every_rule_is_sound(make_info: MakeInfo, video, knobs, changes, start, length, fewer):
    info = make_info(**video)
    end_s = video_end_s(info)
    span_s = {"start_s": start * end_s, "end_s": (start + length) * end_s}
    asked = {**knobs, **span_s, "max_scan_frames": 50 if knobs["rule"] in RULES[2:] else None}
    sample = sample_by(info, changes, **asked)
    first = int(info.frame_idxs_at([span_s["start_s"]])[0])
    inside = {
        first,
        *np.flatnonzero((info.pts_s >= span_s["start_s"]) & (info.pts_s < span_s["end_s"])),
    }
    cap = min(knobs["max_frames"] or 80, knobs["num_frames"] or max(64, knobs["max_frames"] or 0))
    for chosen in (sample, thin(sample, fewer)):
        idxs = list(chosen.frame_idxs)
        assert idxs == sorted(set(idxs))
        assert 1 <= len(idxs) <= cap
        assert set(idxs) <= inside
        assert list(chosen.times_s) == info.pts_s[idxs].tolist()
    # The budget's choice has exactly as many as it was given room for.
    assert thin(sample, fewer).num_frames == min(fewer, sample.num_frames)
    assert sample == sample_by(info, changes, **asked)  # the same again
    if knobs["rule"] in ("uniform", "dedupe"):  # these promise the first frame
        assert sample.frame_idxs[0] == thin(sample, fewer).frame_idxs[0] == first
    if knobs["rule"] == "keyframe" and inside & set(info.keyframe_idxs):
        assert set(sample.frame_idxs) <= set(info.keyframe_idxs)


@settings(max_examples=200)
@given(
    video=videos(),
    rule=st.sampled_from(["scene", "dedupe"]),
    cap=st.integers(1, 80),
    changes=st.lists(st.sampled_from([0.0, 9.0, 22.0, 70.0]), min_size=1, max_size=40),
)
def test_a_larger_cap_never_gives_fewer_frames(make_info: MakeInfo, video, rule, cap, changes):
    info = make_info(**video)
    fewer = sample_by(info, changes, rule=rule, max_frames=cap)
    more = sample_by(info, changes, rule=rule, max_frames=cap + 1)
    assert fewer.num_frames <= more.num_frames <= fewer.num_frames + 1
    # The budget, which thins what a cap of 64 gave, takes what a smaller cap would have given.
    if rule == "scene":
        assert thin(more, fewer.num_frames).frame_idxs == fewer.frame_idxs


@settings(max_examples=200)
@given(video=videos(), cap=st.integers(1, 40), num_cuts=st.integers(0, 20))
def test_every_shot_is_shown_while_the_cap_allows(make_info: MakeInfo, video, cap, num_cuts):
    info = make_info(**video)
    changes = [0.0, *([70.0, 0.0, 0.0] * num_cuts), *[0.0] * 4000]
    sample = sample_by(info, changes, rule="scene", max_frames=cap)
    shown = sum(
        any(shot.first_idx <= idx < shot.stop_idx for idx in sample.frame_idxs)
        for shot in sample.shots
    )
    assert shown == min(cap, len(sample.shots))


@settings(max_examples=100)
@given(video=videos(), changes=st.lists(st.sampled_from([0.0, 5.0, 11.0]), min_size=2, max_size=40))
def test_dedupe_keeps_what_changed_and_nothing_else(make_info: MakeInfo, video, changes):
    info = make_info(**video)
    asked = SamplingSettings(rule="dedupe", max_frames=10_000)
    scan = scan_of(info, asked, changes)
    assert scan is not None
    sample = sample_frames(info, asked, max_frames=1, scan=scan)
    pairs = zip(scan.frame_idxs.tolist(), scan.changes.tolist(), strict=True)
    assert list(sample.frame_idxs) == [idx for idx, change in pairs if change > 10]


def test_evenly_numbered_frames_of_a_scene_would_lose_a_shot(make_info: MakeInfo):
    """Thinned to its shots, each still has a frame; every k-th frame would miss the short one."""
    info = make_info(600, 30.0)  # 20 s, looked at 41 times
    changes = [0.0] * 41
    changes[30] = changes[32] = 70.0  # 15 s, 1 s and 4 s
    sample = sample_by(info, changes, rule="scene", num_frames=40)
    three = thin(sample, 3).frame_idxs
    starts = [shot.first_idx for shot in sample.shots]
    assert starts == [0, 450, 480]
    assert [sum(idx >= start for start in starts) for idx in three] == [1, 2, 3]
    kept = [sample.frame_idxs[k] for k in np.linspace(0, 39, 3, dtype=int)]
    assert [sum(idx >= start for start in starts) for idx in kept] == [1, 1, 3]


def test_a_rate_says_how_many_frames_a_scene_has(make_info: MakeInfo):
    info = make_info(600, 30.0)
    still, cuts = [0.0], [0.0] * 10 + [70.0]
    assert sample_by(info, still, rule="scene", fps=0.5).num_frames == 10
    assert sample_by(info, still, rule="scene", fps=10.0).num_frames == 64  # the cap
    assert sample_by(info, cuts, rule="scene", fps=0.1).num_frames == 4  # 2 by rate, but 4 shots
    assert sample_by(info, cuts, rule="scene", fps=0.1, max_frames=3).num_frames == 3


def test_a_rate_moved_to_keyframes(make_info: MakeInfo):
    info = make_info(300, 30.0, keyframe_idxs=(0, 100, 200))
    sample = sample_by(info, [], rule="keyframe", fps=1.0)
    assert sample.frame_idxs == (0, 100, 200)
    # 0 30 60 | 90 … 150 | 180 … 270: at most 70 frames, at 270; the sum is 300 over ten.
    shifts = [0, 30, 40, 10, 20, 50, 20, 10, 40, 70]
    assert sample.reasons[0].startswith("10 of the video's 300 frames, at 1 per second")
    assert sample.reasons[1].startswith(
        f"3 of the video's 300 frames, moved to the nearest keyframes, by {max(shifts) / 30:.2f} s "
        f"at most and {sum(shifts) / 300:.2f} s on average"
    )
    assert "10 moments lie nearest to 3 keyframes" in sample.warnings[0]
    capped = sample_by(info, [], rule="keyframe", fps=1.0, max_frames=4)
    assert "1 per second are 10, the limit is 4" in capped.reasons[0]


def test_without_a_keyframe_frames_stay_and_it_is_said(make_info: MakeInfo):
    unknown = sample_by(make_info(), [], rule="keyframe", num_frames=5)
    assert unknown.frame_idxs == sample_by(make_info(), [], num_frames=5).frame_idxs
    assert "The video has no known keyframe" in unknown.warnings[0]
    info = make_info(keyframe_idxs=(0,))
    late = sample_by(info, [], rule="keyframe", num_frames=5, start_s=2.0)
    assert late.num_frames == 5
    assert "The span holds no known keyframe" in late.warnings[0]
    assert sample_by(info, [], rule="keyframe", num_frames=5).frame_idxs == (0,)


def test_a_wish_that_cannot_be_had_is_said(make_info: MakeInfo):
    info = make_info(60, 30.0)  # looked at 0, 15, 30, 45 and 59
    scene = sample_by(info, [0.0, 0.0, 70.0], rule="scene", num_frames=60)
    assert scene.num_frames == 16 + 30  # 16 … 29 may be of either
    assert scene.warnings == ("60 frames were asked for, the shots have 46.",)
    same = sample_by(info, [0.0], rule="dedupe", num_frames=8)
    assert same.frame_idxs == (0,)
    assert same.warnings == ("8 frames were asked for, 1 of those looked at differ.",)


def test_a_rule_by_pixels_without_a_scan_is_refused(make_info: MakeInfo):
    for rule in ("scene", "dedupe"):
        with pytest.raises(ConfigError, match="scan the video first"):
            sample_frames(make_info(), SamplingSettings(rule=rule), max_frames=8)


def test_an_own_sampler_is_told_the_span_and_the_limit(make_info: MakeInfo):
    told: list[tuple[Segment, int]] = []

    class Ends:
        def __call__(self, info: VideoInfo, *, span: Segment, max_frames: int) -> list[float]:
            told.append((span, max_frames))
            return [span.end_s - 0.01, span.start_s]

    sample = sample_by(make_info(), [], rule=Ends(), start_s=2.0, end_s=4.0, num_frames=9)
    assert told == [(Segment(2.0, 4.0), 9)]
    assert sample.frame_idxs == (60, 119)
    assert "2 of the span's 60 frames, chosen by Ends" in sample.reasons[0]


def test_an_own_sampler_is_capped_and_repeats_are_dropped(make_info: MakeInfo):
    def seconds(info: VideoInfo, *, span: Segment, max_frames: int) -> np.ndarray:
        return np.repeat(np.arange(10.0), 2)

    sample = sample_by(make_info(), [], rule=seconds, max_frames=4)
    assert sample.frame_idxs == (0, 90, 180, 270)
    assert "10 frames are more than the limit: 4 are kept." in sample.reasons
    assert "show 10 different frames" in sample.warnings[0]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ([], "returned"),
        ([1.0, float("nan")], "returned"),
        (["soon"], "returned"),
        (None, "returned"),
        ([[1.0], [2.0]], "returned"),
        ([10.0], "outside"),
        ([-0.1], "outside"),
    ],
)
def test_what_an_own_sampler_may_not_return(make_info: MakeInfo, returned: object, words: str):
    with pytest.raises(ConfigError, match=words) as refusal:
        sample_by(make_info(), [], rule=lambda info, *, span, max_frames: returned)
    assert refusal.value.hint
