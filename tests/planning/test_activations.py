"""What is alive at once, by hand, and against what the code holds at real sizes."""

from dataclasses import replace

import pytest
from memory_trace import (
    HALF_B,
    MINI_8B,
    SEVEN_B,
    FakeRun,
    fake_model,
    run_video,
    traced,
    video_of,
)
from planning_fixtures import LLAVA_1_7B, LLAVA_15_7B, MINI_HD_8B, NEXT_7B, NEXT_VIDEO_7B
from planning_fixtures import MINI_8B as MINI_GEOMETRY
from planning_sizes import shaped

from llava_video.model.dimensions import FusionConfig, ModelDimensions
from llava_video.ops import attention, quant_linear
from llava_video.planning.activations import (
    BLOCK_TOKENS,
    FUSION_ROWS,
    WEIGHT_BLOCK_BYTES,
    Chunks,
    activation_bytes,
)
from llava_video.planning.geometry import Geometry
from llava_video.planning.layout import (
    Layout,
    fused_layout,
    image_layout,
    video_layout,
    visual_plan,
)
from llava_video.planning.memory import Setup, plan_memory
from llava_video.values import Grid, KvFormat, Plan, VisualPlan, WeightFormat

MIB = 2**20
PREFILL = Chunks(tokens=2048, tiles=0, frame_tiles=0, rows_per_tile=0, seen_tokens=100_000)
VISION = Chunks(tokens=0, tiles=16, frame_tiles=1, rows_per_tile=210, seen_tokens=0)


def bytes_of(
    geometry: Geometry,
    chunks: Chunks,
    kv_format: KvFormat = "plain",
    weight_format: WeightFormat = "plain",
) -> int:
    return activation_bytes(geometry, chunks, kv_format=kv_format, weight_format=weight_format)


def test_blocks_are_those_of_the_code():
    assert BLOCK_TOKENS == attention.BLOCK_TOKENS
    assert WEIGHT_BLOCK_BYTES == quant_linear.GPU_BLOCK_BYTES


def test_a_prefill_chunk_of_a_7b(geometry: Geometry):
    """2,048 rows of 3 x 3,584 + 2 x 18,944 numbers of two bytes, and cosines and sines of 128."""
    tables = 2048 * 128 * 4
    assert bytes_of(geometry, PREFILL) == 2048 * (3 * 3584 + 2 * 18_944) * 2 + tables
    short = replace(PREFILL, tokens=100)
    assert bytes_of(geometry, short) == 100 * (3 * 3584 + 2 * 18_944) * 2 + 100 * 128 * 4


def test_a_quantised_cache_adds_a_block_to_attention(geometry: Geometry):
    """(3 + 8) x 3,584 + 2 x 512 numbers a row; K and V of 32,768 tokens of 512 channels beside."""
    attention = 2048 * (11 * 3584 + 2 * 512) * 2 + 2048 * 128 * 4
    block = 2 * 32_768 * 512 * 2
    assert bytes_of(geometry, PREFILL, "int8") == attention + block
    few = replace(PREFILL, seen_tokens=1000)  # less than the MLP holds: its peak is the larger
    assert bytes_of(geometry, few, "int4") == bytes_of(geometry, few)
    more = replace(PREFILL, seen_tokens=30_000)
    assert bytes_of(geometry, more, "int4") == attention + 2 * 30_000 * 512 * 2


def test_quantised_weights_add_the_largest_layer(geometry: Geometry):
    """3,584 x 18,944 numbers of two bytes; of wider ones a block of 256 MiB."""
    extra = bytes_of(geometry, PREFILL, weight_format="int4") - bytes_of(geometry, PREFILL)
    assert extra == 3584 * 18_944 * 2
    wide = replace(geometry, intermediate_size=49_152)
    extra = bytes_of(wide, PREFILL, weight_format="int8") - bytes_of(wide, PREFILL)
    assert extra == 256 * MIB


