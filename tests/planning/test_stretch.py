"""The smallest scale that holds a request, and what is said of it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from llava_video.errors import BudgetError
from llava_video.planning.budget import Limit
from llava_video.planning.draft import Draft
from llava_video.planning.geometry import Geometry
from llava_video.planning.settings import PositionScale
from llava_video.planning.stretch import (
    reference_scale,
    scale_range,
    scale_reasons,
    scale_warnings,
    smallest_scale,
)
from llava_video.values import Plan

CONTEXT = 1000


class Request:
    """Wants 50 frames of 60 tokens, and a sentence of at most 5 % of the room; 100 for the answer.

    Memory holds `held` tokens.
    """

    def __init__(self, plan: Plan, *, held: int = 10**9, num_frames: int = 50) -> None:
        self.plan, self.held, self.num_frames = plan, held, num_frames
        self.asked: list[float] = []

    def at(self, scale: float) -> Draft:
        self.asked.append(scale)
        positions = int(CONTEXT * scale)
        tokens = min(positions, self.held)
        text = min(500, tokens // 20)
        count = min(self.num_frames, (tokens - 100 - text) // 60)
        if count < 1:
            raise BudgetError("no", "", 2, 1)
        visual = replace(
            self.plan.visuals[0], times_s=(0.0,) * count, frame_idxs=(0,) * count,
            num_tokens=60 * count,
        )  # fmt: skip
        plan = replace(
            self.plan, visuals=(visual,), position_scale=scale, text_tokens=text, max_new_tokens=100
        )
        bound = None if positions <= self.held else 1
        limit = Limit(tokens=tokens, token_bytes=bound)
        return Draft(plan=plan, limit=limit, is_whole=count == self.num_frames)


@pytest.fixture
def plan(make_info: Callable, plan_one: Callable) -> Plan:
    return plan_one(make_info(90))


def test_the_smallest_that_shows_all(plan: Plan):
    """50 frames, 100 and a twentieth are 3,100 * 20 / 19 = 3,263.2: 3.26 leaves 3,097 beside the
    sentence, 49 frames; 3.27 leaves 3,107."""
    request = Request(plan)
    draft = smallest_scale(CONTEXT, request.at)
    assert draft.plan.position_scale == 3.27
    assert draft.is_whole
    assert not request.at(3.26).is_whole
    assert len(request.asked) <= 12  # by halving: the sentence moves it 16 steps at most


def test_what_fits_is_not_stretched(plan: Plan):
    draft = smallest_scale(CONTEXT, Request(plan, num_frames=10).at)
    assert (draft.plan.position_scale, draft.is_whole) == (1.0, True)


def test_memory_is_not_stretched_for(plan: Plan):
    """2,000 tokens of memory: 100 and 100 leave 30 frames, 2,000 in all with the sentence."""
    draft = smallest_scale(CONTEXT, Request(plan, held=2000).at)
    assert draft.num_frames == 30
    assert draft.plan.position_scale == 2.0
    tokens = draft.plan.tokens + draft.plan.max_new_tokens
    assert 1990 < tokens <= 2000


def test_little_memory_leaves_the_positions_alone(plan: Plan):
    draft = smallest_scale(CONTEXT, Request(plan, held=500).at)
    assert draft.plan.position_scale == 1.0


def test_beyond_the_largest_scale(plan: Plan):
    """Of 64,000 tokens 600 are the sentence and the answer: 1,056 frames, 63,960 in all."""
    draft = smallest_scale(CONTEXT, Request(plan, num_frames=5000).at)
    assert draft.num_frames == 1056
    assert draft.plan.position_scale == 63.96
    with pytest.raises(BudgetError):
        smallest_scale(CONTEXT, Request(plan, held=150).at)


def test_a_sentence_that_grows_in_a_smaller_room_is_not_in_the_way(plan: Plan):
    """A draft that needs more room than it fills: the scale above is found."""

    def at(scale: float) -> Draft:
        draft = Request(plan, num_frames=10).at(64)
        is_whole = scale >= 2.5  # 600 + 100 + 500 tokens would fit 1.2
        count = 10 if is_whole else 9
        visual = replace(draft.plan.visuals[0], times_s=(0.0,) * count, frame_idxs=(0,) * count)
        changed = replace(draft.plan, visuals=(visual,), position_scale=scale)
        return replace(draft, plan=changed, is_whole=is_whole)

    assert smallest_scale(CONTEXT, at).plan.position_scale == 2.5


# --- words


def reasons(
    geometry: Geometry, plan: Plan, scale: float, asked: PositionScale | None = 2.0
) -> list[str]:
    return list(scale_reasons(geometry, replace(plan, position_scale=scale), asked))


def test_reasons(geometry: Geometry, plan: Plan):
    for asked in (1.0, "auto", "reference", None):
        assert reasons(geometry, plan, 1.0, asked) == []
    assert reasons(geometry, plan, 2.5) == [
        "Positions are divided by 2.5 to stretch the context of 32,768 tokens."
    ]
    total = f"{plan.tokens + 512:,}"
    smallest = (
        f"position_scale=1.07 is the smallest that holds {total} tokens; the context holds 32,768 "
        "tokens."
    )
    assert reasons(geometry, plan, 1.07, "auto") == [smallest]
    assert reasons(geometry, plan, 1.07, None) == [
        f"{smallest} Taken unasked: position_scale=1 keeps positions as trained."
    ]
    assert reasons(geometry, plan, 2.0, "reference") == [
        "position_scale=2 by the rule of LLaVA-NeXT-Video's demo; the context holds 32,768 tokens."
    ]


def test_the_checkpoints_own_scale_is_told(geometry: Geometry, plan: Plan):
    """4,096 positions by 2.5 are a context of 10,240; a user's scale comes on top."""
    scaled = replace(geometry, context_tokens=10_240, rope_scale=2.5)
    own = "The context of 10,240 tokens includes the checkpoint's own linear position scale of 2.5."
    assert reasons(scaled, plan, 1.0) == [own]
    assert reasons(scaled, plan, 2.0) == [
        own,
        "Positions are divided by 2 to stretch the context of 10,240 tokens.",
    ]


