"""Bytes from shapes, by hand, against the published table, and against the tensors themselves."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from memory_trace import HALF_B, SEVEN_B
from planning_sizes import shaped

from llava_video.model.kv_cache import KvCache
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config
from llava_video.model.quantize import quantise_decoder
from llava_video.ops.kv_format import empty_stored
from llava_video.planning.activations import BLOCK_TOKENS, Chunks, activation_bytes
from llava_video.planning.geometry import Geometry
from llava_video.planning.memory import (
    KV_FORMATS,
    WEIGHT_FORMATS,
    Setup,
    cache_bytes,
    fixed_bytes,
    fused_bytes,
    kv_formats,
    plan_memory,
    request_token_bytes,
    token_bytes,
    weight_formats,
    weights_bytes,
)
from llava_video.planning.settings import SamplingSettings
from llava_video.values import Grid, KvFormat, Plan, WeightFormat

GIB = 2**30
# What the published table assumes: chunks of 2,048 tokens, 8 tiles, 0.35 GiB of workspace.
TABLE = Setup(prefill_chunk_tokens=2048, tile_chunk=8, workspace_bytes=int(0.35 * GIB))


@pytest.fixture
def half_b(geometry: Geometry) -> Geometry:
    return shaped(geometry, HALF_B)


def test_the_formats_are_all_there_are():
    assert get_args(KvFormat) == KV_FORMATS
    assert get_args(WeightFormat) == WEIGHT_FORMATS


def test_bytes_of_a_token(geometry: Geometry, half_b: Geometry):
    """K and V in every layer and head: two bytes a channel; a byte, and a 2-byte scale a head; half
    a byte, and scale and offset for each 64 channels. 28 layers, 4 heads of 128; 24, 2 of 64."""
    assert token_bytes(geometry, "plain") == 2 * 28 * 4 * 256 == 57_344
    assert token_bytes(geometry, "int8") == 2 * 28 * 4 * 130 == 29_120
    assert token_bytes(geometry, "int4") == 2 * 28 * 4 * (64 + 8) == 16_128
    assert [token_bytes(half_b, f) for f in KV_FORMATS] == [12_288, 6_336, 3_456]
    assert token_bytes(replace(geometry, value_bytes=4), "plain") == 2 * 57_344
    assert token_bytes(replace(geometry, value_bytes=4), "int8") == 29_120
    odd_group = replace(geometry, head_dim=48)  # 64 does not divide it: one group
    assert token_bytes(odd_group, "int4") == 2 * 28 * 4 * (24 + 4)


def test_a_fused_token_holds_a_row_beside_its_cache(
    mini: Geometry, make_info, plan_one, geometry: Geometry
):
    """4,096 numbers of two bytes beside 131,072, 66,560 or 36,864 bytes of cache."""
    fused = plan_one(make_info(), model=mini).visuals
    found = {fmt: request_token_bytes(mini, fmt, fused) for fmt in KV_FORMATS}
    assert found == {"plain": 139_264, "int8": 74_752, "int4": 45_056}
    assert [token_bytes(mini, fmt) for fmt in KV_FORMATS] == [131_072, 66_560, 36_864]
    assert request_token_bytes(mini, "plain", ()) == 131_072  # words alone are not fused
    pooled = plan_one(make_info()).visuals
    assert request_token_bytes(geometry, "plain", pooled) == 57_344


def test_a_longer_prompt_is_set_aside_where_it_is_fused(mini: Geometry, make_info, plan_one):
    """Its running sum and what it was before, four and two bytes a number, and its rows in each
    of the 12 frames of a pass."""
    visuals = plan_one(make_info(), model=mini).visuals
    bare = fixed_bytes(mini, TABLE, visuals, 100)
    assert fixed_bytes(mini, TABLE, visuals, 101) - bare >= 4096 * (4 + 2)
    assert fixed_bytes(mini, TABLE, (), 100) == fixed_bytes(mini, TABLE)
    limited = replace(TABLE, limit_bytes=bare + 7)
    assert cache_bytes(mini, limited, visuals, 100) == 7


def test_a_fused_plan_holds_every_row_until_the_last_frame(mini: Geometry, make_info, plan_one):
    plan = plan_one(make_info(30 * 500), model=mini)
    one_more = replace(plan.visuals[0], times_s=(0.0,) * 501, frame_idxs=(0,) * 501, num_tokens=501)
    longer = replace(plan, visuals=(one_more,))
    one, two = (plan_memory(mini, TABLE, each, "plain") for each in (plan, longer))
    assert two.activation_bytes - one.activation_bytes == 8192
    assert two.kv_bytes - one.kv_bytes == 131_072
    assert (8192 + 131_072) / 131_072 == 1.0625


def test_the_activations_of_a_fused_plan(mini: Geometry, make_info, plan_one):
    """The rows of text and frames wait, those of the answer do not; of what is set aside, none."""
    plan = replace(plan_one(make_info(30 * 500), model=mini), text_tokens=100)
    setup = Setup(prefill_chunk_tokens=16_384, tile_chunk=8)
    chunks = Chunks(
        tokens=1112, tiles=8, frame_tiles=1, rows_per_tile=1, seen_tokens=1112, text_tokens=100,
        held_rows=600,
    )  # fmt: skip
    expected = activation_bytes(mini, chunks, kv_format="plain", weight_format="plain")
    assert plan_memory(mini, setup, plan, "plain").activation_bytes == expected
    full = replace(chunks, tokens=16_384, rows_per_tile=3, seen_tokens=BLOCK_TOKENS, held_rows=0)
    expected = activation_bytes(mini, full, kv_format="int8", weight_format="plain")
    aside = fixed_bytes(mini, setup, plan.visuals, plan.text_tokens)
    assert aside == weights_bytes(mini, "plain") + expected


@pytest.mark.parametrize("kv_format", KV_FORMATS)
@pytest.mark.parametrize(("heads", "width"), [(4, 128), (2, 64), (3, 48), (1, 2)])
def test_the_cache_takes_these_bytes(geometry: Geometry, kv_format, heads: int, width: int):
    """Of real tensors: what 7 tokens of one layer take."""
    stored = empty_stored(
        7, heads, width, kv_format=kv_format, dtype=torch.bfloat16, device=torch.device("cpu")
    )
    parts = (stored.k, stored.v, stored.k_scales, stored.v_scales)
    num_bytes = sum(part.numel() * part.itemsize for part in parts if part is not None)
    shape = replace(geometry, num_layers=1, num_kv_heads=heads, head_dim=width)
    assert 7 * token_bytes(shape, kv_format) == num_bytes


@pytest.mark.parametrize("kv_format", KV_FORMATS)
def test_a_real_cache_holds_these_bytes(geometry: Geometry, tiny_folder: Path, kv_format: KvFormat):
    """Of a cache of the tiny model, in slabs of 100 tokens and one of its own for 250."""
    text = read_model_config(tiny_folder).text
    cache = KvCache(
        text.num_layers,
        text.num_kv_heads,
        text.head_dim,
        dtype=torch.float32,
        devices=[torch.device("cpu")],
        slab_tokens=100,
    )
    cache.reserve(60, kv_format)
    cache.reserve(250, kv_format)
    shape = shaped(geometry, read_model_config(tiny_folder).dimensions, value_bytes=4)
    assert cache.held_bytes == (100 + 250) * token_bytes(shape, kv_format)
    assert cache.token_bytes(kv_format) == token_bytes(shape, kv_format)


def test_bytes_of_the_weights(geometry: Geometry, half_b: Geometry):
    """The decoder's linear layers, 28 x (2 x 3584 x (3584 + 512) + 3 x 3584 x 18944) weights, of
    8,030,346,528 in all. int8 has a scale for each of 28 x 54,272 outputs... the published figures,
    in GB, are 16.06, 9.54 and 6.48; 0.5B: 1.79, 1.43, 1.26."""
    num_linear = 28 * (2 * 3584 * (3584 + 512) + 3 * 3584 * 18_944)
    assert weights_bytes(geometry, "plain") == 16_060_693_056
    outputs = 28 * (2 * 3584 + 2 * 512 + 2 * 18_944 + 3584)
    assert weights_bytes(geometry, "int8") == 16_060_693_056 - num_linear + 2 * outputs
    assert weights_bytes(geometry, "int4") == (
        16_060_693_056 - 2 * num_linear + num_linear // 2 + num_linear // 128 * 4
    )
    published = {"plain": 16.06, "int8": 9.54, "int4": 6.48}
    for weight_format, gigabytes in published.items():
        assert weights_bytes(geometry, weight_format) / 1e9 == pytest.approx(gigabytes, abs=0.006)
    found = [round(weights_bytes(half_b, f) / 1e9, 2) for f in WEIGHT_FORMATS]
    assert found == [1.79, 1.43, 1.26]


@pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)
@pytest.mark.parametrize("size", ["7b", "0.5b", "tiny"])
def test_a_model_takes_these_bytes(
    geometry: Geometry, tiny_folder: Path, size: str, weight_format: WeightFormat
):
    """Of the model's own parameters and buffers: those of a real one, without their data."""
    tiny = read_model_config(tiny_folder).dimensions
    dimensions = {"7b": SEVEN_B, "0.5b": HALF_B, "tiny": tiny}[size]
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            model = LlavaModel(dimensions)
            quantise_decoder(model, weight_format)
    finally:
        torch.set_default_dtype(torch.float32)
    tensors = [*model.parameters(), *model.buffers()]
    num_bytes = sum(tensor.numel() * tensor.itemsize for tensor in tensors)
    assert weights_bytes(shaped(geometry, dimensions), weight_format) == num_bytes