def test_a_vision_call_of_a_7b(geometry: Geometry):
    """16 tiles of 3 x 384 x 384 float32; 729 patches each of the widest: attention's 7 x 1,152 or
    the projector's 1,152 + 2 x 3,584; and the 3,360 rows of the call before."""
    pixels, rows = 16 * 3 * 384**2 * 4, 16 * 210 * 3584 * 2
    assert bytes_of(geometry, VISION) == pixels + 16 * 729 * (1152 + 2 * 3584) * 2 + rows
    narrow = replace(geometry, hidden_size=896)
    rows = 16 * 210 * 896 * 2
    assert bytes_of(narrow, VISION) == pixels + 16 * 729 * 7 * 1152 * 2 + rows


def test_a_frame_of_more_tiles_than_a_call_keeps_its_maps(geometry: Geometry):
    """37 tiles in calls of 16: their unpooled maps stand beside each call, and all of them, of two
    bytes a number, instead of 16 of four."""
    many = replace(VISION, frame_tiles=37)
    maps, rows = 37 * 729 * 3584 * 2, (37 - 16) * 210 * 3584 * 2
    tiles = (37 * 2 - 16 * 4) * 3 * 384**2
    assert bytes_of(geometry, many) == bytes_of(geometry, VISION) + maps + rows + tiles


def test_frames_cut_on_the_device_are_counted_where_the_tower_is_small(geometry: Geometry):
    """37 tiles of two bytes a number, and a frame and half a resize of at most four; of 4 frames
    of 9 tiles each the last one's twice. A call's rows wait beside it."""
    small = replace(geometry, vision_width=8, vision_intermediate_size=8, hidden_size=8)
    small = replace(small, intermediate_size=8, num_heads=1, num_kv_heads=1, vocab_size=8)
    tile = 3 * 384**2
    one = replace(VISION, tiles=1, frame_tiles=37)
    assert bytes_of(small, one) == 37 * tile * (2 + 4) + 37 * 210 * 8 * 2
    # Unless as many float32 tiles from the CPU are more.
    four = replace(VISION, tiles=36, frame_tiles=9)
    from_cpu = 36 * tile * 4 + 36 * 729 * 7 * 8 * 2
    there = 36 * tile * 2 + 9 * tile * (2 + 4)
    assert bytes_of(small, four) == max(from_cpu, there) + 36 * 210 * 8 * 2


def test_unpooled_pictures_are_widest_in_the_pooling(geometry: Geometry):
    """A tile at a time, 37 of one picture: rows that wait, maps, and pooled rows of all of them."""
    picture = replace(VISION, tiles=1, frame_tiles=37, rows_per_tile=729)
    assert bytes_of(geometry, picture) == 3 * 37 * 729 * 3584 * 2


def test_more_of_anything_is_never_less(geometry: Geometry):
    base = Chunks(tokens=100, tiles=4, frame_tiles=2, rows_per_tile=50, seen_tokens=1000)
    for name in ("tokens", "tiles", "frame_tiles", "rows_per_tile", "seen_tokens"):
        more = replace(base, **{name: 3 * getattr(base, name)})
        for kv_format in ("plain", "int8"):
            assert bytes_of(geometry, more, kv_format) >= bytes_of(geometry, base, kv_format)


# --- frames that are fused with the prompt


def fused(**others: int) -> Chunks:
    given = {"tokens": 64, "tiles": 20, "frame_tiles": 1, "rows_per_tile": 1, "seen_tokens": 2000}
    return Chunks(**{**given, "text_tokens": 100, **others})


def test_a_pass_of_fused_frames(mini: Geometry):
    """576 patches, a query and 100 words: of 677 rows, 12 frames make 8,124. Each row is 3 x 4,096
    and 2 x 14,336 numbers wide in the MLP, beside the patches' features three times and projected;
    the prompt before it and its running sum stand beside it."""
    rows, patches = 12 * 677, 12 * 576
    numbers = patches * (3 * 1024 + 4096) + rows * (3 * 4096 + 2 * 14_336)
    text = 100 * 4096 * (2 + 4)
    assert bytes_of(mini, fused()) == 2 * numbers + rows * 128 * 4 + text
    assert bytes_of(mini, fused(held_rows=7)) == bytes_of(mini, fused()) + 7 * 4096 * 2
    assert bytes_of(mini, fused(tiles=3)) < bytes_of(mini, fused()) / 3