def test_what_is_known_of_the_quality(geometry: Geometry, mini: Geometry, next_video: Geometry):
    assert list(scale_warnings(geometry, 1.0)) == []
    (known,) = scale_warnings(geometry, 4.0)
    assert "one case of another model: LLaVA-NeXT-Video 7B" in known
    assert known.startswith("At position_scale=4 positions lie closer than in training")
    assert "3.12" in known
    assert "never scales Qwen2" in known
    assert "nothing is known" not in known
    # LLaVA-Mini's decoder is Llama's, and of a stretched Qwen the sentence is as true.
    assert "Qwen2" not in next(scale_warnings(mini, 4.0))
    assert "never scales Qwen2" in next(scale_warnings(replace(next_video, is_qwen=True), 4.0))
    (beyond,) = scale_warnings(geometry, 4.01)
    assert beyond.endswith("Beyond factor 4 nothing is known.")


def test_the_published_case_is_not_another_model(next_video: Geometry):
    """And its checkpoint's own factor of 2 counts: with 2.01 more, nothing is known."""
    (known,) = scale_warnings(next_video, 2.0)
    assert "Published is one case: LLaVA-NeXT-Video 7B" in known
    assert "Qwen2" not in known
    twice = replace(next_video, context_tokens=8192, rope_scale=2.0)
    assert "nothing is known" not in next(scale_warnings(twice, 2.0))
    assert "nothing is known" in next(scale_warnings(twice, 2.01))
    pictures = replace(next_video, is_video_trained=False)
    assert "of another model" in next(scale_warnings(pictures, 2.0))


# --- what was asked


def range_of(geometry: Geometry, asked: PositionScale | None) -> tuple[float, float]:
    return scale_range(asked, geometry, num_frames=32, pool_stride=2)


def test_the_range_of_what_was_asked(geometry: Geometry, next_video: Geometry):
    assert range_of(geometry, None) == (1.0, 1.0)
    assert range_of(next_video, None) == (1.0, 4.0)
    assert range_of(replace(next_video, rope_scale=2.5), None) == (1.0, 1.6)
    assert range_of(replace(next_video, rope_scale=8.0), None) == (1.0, 1.0)
    for model in (geometry, next_video):
        assert range_of(model, "auto") == (1.0, 64)
        assert range_of(model, 2.5) == (2.5, 2.5)
    assert range_of(next_video, "reference") == (2.0, 2.0)


@pytest.mark.parametrize(
    ("num_frames", "scale"),
    [(1, 1), (21, 1), (22, 2), (32, 2), (49, 2), (50, 3), (56, 3), (78, 3), (79, 4), (10**6, 64)],
)
def test_the_rule_of_the_demo(next_video: Geometry, num_frames: int, scale: float):
    """22 frames of 12 x 12 and 1,000 are 4,168 tokens, 50 are 8,200, 79 are 12,376."""
    assert reference_scale(next_video, num_frames, 2) == scale


def test_wrong_rules_of_the_demo_would_be_noticed(next_video: Geometry):
    counts = (21, 22, 49, 50, 78, 79)
    truth = [reference_scale(next_video, count, 2) for count in counts]
    mutants = {
        "no words": [-(-count * 144 // 4096) for count in counts],
        "floor": [max(1, (count * 144 + 1000) // 4096) for count in counts],
        "unpooled": [-(-(count * 576 + 1000) // 4096) for count in counts],
    }
    assert truth == [1, 2, 2, 3, 3, 4]
    assert [name for name, scales in mutants.items() if scales == truth] == []


def test_the_rule_follows_stride_and_tower(next_video: Geometry):
    """Stride 4 leaves 36 tokens a frame, and of 16 patches a side stride 2 leaves 64."""
    assert reference_scale(next_video, 86, 4) == 1  # 3,096 + 1,000
    assert reference_scale(next_video, 87, 4) == 2
    small = replace(next_video, tile_px=224, canvases=(), aspect="square")
    assert [reference_scale(small, count, 2) for count in (48, 49)] == [1, 2]  # 4,072 and 4,136


def test_the_checkpoints_own_factor_counts_once(next_video: Geometry):
    """A context of 8,192 is two of 4,096: 32 frames need no more, 50 half as much again."""
    twice = replace(next_video, context_tokens=8192, rope_scale=2.0)
    assert [reference_scale(twice, count, 2) for count in (32, 49, 50)] == [1.0, 1.0, 1.5]
    hf = replace(next_video, context_tokens=10_240, rope_scale=2.5)
    assert reference_scale(hf, 32, 2) == 1.0
    assert reference_scale(hf, 56, 2) == pytest.approx(3 / 2.5)


def test_no_further_than_the_largest_scale(plan: Plan):
    """At most 2: 1,900 tokens hold 30 frames, and need all of it."""
    request = Request(plan)
    draft = smallest_scale(CONTEXT, request.at, 2.0)
    assert draft.num_frames == 30
    assert draft.plan.position_scale == 2.0
    assert max(request.asked) == 2.0
    assert smallest_scale(CONTEXT, Request(plan).at, 4.0).plan.position_scale == 3.27
