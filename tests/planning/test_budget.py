"""Rooms and bytes, counted by hand."""

from dataclasses import replace

import pytest

from llava_video.errors import BudgetError
from llava_video.planning.budget import Room, estimate_memory, limit_tokens, room_per_video
from llava_video.planning.geometry import Geometry
from llava_video.planning.settings import PlanningSettings


def room_of(geometry: Geometry, *, text=268, images=0, videos=1, **knobs: object) -> Room:
    return room_per_video(
        geometry,
        PlanningSettings(**knobs),
        text_tokens=text,
        image_tokens=images,
        num_videos=videos,
    )


def test_text_pictures_and_answer_come_off_first(geometry: Geometry):
    room = room_of(geometry, images=730)
    assert room.total_tokens == 32768 - 268 - 730 - 512 == 31258
    assert room.visual_tokens is None
    assert room.note_tokens == 1562  # 5 % of it, 1562.9, down


def test_videos_share_equally(geometry: Geometry):
    room = room_of(geometry, videos=3, max_video_tokens=10000)
    assert (room.total_tokens, room.visual_tokens) == (31988 // 3, 3333)


def test_position_scale_stretches_the_context(geometry: Geometry):
    assert limit_tokens(geometry, PlanningSettings(position_scale=1.5)) == 49152
    stretched = room_of(geometry, position_scale=1.5)
    assert stretched.total_tokens - room_of(geometry).total_tokens == 16384


def test_the_last_token_may_be_used_and_no_more(geometry: Geometry):
    assert room_of(geometry, text=32768 - 512).total_tokens == 0
    with pytest.raises(BudgetError, match="the context holds 32,768") as refusal:
        room_of(geometry, text=32768 - 511)
    assert (refusal.value.need_tokens, refusal.value.have_tokens) == (32769, 32768)


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