def test_a_long_prompt_leaves_one_frame_a_pass(mini: Geometry):
    """8,192 rows and more are one frame, however many a call has."""
    words = FUSION_ROWS
    rows = 577 + words
    numbers = 576 * (3 * 1024 + 4096) + rows * (3 * 4096 + 2 * 14_336)
    text = words * 4096 * (2 + 4)
    assert bytes_of(mini, fused(text_tokens=words)) == 2 * numbers + rows * 128 * 4 + text


def test_wide_heads_are_widest_in_the_attention(mini: Geometry):
    """Of a narrow MLP: 2 x 4,096 and 5 x 4,096 and 4 x 1,024 numbers a row."""
    narrow = replace(mini, intermediate_size=4096)
    rows, patches = 12 * 677, 12 * 576
    numbers = patches * (3 * 1024 + 4096) + rows * (7 * 4096 + 4 * 1024)
    assert bytes_of(narrow, fused()) == 2 * numbers + rows * 128 * 4 + 100 * 4096 * 6


def test_the_parts_of_a_fused_frame_pass_together(mini_hd: Geometry):
    """Five tiles of a frame: 2,880 patches, 64 queries and 100 words are 3,044 rows, two frames a
    pass of the four in a call."""
    rows, patches = 2 * 3044, 2 * 2880
    numbers = patches * (3 * 1024 + 4096) + rows * (3 * 4096 + 2 * 14_336)
    text = 100 * 4096 * (2 + 4)
    assert bytes_of(mini_hd, fused(frame_tiles=5)) == 2 * numbers + rows * 128 * 4 + text


def test_a_narrow_fusion_is_least_beside_its_tower(mini_hd: Geometry):
    """Two tiles a call: the pixels of all five, 7 x 1,024 a patch, and the features of all five."""
    small = {"hidden_size": 8, "intermediate_size": 8, "num_heads": 1, "num_kv_heads": 1}
    narrow = replace(mini_hd, **small, head_dim=2, vocab_size=8)
    pixels, tower = 5 * 3 * 336**2 * 2, 2 * 576 * 7 * 1024 * 2
    chunks = fused(tiles=2, frame_tiles=5)
    cutting = 5 * 3 * 336**2 * (2 + 4)
    text = 100 * 8 * 6
    assert bytes_of(narrow, chunks) == pixels + tower + 5 * 576 * 1024 * 2 + text > cutting


def test_words_alone_are_not_fused(mini: Geometry, mini_hd: Geometry):
    for model in (mini, mini_hd):
        assert bytes_of(model, PREFILL) == bytes_of(replace(model, compressed_side=0), PREFILL)


# --- against the code


def check(
    run: FakeRun,
    geometry: Geometry,
    plan: Plan,
    setup: Setup,
    kv_format: KvFormat,
    most_over: float | None = None,
) -> None:
    """The prediction of a run, to 0.5 % of all that is alive and 5 % of what is beside the cache
    and the weights; of the latter at most so much more, where that is stated."""
    memory = plan_memory(geometry, setup, plan, kv_format)
    assert memory.weights_bytes == run.weights_bytes
    assert memory.kv_bytes == pytest.approx(run.cache_bytes, rel=0.001)
    share = memory.activation_bytes / run.overhead_bytes
    print(f"{share:.3f} of {run.overhead_bytes:,} bytes")
    if most_over is None:
        assert memory.total_bytes == pytest.approx(run.peak_bytes, rel=0.005)
        assert share == pytest.approx(1, abs=0.05)
    else:
        assert 0.95 <= share <= 1 + most_over


