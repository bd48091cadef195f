"""Limits and rooms, counted by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_video.errors import BudgetError
from llava_video.planning.budget import Limit, Room, fair_level, free_tokens, limit_tokens
from llava_video.planning.geometry import Geometry
from llava_video.planning.settings import PlanningSettings

CONTEXT = Limit(tokens=32768)


def free_of(limit: Limit = CONTEXT, *, text: int = 268, images: int = 0, **knobs: object) -> int:
    planning = PlanningSettings(**knobs)
    return free_tokens(limit, planning, text_tokens=text, image_tokens=images)


def test_text_pictures_and_answer_come_off_first():
    assert free_of(images=730) == 32768 - 268 - 730 - 512 == 31258
    assert free_of(max_new_tokens=12) == 32768 - 268 - 12


def test_the_share_of_a_sentence_rounds_down():
    room = Room(total_tokens=31258, visual_tokens=None, time_share=0.05, limit=CONTEXT)
    assert room.note_tokens == 1562  # of 1562.9


def test_position_scale_stretches_the_context(geometry: Geometry):
    assert limit_tokens(geometry, 1) == 32768
    assert limit_tokens(geometry, 1.5) == 49152
    assert limit_tokens(geometry, 1.01) == 33095  # of 33,095.68


def test_the_last_token_may_be_used_and_no_more():
    assert free_of(text=32768 - 512) == 0
    with pytest.raises(BudgetError, match="the context holds 32,768") as refusal:
        free_of(text=32768 - 511)
    assert (refusal.value.need_tokens, refusal.value.have_tokens) == (32769, 32768)


def test_what_memory_holds_is_said_in_bytes_too():
    """600 tokens of 16,128 bytes are 9,676,800 bytes = 9.2 MiB."""
    memory = Limit(tokens=600, kv_format="int4", token_bytes=16_128)
    assert free_of(memory, text=88) == 0
    with pytest.raises(BudgetError) as refusal:
        free_of(memory, text=89)
    assert refusal.value.message == (
        "text (89), pictures (0) and answer (512) need 601 tokens (9.2 MiB of int4 cache), the "
        "memory holds 600 (9.2 MiB of int4 cache)."
    )


def test_rows_that_wait_are_named_with_the_cache():
    memory = Limit(tokens=600, kv_format="int8", token_bytes=2**20, has_rows=True)
    assert memory.note(3) == " (3.0 MiB of int8 cache and waiting rows)"
    assert Limit(tokens=600, has_rows=True).note(3) == ""


@pytest.mark.parametrize(
    ("wants", "total", "level"),
    [
        ([900], 1000, 1000),
        ([1100], 1000, 1000),
        ([500, 500], 1000, 1000),  # all fit
        ([501, 500], 1000, 500),
        ([100, 900, 800], 1000, 450),  # 100, and half of 900 each
        ([100, 200, 5000], 1000, 700),
        ([10, 10, 10], 29, 9),
        ([], 5, 5),
        ([1], 0, 0),
    ],
)
def test_fair_levels(wants: list[int], total: int, level: int):
    assert fair_level(wants, total) == level


@given(st.lists(st.integers(0, 500), min_size=1, max_size=5), st.integers(0, 2000))
def test_fair_levels_fit_and_leave_nothing(wants: list[int], total: int):
    level = fair_level(wants, total)
    taken = sum(min(want, level) for want in wants)
    assert taken <= total
    assert taken == sum(wants) or taken > total - len(wants)
    assert fair_level(wants, total + 1) >= level