def test_what_cannot_be_packed_in_pairs_is_not_offered(geometry: Geometry):
    assert kv_formats(geometry) == KV_FORMATS
    assert kv_formats(replace(geometry, head_dim=127)) == ("plain", "int8")
    assert weight_formats(geometry) == WEIGHT_FORMATS
    assert weight_formats(replace(geometry, intermediate_size=4863)) == ("plain", "int8")


@pytest.mark.parametrize(
    ("weight_format", "kv_format", "gib", "thousands"),
    [
        ("plain", "plain", 21.5, 110),
        ("plain", "int8", 21.5, 217),
        ("plain", "int4", 21.5, 392),
        ("int8", "int8", 21.5, 441),
        ("int4", "plain", 21.5, 277),
        ("int4", "int8", 21.5, 546),
        ("int4", "int4", 21.5, 986),
        ("plain", "plain", 23.2, 142),
        ("int4", "int8", 23.2, 609),
    ],
)
def test_the_published_table_of_a_7b(
    geometry: Geometry, weight_format, kv_format, gib: float, thousands: int
):
    """Tokens in the memory of a 24 GB card (see docs/performance.md); 546 thousand tokens are 2,600
    frames of 210. Quantised weights are counted with one of them made plain again, which the table
    leaves out: 136 MB, 4,700 tokens of int8 cache."""
    setup = replace(TABLE, weight_format=weight_format, limit_bytes=int(gib * GIB))
    tokens = cache_bytes(geometry, setup) // token_bytes(geometry, kv_format)
    assert tokens / 1000 == pytest.approx(thousands, rel=0.02)


