"""Weights and cache are as fine as memory allows, in the declared order, and say why."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_video.errors import BudgetError
from llava_video.planning.amount import parse_bytes
from llava_video.planning.budget import Limit
from llava_video.planning.draft import Draft
from llava_video.planning.geometry import Geometry
from llava_video.planning.memory import (
    KV_FORMATS,
    WEIGHT_FORMATS,
    Setup,
    cache_bytes,
    fixed_bytes,
    token_bytes,
)
from llava_video.planning.precision import choose_weights, draft_in_memory, lighter_setups
from llava_video.planning.settings import PlanningSettings
from llava_video.values import Plan

GIB = 2**30
SETUP = Setup(prefill_chunk_tokens=2048, tile_chunk=16, workspace_bytes=375_809_638)
# The whole context of 32,768 tokens as int8 cache: what weights should leave.
USEFUL = 32_768 * 29_120
LEAST = 2_048 * 16_128


def fixed(geometry: Geometry, weight_format: str) -> int:
    return fixed_bytes(geometry, replace(SETUP, weight_format=weight_format))


def chosen(geometry: Geometry, limit_bytes: int | None, pinned: str | None = None) -> Setup:
    return choose_weights(geometry, replace(SETUP, limit_bytes=limit_bytes), pinned)


# --- weights


def test_without_a_limit_weights_are_plain(geometry: Geometry):
    assert chosen(geometry, None) == SETUP
    assert chosen(geometry, None, "plain") == SETUP


@pytest.mark.parametrize("weight_format", ["plain", "int8"])
def test_the_finest_that_leave_a_useful_cache(geometry: Geometry, weight_format: str):
    """To the byte: one less, and the next coarser is taken."""
    enough = fixed(geometry, weight_format) + USEFUL
    assert chosen(geometry, enough).weight_format == weight_format
    later = WEIGHT_FORMATS[WEIGHT_FORMATS.index(weight_format) + 1]
    assert chosen(geometry, enough - 1).weight_format == later


def test_the_coarsest_are_taken_down_to_a_little_cache(geometry: Geometry):
    least = fixed(geometry, "int4") + LEAST
    assert chosen(geometry, least).weight_format == "int4"
    with pytest.raises(BudgetError) as refusal:
        chosen(geometry, least - 1)
    assert (refusal.value.need_bytes, refusal.value.have_bytes) == (least, least - 1)
    assert "LLaVA-Video-7B-Qwen2 needs" in refusal.value.message
    assert "weights 6.0 GiB (int4)" in refusal.value.message
    (memory,) = re.fullmatch(r"memory='(.*)', or a smaller model.", refusal.value.hint).groups()
    assert chosen(geometry, parse_bytes(memory)).weight_format == "int4"
    assert parse_bytes(memory) - least < GIB / 10


@pytest.mark.parametrize(
    ("pinned", "gib", "lighter"),
    [("plain", 12, "int8"), ("plain", 8, "int4"), ("plain", 4, None), ("int8", 4, None)],
)
def test_pinned_weights_are_kept_or_refused(geometry: Geometry, pinned: str, gib: int, lighter):
    """And what the refusal suggests fits."""
    assert chosen(geometry, fixed(geometry, pinned) + LEAST, pinned).weight_format == pinned
    assert chosen(geometry, 100 * GIB, pinned).weight_format == pinned
    with pytest.raises(BudgetError) as refusal:
        chosen(geometry, gib * GIB, pinned)
    suggested = dict(re.findall(r"(\w+)='([^']*)'", refusal.value.hint))
    assert suggested.get("quantize") == lighter
    assert chosen(geometry, parse_bytes(suggested["memory"]), pinned).weight_format == pinned
    if lighter:
        assert chosen(geometry, gib * GIB, lighter).weight_format == lighter


def test_weights_say_why(geometry: Geometry):
    assert chosen(geometry, 20 * GIB).reasons == ()
    assert chosen(geometry, 20 * GIB, "plain").reasons == ()
    (asked,) = chosen(geometry, 20 * GIB, "int8").reasons
    assert asked == "Weights int8, as asked: 8.9 GiB instead of 15.0 GiB."
    (reason,) = chosen(geometry, 8 * GIB).reasons
    assert reason == (
        "Weights plain → int4, 6.0 GiB instead of 15.0 GiB: with plain ones nothing and with int8 "
        "ones nothing would be left of 8.0 GiB for the cache, which takes 910.0 MiB for 32,768 "
        "tokens as int8."
    )


def test_lighter_setups_come_in_order(geometry: Geometry):
    assert [own.weight_format for own in lighter_setups(geometry, SETUP)] == ["int8", "int4"]
    int4 = replace(SETUP, weight_format="int4")
    assert lighter_setups(geometry, int4) == ()
    assert lighter_setups(replace(geometry, hidden_size=3585), int4) == ()


@given(st.integers(6 * GIB, 40 * GIB), st.integers(0, 4 * GIB))
def test_more_memory_never_gives_coarser_weights(geometry: Geometry, limit: int, more: int):
    def fineness(limit_bytes: int) -> int:
        try:
            return -WEIGHT_FORMATS.index(chosen(geometry, limit_bytes).weight_format)
        except BudgetError:
            return -len(WEIGHT_FORMATS)

    assert fineness(limit + more) >= fineness(limit)


# --- the cache


class Request:
    """A request of 9,600 tokens, which takes what it is given."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.limits: list[Limit] = []

    def within(self, limit: Limit) -> Draft:
        self.limits.append(limit)
        tokens = min(9_600, limit.tokens) - self.plan.text_tokens - self.plan.max_new_tokens
        visual = replace(self.plan.visuals[0], num_tokens=tokens)
        plan = replace(self.plan, visuals=(visual,), kv_format=limit.kv_format)
        return Draft(plan=plan, limit=limit, is_whole=limit.tokens >= 9_600)


