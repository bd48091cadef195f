"""Rooms and bytes, counted by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_video.errors import BudgetError
from llava_video.planning.budget import (
    Room,
    estimate_memory,
    fair_level,
    free_tokens,
    limit_tokens,
)
from llava_video.planning.geometry import Geometry
from llava_video.planning.settings import PlanningSettings


def free_of(geometry: Geometry, *, text: int = 268, images: int = 0, **knobs: object) -> int:
    planning = PlanningSettings(**knobs)
    return free_tokens(geometry, planning, text_tokens=text, image_tokens=images)


def test_text_pictures_and_answer_come_off_first(geometry: Geometry):
    assert free_of(geometry, images=730) == 32768 - 268 - 730 - 512 == 31258


def test_the_share_of_a_sentence_rounds_down():
    room = Room(total_tokens=31258, visual_tokens=None, time_share=0.05)
    assert room.note_tokens == 1562  # of 1562.9


def test_position_scale_stretches_the_context(geometry: Geometry):
    assert limit_tokens(geometry, PlanningSettings(position_scale=1.5)) == 49152
    assert free_of(geometry, position_scale=1.5) - free_of(geometry) == 16384


def test_the_last_token_may_be_used_and_no_more(geometry: Geometry):
    assert free_of(geometry, text=32768 - 512) == 0
    with pytest.raises(BudgetError, match="the context holds 32,768") as refusal:
        free_of(geometry, text=32768 - 511)
    assert (refusal.value.need_tokens, refusal.value.have_tokens) == (32769, 32768)


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


def test_bytes_of_the_cache(geometry: Geometry):
    # 2 (K and V) * 28 layers * 4 heads * 128 channels * 2 bytes = 57,344 a token.
    memory = estimate_memory(geometry, num_tokens=1000, num_tiles=1)
    assert memory.kv_bytes == 57_344_000
    assert memory.weights_bytes == geometry.weights_bytes
    full = estimate_memory(replace(geometry, kv_bytes_per_value=4), num_tokens=1000, num_tiles=1)
    assert full.kv_bytes == 2 * memory.kv_bytes


def test_activations_grow_no_further_than_a_chunk(geometry: Geometry):
    def activations(num_tokens: int, num_tiles: int) -> int:
        memory = estimate_memory(geometry, num_tokens=num_tokens, num_tiles=num_tiles)
        return memory.activation_bytes

    # 2048 tokens * 18 * 3584 channels * 2 bytes; 16 tiles * 729 patches * 11 * 1152 * 2 bytes.
    assert activations(10**6, 0) == activations(2048, 0) == 264_241_152
    assert activations(0, 10**6) == activations(0, 16) == 16 * 729 * (1152 + 11520) * 2
    assert activations(0, 1) < activations(0, 2)
    assert activations(0, 0) == 0