def run_and_check(
    geometry: Geometry,
    plan: Plan,
    num_frames: int,
    *,
    dimensions=SEVEN_B,
    kv_format: KvFormat = "plain",
    side: int = 14,
    visual: VisualPlan | None = None,
    most_over: float | None = None,
    **chunks: int,
) -> None:
    with traced() as trace:
        model = fake_model(dimensions)
        video = visual or video_of(num_frames, side)
        slab_tokens = min(1024, video.num_tokens)
        run = run_video(model, trace, video, kv_format=kv_format, slab_tokens=slab_tokens, **chunks)
    setup = Setup(
        prefill_chunk_tokens=chunks.get("prefill_chunk_tokens", 2048),
        tile_chunk=chunks.get("tile_chunk", 16),
        pools_by_torch=True,  # the tensors are a CPU's
    )
    shape = shaped(geometry, dimensions)
    text_tokens = run.num_tokens - video.num_tokens
    seen = replace(plan, visuals=(video,), text_tokens=text_tokens, max_new_tokens=2)
    check(run, shape, seen, setup, kv_format, most_over)


@pytest.fixture
def plan(make_info, plan_one) -> Plan:
    return plan_one(make_info(90))


@pytest.mark.parametrize("dimensions", [SEVEN_B, HALF_B], ids=["7b", "0.5b"])
def test_a_run_as_the_code_makes_it(geometry: Geometry, plan: Plan, dimensions):
    run_and_check(geometry, plan, 48, dimensions=dimensions)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_frames", "kv_format", "side", "chunks"),
    [
        (180, "int8", 14, {"tile_chunk": 4, "piece_tokens": 2048}),
        (180, "int4", 14, {"tile_chunk": 4, "piece_tokens": 2048}),
        (180, "plain", 14, {"tile_chunk": 2}),
        (50, "plain", 14, {"tile_chunk": 2, "prefill_chunk_tokens": 8192}),
        (64, "plain", 27, {}),
        (400, "plain", 4, {"prefill_chunk_tokens": 4096}),
    ],
)
def test_other_runs_as_the_code_makes_them(
    geometry: Geometry, plan: Plan, num_frames: int, kv_format: KvFormat, side: int, chunks: dict
):
    """Of two layers, which hold at once what 28 do."""
    flat = replace(SEVEN_B, text=replace(SEVEN_B.text, num_layers=2))
    knobs = {"kv_format": kv_format, "side": side, **chunks}
    run_and_check(geometry, plan, num_frames, dimensions=flat, **knobs)


# CLIP and Vicuna-7B of two layers, Mini and its variant of four.
_CLIP = replace(MINI_8B.vision, num_layers=2)
_VICUNA = replace(
    MINI_8B.text,
    num_layers=2,
    intermediate_size=11_008,
    num_kv_heads=32,
    vocab_size=32_000,
    rope_bands=None,
)
_MINI = replace(MINI_8B, vision=_CLIP, text=replace(MINI_8B.text, num_layers=4))
_MINI_HD = replace(_MINI, fusion=FusionConfig(side=8, num_layers=4, split=2))
_NEXT = ModelDimensions(vision=_CLIP, text=_VICUNA)
_V15 = replace(_NEXT, has_newline=False)
_V1 = replace(_V15, vision=replace(_CLIP, image_px=224), projector_layers=1)
_TOKENS = replace(NEXT_VIDEO_7B, pool_of="tokens")
# Of as many keys as queries, a chunk that begins a prompt is counted a twelfth higher than it is.
_FIRST = 0.1


def of_picture(geometry: Geometry, height_px: int, width_px: int) -> Layout:
    return image_layout(height_px, width_px, geometry, geometry.aspect)


def of_video(geometry: Geometry, **knobs) -> Layout:
    if geometry.compressed_side:
        return fused_layout(geometry, geometry.video_fit)
    return video_layout(336, 336, geometry, **knobs)


