"""A plan fits, is counted as built, keeps what is pinned, and says what it gave up."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llava_video.errors import BudgetError, ConfigError, DecodeError, LlavaVideoError
from llava_video.planning.geometry import Geometry
from llava_video.planning.planner import ImageItem, Item, VideoItem, plan_request
from llava_video.planning.settings import PlanningSettings, SamplingSettings
from llava_video.planning.time_note import time_note
from llava_video.values import Grid, Newline, Plan, VideoInfo, VisualPlan

MakeInfo = Callable[..., VideoInfo]


def recount(visual: VisualPlan) -> int:
    """Count a visual's rows frame by frame, from what the plan says of its maps."""
    total = 0
    for idx in range(len(visual.frame_idxs)):
        rows, cols = visual.map_size
        if visual.slow_every and idx % visual.slow_every:
            rows = cols = visual.fast_side
        if visual.overview:
            total += visual.overview_side * visual.overview_side
        total += sum(cols + (visual.newline == "row") for _ in range(rows))
        total += (visual.newline == "frame") + (visual.slow_every > 0)
    return total + (visual.newline == "clip")


# --- one video, by hand


def test_the_trained_layout_is_the_default(make_info: MakeInfo, plan_one: Callable):
    plan = plan_one(make_info())
    (visual,) = plan.visuals
    assert (visual.kind, visual.source, visual.num_frames) == ("video", "clip.mp4", 64)
    assert (visual.grid, visual.overview, visual.pool_stride) == (Grid(1, 1), False, 2)
    assert plan.visual_tokens == 13440
    assert plan.warnings == ()
    assert visual.times_s == tuple(make_info().pts_s[list(visual.frame_idxs)].tolist())
    assert (visual.duration_s, visual.note_every) == (10.0, 1)


def test_the_prompt_holds_the_sentence_that_was_counted(
    make_info: MakeInfo, plan_one: Callable, text_of: Callable
):
    plan = plan_one(make_info())
    note = time_note(plan.visuals[0])
    assert (plan.prompt, plan.text_tokens) == text_of([note])
    assert note.sentence() in plan.prompt
    assert plan.prompt.endswith("What happens here?<|im_end|>\n<|im_start|>assistant\n")


def test_one_vision(make_info: MakeInfo, plan_one: Callable, one_vision: Geometry):
    plan = plan_one(make_info(), model=one_vision)
    assert plan.visual_tokens == 6273
    assert "The video lasts" not in plan.prompt
    assert plan.visuals[0].note_every == 0
    told = plan_one(make_info(), model=one_vision, time_instruction=True)
    assert "32 frames are uniformly sampled" in told.prompt


def test_times_can_be_left_out(make_info: MakeInfo, plan_one: Callable):
    plan = plan_one(make_info(), time_instruction=False)
    assert "The video lasts" not in plan.prompt
    assert time_note(plan.visuals[0]) is None


def test_detail(make_info: MakeInfo, plan_one: Callable):
    info = make_info(size_px=(1080, 1920))
    eight = SamplingSettings(num_frames=8)
    by_detail = {
        detail: plan_one(info, sampling=eight, detail=detail).visual_tokens
        for detail in ("low", "medium", "high")
    }
    assert by_detail == {"low": 8 * 56, "medium": 8 * 210, "high": 8 * 2818}
    assert by_detail["high"] == plan_one(info, sampling=eight, grid="auto").visual_tokens
    small = plan_one(make_info(size_px=(240, 320)), detail="high")
    assert small.visuals[0].grid == Grid(1, 1)
    assert "One tile holds all of so small a frame." in small.reasons


def test_sacrifices_stand_in_the_plan(make_info: MakeInfo, plan_one: Callable):
    info = make_info(size_px=(1080, 1920))
    plan = plan_one(info, grid="auto", max_video_tokens=2000)
    words = [reason.split(":")[0] for reason in plan.reasons[1:]]
    assert words == ["Grid 3 x 5 tiles → one tile", "Pool stride 2 → 4", "Frames 64 → 35"]
    assert plan.visual_tokens == 35 * 56
    assert plan.budget_tokens == 2000


