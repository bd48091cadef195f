"""The smallest scale that holds a request, and what is said of it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from llava_video.errors import BudgetError
from llava_video.planning.budget import Limit
from llava_video.planning.draft import Draft
from llava_video.planning.geometry import Geometry
from llava_video.planning.stretch import scale_reasons, scale_warnings, smallest_scale
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


def reasons(geometry: Geometry, plan: Plan, scale: float, *, is_auto: bool = False) -> list[str]:
    return list(scale_reasons(geometry, replace(plan, position_scale=scale), is_auto=is_auto))


def test_reasons(geometry: Geometry, plan: Plan):
    assert reasons(geometry, plan, 1.0) == reasons(geometry, plan, 1.0, is_auto=True) == []
    assert reasons(geometry, plan, 2.5) == [
        "Positions are divided by 2.5 to stretch the context of 32,768 tokens."
    ]
    total = f"{plan.tokens + 512:,}"
    assert reasons(geometry, plan, 1.07, is_auto=True) == [
        f"position_scale=1.07 is the smallest that holds {total} tokens; the context holds 32,768 "
        "tokens."
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


def test_what_is_known_of_the_quality():
    assert list(scale_warnings(1.0)) == []
    (known,) = scale_warnings(4.0)
    assert known.startswith("At position_scale=4 positions lie closer than in training")
    assert "3.12" in known
    assert "never scales Qwen2" in known
    assert "nothing is known" not in known
    (beyond,) = scale_warnings(4.01)
    assert beyond.endswith("Beyond factor 4 nothing is known.")
