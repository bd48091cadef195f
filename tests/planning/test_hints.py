"""What another setting would hold is said only where it holds more, and is true."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from llava_video.errors import BudgetError
from llava_video.planning.amount import parse_bytes
from llava_video.planning.budget import Limit
from llava_video.planning.draft import Draft
from llava_video.planning.hints import hints, other_setups
from llava_video.planning.memory import Setup
from llava_video.planning.settings import PlanningSettings
from llava_video.values import Plan

MIB = 2**20
SETUP = Setup(limit_bytes=100 * MIB)
LIGHTER = (replace(SETUP, weight_format="int8"), replace(SETUP, weight_format="int4"))


@pytest.fixture
def plan(make_info: Callable, plan_one: Callable) -> Plan:
    return plan_one(make_info(90))


def draft_of(plan: Plan, num_frames: int, *, is_memory: bool = False, **changes: object) -> Draft:
    times_s = tuple(map(float, range(num_frames)))
    visual = replace(plan.visuals[0], times_s=times_s, frame_idxs=tuple(range(num_frames)))
    changed = replace(plan, visuals=(visual,), **changes)
    limit = Limit(tokens=1, token_bytes=1 if is_memory else None)
    return Draft(plan=changed, limit=limit, is_whole=num_frames == 64)


def said(draft: Draft, others: dict[str, Draft], **knobs: object) -> list[str]:
    """Hint, where a scale of "auto" and weights of each format give these drafts."""

    def draft_with(planning: PlanningSettings, setup: Setup) -> Draft:
        key = setup.weight_format if setup != SETUP else str(planning.position_scale)
        return others[key]

    planning = PlanningSettings(**knobs)
    return list(hints(draft, planning, SETUP, LIGHTER, draft_with))


def test_nothing_given_up_nothing_said(plan: Plan):
    assert said(draft_of(plan, 64), {}) == []
    assert said(draft_of(plan, 64, is_memory=True), {}) == []


def test_a_scale_that_holds_more(plan: Plan):
    whole = draft_of(plan, 64, position_scale=1.8)
    assert said(draft_of(plan, 40), {"auto": whole}) == [
        "position_scale=1.8 would hold all 64 frames."
    ]
    some = draft_of(plan, 50, position_scale=1.31)
    assert said(draft_of(plan, 40), {"auto": some}) == ["position_scale=1.31 would hold 50 frames."]


def test_a_scale_that_holds_no_more_is_not_named(plan: Plan):
    """The cap of visual tokens was in the way, not the positions."""
    assert said(draft_of(plan, 40), {"auto": draft_of(plan, 40)}) == []
    assert said(draft_of(plan, 40), {}, position_scale="auto") == []


def test_weights_that_leave_more_cache(plan: Plan):
    cut = draft_of(plan, 40, is_memory=True)
    formats = {
        "int8": draft_of(plan, 50, weight_format="int8"),
        "int4": draft_of(plan, 64, weight_format="int4"),
    }
    assert said(cut, formats) == ["quantize='int4' would hold all 64 frames."]
    formats["int8"] = draft_of(plan, 64, weight_format="int8")
    assert said(cut, formats) == ["quantize='int8' would hold all 64 frames."]
    formats = {"int8": formats["int8"], "int4": draft_of(plan, 41, weight_format="int4")}
    formats["int8"] = draft_of(plan, 40, weight_format="int8")
    assert said(cut, formats) == ["quantize='int4' would hold 41 frames."]
    assert said(cut, dict.fromkeys(("int8", "int4"), cut)) == []


def test_weights_that_leave_nothing_are_passed_over(plan: Plan):
    whole = draft_of(plan, 64, weight_format="int4")

    def draft_with(planning: PlanningSettings, setup: Setup) -> Draft:
        if setup.weight_format == "int8":
            raise BudgetError("no", "", 2, 1)
        return whole

    cut = draft_of(plan, 40, is_memory=True)
    found = list(hints(cut, PlanningSettings(), SETUP, LIGHTER, draft_with))
    assert found == ["quantize='int4' would hold all 64 frames."]


# --- refusals


def ways_of(plan: Plan, fits: Callable[[Setup], bool]) -> list[dict[str, str]]:
    """Return the ways out where some setups fit."""

    def plan_for(setup: Setup) -> Plan:
        if fits(setup):
            return plan
        raise BudgetError("no", "", 2, 1)

    ways = list(other_setups(SETUP, LIGHTER, plan_for))
    assert all(planned is plan for _, planned in ways)
    return [way for way, _ in ways]


def test_coarser_weights_and_more_memory(plan: Plan):
    """210 MiB needed plain, 130 as int8, 99 as int4."""
    need = {"plain": 210, "int8": 130, "int4": 99}

    def fits(setup: Setup) -> bool:
        limit = setup.limit_bytes
        return limit is None or limit >= need[setup.weight_format] * MIB

    ways = ways_of(plan, fits)
    assert ways[0] == {"quantize": "int4"}
    least = parse_bytes(ways[1]["memory"])
    assert 210 * MIB <= least < 211 * MIB
    need["int8"] = 100
    assert ways_of(plan, fits)[0] == {"quantize": "int8"}  # the finer of two that fit


def test_what_memory_cannot_mend(plan: Plan):
    assert ways_of(plan, lambda setup: False) == []


def test_without_a_limit_there_is_nothing_to_change(plan: Plan):
    assert list(other_setups(Setup(), LIGHTER, lambda setup: plan)) == []