def test_the_published_table_of_a_half_b(half_b: Geometry):
    setup = replace(TABLE, limit_bytes=int(21.5 * GIB))
    tokens = cache_bytes(half_b, setup) // token_bytes(half_b, "plain")
    assert tokens / 210 == pytest.approx(8035, rel=0.02)


def test_the_parts_of_an_estimate(geometry: Geometry, make_info, plan_one):
    setup = Setup(weight_format="int8", prefill_chunk_tokens=64, tile_chunk=2, workspace_bytes=5)
    plan = plan_one(make_info())
    memory = plan_memory(geometry, setup, plan, "int4")
    assert memory.weights_bytes == weights_bytes(geometry, "int8")
    assert memory.kv_bytes == (plan.tokens + 512) * 16_128
    assert memory.workspace_bytes == 5
    assert memory.total_bytes == (
        memory.weights_bytes + memory.kv_bytes + memory.activation_bytes + memory.workspace_bytes
    )


def test_activations_grow_no_further_than_a_chunk(geometry: Geometry, make_info, plan_one):
    def activations(num_frames: int, **chunks: int) -> int:
        plan = plan_one(make_info(num_frames), sampling=SamplingSettings(num_frames=num_frames))
        return plan_memory(geometry, Setup(**chunks), plan, "plain").activation_bytes

    for chunks in ({"tile_chunk": 8}, {"prefill_chunk_tokens": 2048, "tile_chunk": 2}):
        assert activations(4, **chunks) <= activations(16, **chunks) <= activations(40, **chunks)
    chunked = {"prefill_chunk_tokens": 2048, "tile_chunk": 8}
    assert activations(1, **chunked) < activations(8, **chunked)
    assert activations(30, **chunked) == activations(60, **chunked)
    assert activations(30) < activations(60)  # all at once