def test_position_scale_is_said(make_info: MakeInfo, plan_one: Callable):
    long = make_info(300_000)
    asked = SamplingSettings(fps=1.0, max_frames=1000)
    plain = plan_one(long, sampling=asked, pool_stride=2)
    stretched = plan_one(long, sampling=asked, pool_stride=2, position_scale=4.0)
    assert stretched.visuals[0].num_frames > 3 * plain.visuals[0].num_frames
    assert stretched.tokens + 512 <= 4 * 32768
    assert any("Positions are divided by 4" in reason for reason in stretched.reasons)


def test_memory_counts_every_position(make_info: MakeInfo, plan_one: Callable):
    plan = plan_one(make_info())
    assert plan.memory.kv_bytes == (plan.tokens + plan.max_new_tokens) * 57_344


def test_the_reference_keeps_its_repeats(make_info: MakeInfo, plan_one: Callable):
    plan = plan_one(make_info(10, 25.0), sampling=SamplingSettings(compat="reference"))
    (visual,) = plan.visuals
    assert visual.num_frames == 64
    assert visual.frame_idxs[:8] == (0, 0, 0, 0, 0, 0, 0, 1)
    assert visual.duration_s == 0.4
    assert "The video lasts for 0.40 seconds, and 64 frames" in plan.prompt


def test_errors_of_the_video_come_through(make_info: MakeInfo, plan_one: Callable):
    with pytest.raises(DecodeError):
        plan_one(make_info(pts_s=[]))
    with pytest.raises(ConfigError, match="the span starts at 60 s"):
        plan_one(make_info(), sampling=SamplingSettings(start_s=60.0))
    with pytest.raises(ConfigError, match="pool_stride = 28"):
        plan_one(make_info(), pool_stride=28)


# --- several visuals, and none


def plan_items(items: list[Item], geometry: Geometry, text_of: Callable, **knobs: object) -> Plan:
    return plan_request(items, geometry, PlanningSettings(**knobs), SamplingSettings(), text_of)


def test_text_alone(geometry: Geometry, text_of: Callable):
    plan = plan_items([], geometry, text_of)
    assert plan.visuals == ()
    assert plan.tokens == plan.text_tokens == text_of([])[1]


def test_one_picture_is_tiled_and_several_are_padded(geometry: Geometry, text_of: Callable):
    picture = ImageItem(height_px=1080, width_px=1920, name="a.png")
    assert plan_items([picture], geometry, text_of).visual_tokens == 7269
    several = plan_items([picture] * 3, geometry, text_of)
    assert several.visual_tokens == 2190
    assert several.reasons == ("Each of 3 pictures is one padded tile, as several are trained.",)
    tiled = plan_items([picture] * 3, geometry, text_of, image_aspect="anyres")
    assert tiled.visual_tokens == 3 * 7269
    assert plan_items([picture], geometry, text_of, image_aspect="pad").visual_tokens == 730
    square = replace(geometry, aspect="square")
    assert {v.fit for v in plan_items([picture] * 2, square, text_of).visuals} == {"squeeze"}


def test_pictures_and_videos_in_order(make_info: MakeInfo, geometry: Geometry, text_of: Callable):
    own = SamplingSettings(num_frames=4)
    items = [
        VideoItem(info=make_info(), name="a.mp4", sampling=own),
        ImageItem(height_px=1080, width_px=1920, name="b.png"),
        VideoItem(info=make_info(60), name="c.mp4"),
    ]
    plan = plan_items(items, geometry, text_of)
    assert [visual.source for visual in plan.visuals] == ["a.mp4", "b.png", "c.mp4"]
    assert [visual.num_frames for visual in plan.visuals] == [4, 1, 60]
    assert [visual.num_tokens for visual in plan.visuals] == [840, 7269, 12600]
    assert [reason.split(":")[0] for reason in plan.reasons] == ["a.mp4", "c.mp4"]
    notes = [time_note(visual) for visual in plan.visuals]
    assert notes[1] is None
    assert (plan.prompt, plan.text_tokens) == text_of(notes)


