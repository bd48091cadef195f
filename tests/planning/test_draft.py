"""Drafts compare by what the model would be shown, and say it in words."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from llava_video.planning.budget import Limit
from llava_video.planning.draft import Draft, wider_words
from llava_video.values import Grid, Plan

LIMIT = Limit(tokens=1000)


@pytest.fixture
def plan(make_info: Callable, plan_one: Callable) -> Plan:
    return plan_one(make_info(90))  # 64 frames of one tile at pool stride 2


def draft_of(plan: Plan, *, is_whole: bool = False, **changes: object) -> Draft:
    """Draft a plan whose only visual is changed."""
    visual = replace(plan.visuals[0], **changes)
    return Draft(plan=replace(plan, visuals=(visual,)), limit=LIMIT, is_whole=is_whole)


def frames(count: int) -> dict[str, tuple]:
    return {"times_s": tuple(map(float, range(count))), "frame_idxs": tuple(range(count))}


def test_what_is_said_is_added(plan: Plan):
    draft = draft_of(plan).saying("One.", "Two.", warnings=("Three.",)).saying("Four.")
    assert draft.plan.reasons == (*plan.reasons, "One.", "Two.", "Four.")
    assert draft.plan.warnings == ("Three.",)
    assert draft.limit is LIMIT


def test_only_what_is_shown_is_compared(plan: Plan):
    same = draft_of(plan, is_whole=True, note_every=7).saying("A reason.")
    assert same.shows_as(draft_of(plan))
    for changes in (frames(63), {"pool_stride": 3}, {"grid": Grid(1, 2)}):
        assert not draft_of(plan, **changes).shows_as(same)


def test_pictures_are_no_frames(plan: Plan):
    picture = replace(plan.visuals[0], kind="image", **frames(1))
    both = replace(plan, visuals=(picture, plan.visuals[0]))
    assert Draft(plan=both, limit=LIMIT, is_whole=True).num_frames == 64


@pytest.mark.parametrize(
    ("wider", "less", "words"),
    [
        ({}, frames(40), "64 frames"),
        ({"is_whole": True}, frames(40), "all 64 frames"),
        ({"is_whole": True, **frames(1)}, frames(1), "all 1 frame"),
        ({"is_whole": True}, {"pool_stride": 4}, "all 64 frames at pool stride 2"),
        ({"pool_stride": 3}, {**frames(8), "pool_stride": 4}, "64 frames at pool stride 3"),
        (
            {"is_whole": True, "grid": Grid(2, 3)},
            {"pool_stride": 4},
            "all 64 frames of 2 x 3 tiles at pool stride 2",
        ),
        ({"grid": Grid(1, 1)}, {"grid": Grid(2, 1), **frames(8)}, "64 frames of 1 x 1 tiles"),
    ],
)
def test_words_for_what_is_more(plan: Plan, wider: dict, less: dict, words: str):
    assert wider_words(draft_of(plan, **wider), draft_of(plan, **less)) == words


def test_words_for_several_videos(plan: Plan):
    def both(*strides: int) -> Draft:
        visuals = tuple(replace(plan.visuals[0], pool_stride=stride) for stride in strides)
        return Draft(plan=replace(plan, visuals=visuals), limit=LIMIT, is_whole=False)

    assert wider_words(both(2, 3), both(4, 4)) == "128 frames at pool strides 2 and 3"
    assert wider_words(both(2, 2), both(2, 4)) == "128 frames at pool stride 2"