def test_no_call_has_tiles_of_two_visuals(geometry: Geometry, make_info, plan_one):
    """Eight clips of two frames take what one takes, and the rows of seven more wait: 2 x 210 of
    3,584 channels each. Calls are of whole frames: of five tiles, 15 of 16."""
    one = plan_one(make_info(2), sampling=SamplingSettings(num_frames=2))
    eight = replace(one, visuals=one.visuals * 8)
    setup = Setup(prefill_chunk_tokens=8192, tile_chunk=16)

    def activations(plan: Plan, setup: Setup = setup) -> int:
        narrow = replace(geometry, intermediate_size=8, num_heads=1, num_kv_heads=1, vocab_size=8)
        narrow = replace(narrow, vision_intermediate_size=80_000)  # the vision's is the larger
        return plan_memory(narrow, setup, plan, "plain").activation_bytes

    assert activations(eight) - activations(one) == 7 * 2 * 210 * 3584 * 2
    wide = replace(one.visuals[0], grid=Grid(2, 2), overview=True, times_s=(0.0,) * 9)
    tiled = replace(one, visuals=(replace(wide, num_tokens=9 * 5 * 210),))
    assert activations(tiled) == activations(tiled, replace(setup, tile_chunk=15))


def test_what_is_left_for_the_cache(geometry: Geometry):
    assert cache_bytes(geometry, TABLE) is None
    fixed = fixed_bytes(geometry, TABLE)
    assert cache_bytes(geometry, replace(TABLE, limit_bytes=fixed + 7)) == 7
    assert cache_bytes(geometry, replace(TABLE, limit_bytes=fixed - 7)) == 0
    more = replace(TABLE, workspace_bytes=TABLE.workspace_bytes + 1)
    assert fixed_bytes(geometry, more) == fixed + 1


def test_no_plan_takes_more_than_was_set_aside(geometry: Geometry, make_info, plan_one):
    """Whatever is planned, beside its cache it takes at most the fixed bytes of its layout."""
    knobs = ({}, {"pool_stride": 1}, {"detail": "high"}, {"kv_cache": "int8"}, {"kv_cache": "int4"})
    for settings in knobs:
        for weight_format in WEIGHT_FORMATS:
            setup = replace(TABLE, weight_format=weight_format)
            plan = plan_one(make_info(), setup=setup, position_scale=4.0, **settings)
            memory = plan.memory
            aside = fixed_bytes(geometry, setup, plan.visuals)
            assert memory.total_bytes - memory.kv_bytes <= aside
            assert fixed_bytes(geometry, setup) <= aside
            assert memory == plan_memory(geometry, setup, plan, plan.kv_format)
            num_tokens = plan.tokens + plan.max_new_tokens
            assert memory.kv_bytes == num_tokens * token_bytes(geometry, plan.kv_format)


def test_what_a_fused_plan_takes_beside_its_cache(
    mini: Geometry, make_info, plan_one, geometry: Geometry
):
    """Its cache and this fit what the engine's limit is, exactly where the plan fits the memory."""
    plan = replace(plan_one(make_info(30 * 500), model=mini), text_tokens=100)
    rows_bytes = 600 * 4096 * 2
    own, bare = fixed_bytes(mini, TABLE, plan.visuals, 100), fixed_bytes(mini, TABLE)
    assert own > bare
    assert fused_bytes(mini, TABLE, plan) == rows_bytes + own - bare
    limited = replace(TABLE, limit_bytes=bare + 10**9)
    room_bytes = cache_bytes(mini, limited, plan.visuals, 100)
    assert cache_bytes(mini, limited) - fused_bytes(mini, limited, plan) == room_bytes - rows_bytes
    assert fused_bytes(geometry, TABLE, plan_one(make_info())) == 0