@pytest.mark.parametrize(
    ("member", "dimensions", "layout", "num_frames", "most_over", "chunks"),
    [
        (MINI_GEOMETRY, _MINI, of_video(MINI_GEOMETRY), 48, None, {}),
        (MINI_GEOMETRY, _MINI, of_video(MINI_GEOMETRY), 1, None, {}),
        (MINI_GEOMETRY, _MINI, of_video(MINI_GEOMETRY), 40, None, {"prefill_chunk_tokens": 64}),
        (MINI_HD_8B, _MINI_HD, of_video(MINI_HD_8B), 6, None, {"tile_chunk": 4}),
        (MINI_HD_8B, _MINI_HD, of_video(MINI_HD_8B), 20, None, {"tile_chunk": 64}),
        (NEXT_VIDEO_7B, _NEXT, of_video(NEXT_VIDEO_7B), 32, None, {"tile_chunk": 20}),
        (
            NEXT_VIDEO_7B,
            _NEXT,
            of_video(NEXT_VIDEO_7B),
            32,
            None,
            {"prefill_chunk_tokens": 256, "tile_chunk": 4},
        ),
        (NEXT_VIDEO_7B, _NEXT, of_video(NEXT_VIDEO_7B, grid=Grid(2, 2)), 8, None, {}),
        (_TOKENS, _NEXT, of_video(_TOKENS), 32, None, {"tile_chunk": 20}),
        (
            _TOKENS,
            _NEXT,
            of_video(_TOKENS, pool_mode="max"),
            32,
            None,
            {"prefill_chunk_tokens": 256},
        ),
        (NEXT_7B, _NEXT, of_picture(NEXT_7B, 800, 900), 1, _FIRST, {}),
        (NEXT_7B, _NEXT, of_picture(NEXT_7B, 6, 900), 1, _FIRST, {}),
        (NEXT_7B, _NEXT, of_video(NEXT_7B), 8, None, {}),
        (LLAVA_15_7B, _V15, of_video(LLAVA_15_7B), 8, None, {}),
        (LLAVA_15_7B, _V15, of_video(LLAVA_15_7B), 8, None, {"prefill_chunk_tokens": 256}),
        (LLAVA_1_7B, _V1, of_video(LLAVA_1_7B), 8, _FIRST, {}),
        (LLAVA_1_7B, _V1, of_video(LLAVA_1_7B), 8, None, {"prefill_chunk_tokens": 64}),
        (LLAVA_1_7B, _V1, of_picture(LLAVA_1_7B, 224, 224), 1, _FIRST, {}),
    ],
)
def test_runs_of_the_family_as_the_code_makes_them(
    plan: Plan,
    member: Geometry,
    dimensions: ModelDimensions,
    layout: Layout,
    num_frames: int,
    most_over: float | None,
    chunks: dict,
):
    visual = visual_plan(
        layout,
        kind="video",
        source="fake",
        size_px=(336, 336),
        frame_idxs=tuple(range(num_frames)),
        times_s=tuple(map(float, range(num_frames))),
    )
    knobs = {"visual": visual, "most_over": most_over, **chunks}
    run_and_check(member, plan, num_frames, dimensions=dimensions, **knobs)


@pytest.mark.parametrize("tile_chunk", [2, 16])
def test_a_large_picture_as_torch_pools_it(geometry: Geometry, plan: Plan, tile_chunk: int):
    """Ten tiles whose map is joined and resized: without these three in ten of it were missing."""
    flat = replace(SEVEN_B, text=replace(SEVEN_B.text, num_layers=2))
    visual = visual_plan(
        of_picture(geometry, 1600, 1800),
        kind="image",
        source="fake",
        size_px=(1600, 1800),
        frame_idxs=(0,),
        times_s=(0.0,),
    )
    knobs = {"visual": visual, "most_over": 0.1, "tile_chunk": tile_chunk}
    run_and_check(geometry, plan, 1, dimensions=flat, **knobs)