def test_videos_share_equally(make_info: MakeInfo, geometry: Geometry, text_of: Callable):
    items = [VideoItem(info=make_info(), name=f"{idx}.mp4") for idx in range(4)]
    plan = plan_items(items, geometry, text_of, pool_stride=2)
    # A quarter of what 512 for the answer and some 20 of prompt leave is 8,059; a frame takes 210
    # and about 7 of time sentence, which has 40 more: 36 or 37 frames.
    assert {visual.num_frames for visual in plan.visuals} <= {36, 37}
    assert 32768 - 4 * 220 < plan.tokens + 512 <= 32768
    capped = plan_items(items, geometry, text_of, max_video_tokens=4000)
    assert [visual.num_tokens for visual in capped.visuals] == [17 * 56] * 4


def test_what_a_short_video_leaves_goes_to_the_others(
    make_info: MakeInfo, geometry: Geometry, text_of: Callable
):
    short = VideoItem(info=make_info(5), name="short.mp4")
    long = VideoItem(info=make_info(), name="long.mp4")
    for items in ([short, long], [long, short]):
        plan = plan_items(items, geometry, text_of, max_video_tokens=14490)
        assert {v.source: v.num_tokens for v in plan.visuals} == {
            "short.mp4": 5 * 210,
            "long.mp4": 64 * 210,  # 14,490 together; half of it would be 34 frames
        }
        assert not any("→" in reason for reason in plan.reasons)


def test_a_cap_on_videos_leaves_pictures_alone(
    make_info: MakeInfo, geometry: Geometry, text_of: Callable
):
    items = [
        ImageItem(height_px=1080, width_px=1920, name="b.png"),
        VideoItem(info=make_info(), name="a.mp4"),
    ]
    plan = plan_items(items, geometry, text_of, max_video_tokens=3000)
    assert plan.visuals[0].num_tokens == 7269
    assert 2900 < plan.visuals[1].num_tokens <= 3000
    assert plan.budget_tokens == 10269


# --- properties

KNOBS = st.fixed_dictionaries(
    {},
    optional={
        "grid": st.sampled_from(["auto", "off"])
        | st.builds(Grid, st.integers(1, 4), st.integers(1, 4)),
        "pool_stride": st.integers(1, 6),
        "pool_mode": st.sampled_from(["bilinear", "average", "max"]),
        "newline": st.sampled_from(Newline),
        "max_video_tokens": st.integers(1, 40000),
        "max_new_tokens": st.integers(1, 2000),
        "position_scale": st.floats(1, 4),
        "time_share": st.floats(0, 1),
    },
)
SAMPLING = st.fixed_dictionaries(
    {},
    optional={
        "num_frames": st.integers(1, 400),
        "max_frames": st.integers(1, 400),
        "fps": st.floats(0.05, 60),
        "compat": st.sampled_from(["pts", "reference"]),
    },
)
VIDEOS = st.lists(
    st.tuples(
        st.integers(1, 3000),  # frames
        st.floats(0.3, 120),  # frames per second
        st.integers(1, 2500),  # height
        st.integers(1, 2500),  # width
        st.booleans(),  # variable rate
    ),
    min_size=1,
    max_size=2,
)
MODELS = st.fixed_dictionaries(
    {
        "context_tokens": st.sampled_from([400, 1500, 4096, 32768, 131072]),
        "time_instruction": st.booleans(),
        "newline": st.sampled_from(Newline),
        "slow_every": st.sampled_from([0, 0, 3]),
        "pool_mode": st.sampled_from(["bilinear", "average"]),
    }
)


def info_of(make_info: MakeInfo, video: tuple) -> VideoInfo:
    num_frames, rate_hz, height_px, width_px, varies = video
    pts_s = None
    if varies:
        gaps = np.random.default_rng(num_frames).exponential(1 / rate_hz, num_frames - 1) + 1e-3
        pts_s = np.concatenate(([0.0], np.cumsum(gaps)))
    return make_info(
        num_frames, rate_hz, size_px=(height_px, width_px), pts_s=pts_s, duration_s=None
    )


