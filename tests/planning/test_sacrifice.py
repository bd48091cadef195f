"""The order of sacrifice: grid, pool stride up to 4, frames; and the time sentence's share."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_video.errors import BudgetError, ConfigError
from llava_video.planning.budget import Limit, Room
from llava_video.planning.geometry import Geometry
from llava_video.planning.layout import Layout, layout_tokens, single_layout
from llava_video.planning.sacrifice import Choice, fit_video, layout_steps, wanted_stride
from llava_video.planning.sampler import Sample, sample_frames
from llava_video.planning.settings import PlanningSettings, SamplingSettings
from llava_video.planning.time_note import TimeNote
from llava_video.values import Grid

STEPS = tuple(single_layout(patches_per_side=27, pool_stride=stride) for stride in (2, 3, 4))


def steps_of(geometry: Geometry, size_px=(1080, 1920), **knobs: object) -> list[tuple[Grid, int]]:
    steps = layout_steps(*size_px, geometry, PlanningSettings(**knobs))
    return [(step.grid, step.pool_stride) for step in steps]


def room(total: int, visual: int | None = None, share: float = 0.05) -> Room:
    limit = Limit(tokens=total)
    return Room(total_tokens=total, visual_tokens=visual, time_share=share, limit=limit)


def cost(note: TimeNote) -> int:
    """Count 40 tokens of sentence, and 7 for every time listed."""
    return 40 + 7 * len(note.times_s[:: note.every])


@pytest.fixture(scope="module")
def sample(make_info: Callable) -> Sample:
    return sample_frames(make_info(3000), SamplingSettings(num_frames=100), max_frames=64)


def test_steps_of_the_trained_layout(geometry: Geometry):
    one = Grid(1, 1)
    assert steps_of(geometry) == [(one, 2), (one, 3), (one, 4)]
    assert steps_of(geometry, detail="medium") == steps_of(geometry, grid="off")
    assert steps_of(geometry, detail="low") == [(one, 4)]
    assert steps_of(geometry, pool_stride=3) == [(one, 3)]
    assert steps_of(geometry, pool_stride=8) == [(one, 8)]


def test_the_grid_goes_before_the_stride(geometry: Geometry):
    steps = steps_of(geometry, detail="high")
    assert steps == steps_of(geometry, grid="auto")
    sides = [(grid.rows, grid.cols) for grid, _ in steps[:-3]]
    assert sides == [(3, 5), (3, 4), (2, 4), (2, 3), (2, 2), (1, 2)]
    assert steps[-3:] == [(Grid(1, 1), 2), (Grid(1, 1), 3), (Grid(1, 1), 4)]
    num_tiles = [grid.rows * grid.cols for grid, _ in steps]
    assert num_tiles == sorted(num_tiles, reverse=True)
    assert all(stride == 2 for grid, stride in steps if grid != Grid(1, 1))


def test_the_wanted_stride(geometry: Geometry):
    assert wanted_stride(geometry, PlanningSettings()) == 2
    assert wanted_stride(geometry, PlanningSettings(pool_stride=3)) == 3
    assert wanted_stride(geometry, PlanningSettings(detail="low")) == 4
    assert wanted_stride(replace(geometry, pool_stride=5), PlanningSettings(detail="low")) == 5


def test_frames_as_pictures_may_be_pooled(next_pictures: Geometry, next_video: Geometry):
    one = Grid(1, 1)
    assert steps_of(next_pictures) == [(one, stride) for stride in (1, 2, 3, 4)]
    assert steps_of(next_video) == [(one, stride) for stride in (2, 3, 4)]


def test_a_fused_frame_is_one_step(mini: Geometry, mini_hd: Geometry):
    for model in (mini, mini_hd):
        (layout,) = layout_steps(1080, 1920, model, PlanningSettings())
        assert (layout.is_fused, layout_tokens(layout, 9)) == (True, 9 * model.compressed_side**2)
    with pytest.raises(ConfigError, match="detail = 'low', pool_mode = 'max', and llava-mini"):
        layout_steps(9, 9, mini, PlanningSettings(detail="low", pool_mode="max"))


def test_pinned_knobs_stay(geometry: Geometry):
    pinned = Grid(2, 2)
    assert steps_of(geometry, grid=pinned) == [(pinned, 2), (pinned, 3), (pinned, 4)]
    assert steps_of(geometry, grid=pinned, pool_stride=1) == [(pinned, 1)]
    assert {stride for _, stride in steps_of(geometry, grid="auto", pool_stride=1)} == {1}


def test_small_frames_need_no_grid(geometry: Geometry):
    assert steps_of(geometry, (240, 320), detail="high")[0] == (Grid(1, 1), 2)


def test_every_step_has_fewer_tokens(geometry: Geometry):
    tiny = replace(geometry, tile_px=56, canvases=((56, 112), (112, 112)))
    # 4 patches: strides 2 and 3 both leave 2 of them, so 3 is no step.
    assert [stride for _, stride in steps_of(tiny, (9, 9))] == [2, 4]
    for model in (geometry, tiny):
        steps = layout_steps(1080, 1920, model, PlanningSettings(grid="auto"))
        tokens = [layout_tokens(step, 1) for step in steps]
        assert tokens == sorted(set(tokens), reverse=True)


def test_a_grid_that_pooling_would_empty_is_left_out(geometry: Geometry):
    steps = steps_of(geometry, (1, 2000), grid=Grid(1, 2), pool_stride=1, pool_mode="average")
    assert steps == [(Grid(1, 2), 1)]
    model = replace(geometry, pool_stride=1)
    assert steps_of(model, (1, 2000), grid=Grid(1, 2), pool_mode="average") == steps


@pytest.mark.parametrize(
    ("total", "stride", "num_frames"),
    [
        (21740, 2, 100),  # 21,000 + a sentence of 740
        (21739, 3, 100),
        (9740, 3, 100),  # 9,000 + 740
        (9739, 4, 100),
        (6340, 4, 100),  # 5,600 + 740
        (6339, 4, 99),  # 99 * 56 + 40 + 99 * 7
        (103, 4, 1),  # 56 + 47
    ],
)
def test_what_is_given_up_in_turn(sample: Sample, total: int, stride: int, num_frames: int):
    choice = fit_video(sample, STEPS, room(total, share=1.0), cost)
    assert (choice.layout.pool_stride, choice.sample.num_frames) == (stride, num_frames)
    words = " ".join(choice.reasons)
    assert ("Pool stride 2 →" in words) == (stride > 2)
    assert ("Frames 100 →" in words) == (num_frames < 100)


def test_reasons_carry_the_numbers(sample: Sample):
    choice = fit_video(sample, STEPS, room(6339, share=1.0), cost)
    assert "Pool stride 2 → 4: 100 frames would take 21,000 tokens, 5,599 are free." in (
        choice.reasons
    )
    assert "Frames 100 → 99: 100 frames would take 5,600 tokens, 5,599 are free." in choice.reasons


def test_the_room_that_was_too_small_is_named(sample: Sample):
    """The cap, the whole room, or the room beside the sentence: whichever decided."""

    def said(total: int, visual: int | None) -> str:
        return fit_video(sample, STEPS, room(total, visual, share=1.0), cost).reasons[-1]

    assert said(99999, 5000).endswith("would take 5,600 tokens, 5,000 are free.")
    assert said(5599, None).endswith("would take 5,600 tokens, 5,599 are free.")
    assert said(6000, 5600).endswith("would take 5,600 tokens, 5,260 are free.")


def test_grids_are_named(geometry: Geometry, sample: Sample):
    steps = layout_steps(1080, 1920, geometry, PlanningSettings(grid="auto"))
    choice = fit_video(sample, steps, room(22000), None)
    assert "Grid 3 x 5 tiles → one tile: 100 frames would take 281,800 tokens" in choice.reasons[1]
    tiled = fit_video(sample, steps, room(281_800), None)
    assert tiled.layout.grid == Grid(3, 5)
    assert "finer than the one tile" in tiled.reasons[1]
    untrained = fit_video(sample, steps, room(281_800), None, is_trained=False)
    assert not any("finer than" in reason for reason in untrained.reasons)


def test_not_one_frame(sample: Sample):
    with pytest.raises(BudgetError, match="one tile at pool stride 4 needs 103 tokens") as refusal:
        fit_video(sample, STEPS, room(102), cost)
    assert (refusal.value.need_tokens, refusal.value.have_tokens) == (103, 102)
    with pytest.raises(BudgetError, match="max_video_tokens leaves it 55") as refusal:
        fit_video(sample, STEPS, room(9999, visual=55), cost)
    assert (refusal.value.need_tokens, refusal.value.have_tokens) == (56, 55)


def test_a_cap_on_visual_tokens_alone(sample: Sample):
    assert fit_video(sample, STEPS, room(99999, visual=21000), cost).layout == STEPS[0]
    assert fit_video(sample, STEPS, room(99999, visual=20999), cost).layout == STEPS[1]


def test_few_frames_left_is_a_warning(sample: Sample):
    choice = fit_video(sample, STEPS, room(99999, visual=560), cost)
    assert choice.warnings == ("Only 10 of 100 chosen frames fit the budget.",)
    assert fit_video(sample, STEPS, room(99999, visual=2800), cost).warnings == ()


def test_what_is_no_longer_the_reference_is_a_warning(make_info: Callable):
    asked = SamplingSettings(compat="reference", num_frames=20)
    sample = sample_frames(make_info(), asked, max_frames=64)
    assert fit_video(sample, STEPS, room(99999), None).warnings == ()
    warned = fit_video(sample, STEPS, room(2000), None).warnings
    assert warned == ("The budget changed the layout or the frames of the reference.",)


@pytest.mark.parametrize(
    ("total", "every"),
    [
        (40000, 1),  # the share of 2,000 holds all: 40 + 100 * 7 = 740
        (14800, 1),  # 740 exactly
        (14799, 2),  # 739 do not; every other one is 390
        (7799, 3),  # 389; 40 + 34 * 7 = 278
    ],
)
def test_times_beyond_their_share_are_thinned(sample: Sample, total: int, every: int):
    steps = STEPS[2:]
    choice = fit_video(sample, steps, room(total), cost)
    assert choice.note.every == every
    assert cost(choice.note) <= total * 0.05
    said = [reason for reason in choice.reasons if "time sentence" in reason]
    assert len(said) == (every > 1)
    if every == 2:
        assert said == ["The time sentence lists every 2nd time: all 100 cost 740 tokens, "
                        "its share is 739."]  # fmt: skip


def test_one_time_is_always_listed(sample: Sample):
    choice = fit_video(sample, STEPS, room(9999, share=0.0), cost)
    assert choice.note.every == choice.sample.num_frames == 100
    assert cost(choice.note) == 47


def test_no_sentence_no_tokens(sample: Sample):
    choice = fit_video(sample, STEPS, room(21000), None)
    assert choice.note is None
    assert choice.layout == STEPS[0]


def coarseness(choice: Choice, steps: tuple[Layout, ...]) -> tuple[int, int]:
    return -steps.index(choice.layout), choice.sample.num_frames


@given(
    totals=st.tuples(st.integers(0, 30000), st.integers(0, 3000)),
    caps=st.none() | st.tuples(st.integers(0, 30000), st.integers(0, 3000)),
    share=st.floats(0, 1),
    per_time=st.integers(0, 300),
)
def test_more_room_is_never_coarser(sample: Sample, totals, caps, share, per_time):
    def dear(note: TimeNote) -> int:
        return 40 + per_time * len(note.times_s[:: note.every]) + (note.num_frames * 37) % 11

    def fitted(more: bool) -> Choice | None:
        visual = None if caps is None else caps[0] + more * caps[1]
        total = totals[0] + more * totals[1]
        try:
            choice = fit_video(sample, STEPS, room(total, visual, share), dear)
        except BudgetError:
            return None
        visual_tokens = layout_tokens(choice.layout, choice.sample.num_frames)
        assert visual_tokens + dear(choice.note) <= total
        assert visual is None or visual_tokens <= visual
        return choice

    less, more = fitted(more=False), fitted(more=True)
    if less is not None:
        assert more is not None
        assert coarseness(more, STEPS) >= coarseness(less, STEPS)
        assert more.sample.num_frames >= less.sample.num_frames