@pytest.fixture
def request_of(make_info: Callable, plan_one: Callable) -> Request:
    return Request(plan_one(make_info(90)))


def drafted(geometry: Geometry, request: Request, room: int | None, **knobs: object) -> Draft:
    limit = None if room is None else fixed(geometry, "plain") + room
    setup = replace(SETUP, limit_bytes=limit)
    return draft_in_memory(PlanningSettings(**knobs), 1.0, geometry, setup, request.within)


def test_without_a_limit_the_cache_is_plain(geometry: Geometry, request_of: Request):
    draft = drafted(geometry, request_of, None)
    assert draft.plan.kv_format == "plain"
    assert request_of.limits == [Limit(tokens=32_768)]
    assert drafted(geometry, request_of, None, kv_cache="int4").plan.kv_format == "int4"


@pytest.mark.parametrize("kv_format", KV_FORMATS)
def test_the_finest_cache_that_holds_all(geometry: Geometry, request_of: Request, kv_format: str):
    """To the byte: 9,600 tokens need 9,600 times a token's; one byte less, and it is coarser."""
    need = 9_600 * token_bytes(geometry, kv_format)
    draft = drafted(geometry, request_of, need)
    assert (draft.plan.kv_format, draft.is_whole) == (kv_format, True)
    assert draft.plan.memory.kv_bytes == need or kv_format == "plain"
    less = drafted(geometry, request_of, need - 1)
    assert (less.plan.kv_format, less.is_whole) != (kv_format, True)


def test_then_tokens_go(geometry: Geometry, request_of: Request):
    draft = drafted(geometry, request_of, 9_599 * 16_128)
    assert draft.limit == Limit(tokens=9_599, kv_format="int4", token_bytes=16_128)
    assert not draft.is_whole
    assert draft.plan.memory.kv_bytes == 9_599 * 16_128


def test_what_is_to_be_left_free_counts_as_taken(geometry: Geometry, request_of: Request):
    """Room for 9,600 tokens of int4, or 5,317 of int8; 100 of them for another question."""
    limit = fixed(geometry, "plain") + 9_600 * 16_128
    setup = replace(SETUP, limit_bytes=limit, spare_tokens=100)

    def draft(**own: int) -> Draft:
        asked, changed = PlanningSettings(), replace(setup, **own)
        return draft_in_memory(asked, 1.0, geometry, changed, request_of.within)

    assert draft().limit.tokens == 9_500
    assert draft(spare_tokens=0).is_whole
    assert draft(limit_bytes=limit + 100 * 16_128).is_whole
    assert draft(spare_tokens=10_000).limit.tokens == 0


def test_a_pinned_cache_is_kept(geometry: Geometry, request_of: Request):
    room = 9_600 * 29_120
    assert drafted(geometry, request_of, room, kv_cache="int4").plan.kv_format == "int4"
    assert drafted(geometry, request_of, 10**12, kv_cache="int8").plan.kv_format == "int8"
    cut = drafted(geometry, request_of, room, kv_cache="plain")
    assert cut.limit == Limit(tokens=room // 57_344, token_bytes=57_344)
    assert cut.plan.kv_format == "plain"


def test_the_cache_says_why(geometry: Geometry, request_of: Request):
    """9,600 tokens are 525.0 MiB plain, 266.6 as int8, 147.7 as int4."""
    plain = drafted(geometry, request_of, 10**12).plan.reasons
    (reason,) = drafted(geometry, request_of, 200 * 2**20).plan.reasons[len(plain) :]
    assert reason.startswith(
        "Cache plain → int4: 9,600 tokens would take 525.0 MiB plain or 266.6 MiB int8, 200.0 MiB "
        "of 15."
    )
    assert reason.endswith("GiB are left for it.")
    pinned = drafted(geometry, request_of, 200 * 2**20, kv_cache="int4").plan.reasons
    assert pinned == plain


def test_no_memory_at_all_is_a_limit_of_no_tokens(geometry: Geometry, request_of: Request):
    assert cache_bytes(geometry, replace(SETUP, limit_bytes=1)) == 0
    draft = drafted(geometry, request_of, -GIB)
    assert draft.limit.tokens == 0