def check_any_request(make_info, geometry, text_of, videos, knobs, sampling, model):
    """Plan anything: it fits and is what was asked, or it is refused with numbers."""
    geometry = replace(geometry, **model)
    planning, asked = PlanningSettings(**knobs), SamplingSettings(**sampling)
    items = [VideoItem(info=info_of(make_info, video), name="clip.mp4") for video in videos]

    def plan(planning: PlanningSettings) -> Plan | None:
        try:
            return plan_request(items, geometry, planning, asked, text_of)
        except LlavaVideoError as error:
            check_refusal(error)
            return None

    found = plan(planning)
    if found is None:
        return
    check_fits(found, geometry, planning, text_of)
    for visual, item in zip(found.visuals, items, strict=True):
        check_visual(visual, item.info, planning, asked, found.reasons)
    larger = {"max_new_tokens": (planning.max_new_tokens + 1) // 2}
    if planning.max_video_tokens is not None:
        larger["max_video_tokens"] = planning.max_video_tokens + 500
    finer = plan(replace(planning, **larger))
    assert finer is not None
    if len(items) == 1:  # beside another's sentence a word may split differently
        assert finer.visuals[0].num_frames >= found.visuals[0].num_frames
        assert per_frame(finer.visuals[0]) >= per_frame(found.visuals[0])


def check_refusal(error: LlavaVideoError) -> None:
    assert error.hint
    if isinstance(error, BudgetError):
        assert error.need_tokens > error.have_tokens >= 0
    else:
        assert isinstance(error, ConfigError)
        assert "leaves nothing" in error.message  # a sliver, averaged


def per_frame(visual: VisualPlan) -> int:
    return recount(replace(visual, frame_idxs=(0,)))


def check_fits(plan: Plan, geometry: Geometry, planning: PlanningSettings, text_of) -> None:
    assert plan.visual_tokens == sum(recount(visual) for visual in plan.visuals)
    limit = int(geometry.context_tokens * (planning.position_scale or 1))
    assert plan.text_tokens + plan.visual_tokens + planning.max_new_tokens <= limit
    assert plan.visual_tokens <= plan.budget_tokens
    assert plan.visual_tokens <= (planning.max_video_tokens or limit)
    written = text_of([time_note(visual) for visual in plan.visuals])
    assert (plan.prompt, plan.text_tokens) == written


def check_visual(
    visual: VisualPlan,
    info: VideoInfo,
    planning: PlanningSettings,
    asked: SamplingSettings,
    reasons: tuple[str, ...],
) -> None:
    idxs = list(visual.frame_idxs)
    assert idxs == (sorted(idxs) if asked.compat == "reference" else sorted(set(idxs)))
    assert 0 <= idxs[0] <= idxs[-1] < info.num_frames
    assert len(idxs) <= (asked.max_frames or max(64, asked.num_frames or 0))
    assert visual.pool_stride == planning.pool_stride or planning.pool_stride is None
    assert visual.pool_stride <= 4 or planning.pool_stride
    if planning.newline is not None:
        assert visual.newline is planning.newline
    if planning.pool_mode is not None:
        assert visual.pool_mode == planning.pool_mode
    if isinstance(planning.grid, Grid):
        assert visual.grid == planning.grid
    words = " ".join(reasons)
    if visual.pool_stride > 2 and planning.pool_stride is None:
        assert f"Pool stride 2 → {visual.pool_stride}" in words
    if asked.num_frames and not asked.fps and asked.compat == "reference":
        cap = min(asked.num_frames, asked.max_frames or asked.num_frames)
        assert (f"Frames {cap} → {len(idxs)}" in words) == (len(idxs) < cap)


SEEN_BY_HYPOTHESIS = {
    "videos": VIDEOS,
    "knobs": KNOBS,
    "sampling": SAMPLING,
    "model": MODELS,
}


@settings(max_examples=150)
@given(**SEEN_BY_HYPOTHESIS)
def test_any_request(make_info, geometry, text_of, videos, knobs, sampling, model):
    check_any_request(make_info, geometry, text_of, videos, knobs, sampling, model)


@pytest.mark.slow
@settings(max_examples=10_000, suppress_health_check=[HealthCheck.too_slow])
@given(**SEEN_BY_HYPOTHESIS)
def test_ten_thousand_requests(make_info, geometry, text_of, videos, knobs, sampling, model):
    check_any_request(make_info, geometry, text_of, videos, knobs, sampling, model)
