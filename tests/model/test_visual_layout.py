"""How pictures and videos are laid out: the defaults of the original code, line by line."""

import pytest

from llava_video.errors import CheckpointError
from llava_video.model.json_fields import JsonFields
from llava_video.model.members import (
    LLAVA_15,
    LLAVA_MINI,
    LLAVA_NEXT,
    LLAVA_NEXT_VIDEO,
    LLAVA_ONEVISION,
    Member,
)
from llava_video.model.original_config import dimensions_of
from llava_video.model.visual_layout import VisualLayout, visual_layout_of
from llava_video.values import Newline

# The sizes of llava-onevision-qwen2-7b-ov, and nothing else.
BARE = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "mm_projector_type": "mlp2x_gelu",
}
SPATIAL = {**BARE, "mm_patch_merge_type": "spatial_unpad"}
AFTER = {"mm_pooling_position": "after"}
POOLED = {**SPATIAL, "mm_resampler_type": "spatial_pool", "mm_spatial_pool_mode": "average"}


def fields(**values: object) -> JsonFields:
    return JsonFields({**BARE, **values}, "config.json")


def layout_of(
    found: JsonFields, *, tile_px: int = 384, member: Member = LLAVA_ONEVISION
) -> VisualLayout:
    return visual_layout_of(found, tile_px, member)


@pytest.mark.parametrize(
    ("position", "newline"),
    [
        (None, Newline.CLIP),  # mm_newline_position -> one_token
        ("grid", Newline.ROW),
        ("frame", Newline.FRAME),
        ("one_token", Newline.CLIP),
        ("no_token", Newline.NONE),
    ],
)
def test_newline_positions(position: str | None, newline: Newline):
    found = JsonFields({**SPATIAL, "mm_newline_position": position}, "config.json")
    assert layout_of(found).newline is newline
    assert dimensions_of(found).has_newline


def test_without_unpad_there_is_no_newline_vector_to_place():
    one = fields(mm_patch_merge_type="spatial", mm_newline_position="one_token")
    assert layout_of(one).newline is Newline.NONE
    flat = fields(mm_patch_merge_type="flat", mm_newline_position="grid")
    assert layout_of(flat).newline is Newline.NONE
    with pytest.raises(CheckpointError, match="need 'unpad'"):
        layout_of(fields(mm_patch_merge_type="spatial", mm_newline_position="grid"))


@pytest.mark.parametrize(
    ("ratio", "aspect", "anyres_max"),
    [
        ("anyres", "anyres", None),
        ("anyres_max_9", "anyres", 9),
        ("anyres_max_4", "anyres", 4),
        ("pad", "pad", None),
        ("square", "square", None),
        ("any other word", "square", None),
    ],
)
def test_aspect_ratios(ratio: str, aspect: str, anyres_max: int | None):
    pinpoints = [[384, 768], [768, 384]]
    visual = layout_of(fields(image_aspect_ratio=ratio, image_grid_pinpoints=pinpoints))
    assert (visual.aspect, visual.anyres_max) == (aspect, anyres_max)
    assert visual.canvases == ((768, 384), (384, 768))  # stored (width, height), in their order


def test_pinpoints_as_text_name_the_first_and_last_pair_in_tiles():
    visual = layout_of(fields(image_grid_pinpoints="(1x1),...,(6x6)"))
    sides = [384 * count for count in range(1, 7)]
    assert visual.canvases == tuple((b, a) for a in sides for b in sides)
    assert len(visual.canvases) == 36
    tiny = layout_of(fields(image_grid_pinpoints="(1x1),...,(2x3)"), tile_px=56)
    assert tiny.canvases == ((56, 56), (112, 56), (168, 56), (56, 112), (112, 112), (168, 112))
    listed = layout_of(fields(image_grid_pinpoints="[[384, 768]]"))
    assert listed.canvases == ((768, 384),)


@pytest.mark.parametrize(
    "pinpoints",
    [[[384, 700]], [[384]], [384], "nonsense(", "7", [["384", "384"]], [[0, 384]], {"a": 1}],
)
def test_pinpoints_that_are_no_canvases_are_refused(pinpoints: object):
    with pytest.raises(CheckpointError, match="image_grid_pinpoints"):
        layout_of(fields(image_grid_pinpoints=pinpoints))


def test_anyres_without_canvases_is_refused():
    with pytest.raises(CheckpointError, match="image_grid_pinpoints"):
        layout_of(fields(image_aspect_ratio="anyres"))


def test_the_pool_stride_is_two_unless_slow_fast_reads_it():
    ignored = fields(mm_spatial_pool_stride=4, mm_patch_merge_type="spatial_unpad")
    assert layout_of(ignored).pool_stride == 2
    slow_fast = {
        "mm_spatial_pool_stride": 3,
        "mm_patch_merge_type": "spatial_unpad",
        "add_faster_video": True,
    }
    not_grid = fields(**slow_fast)  # only the branch of newlines per row reads add_faster_video
    assert layout_of(not_grid).slow_every == 0
    assert not dimensions_of(not_grid).has_separator
    grid = fields(**slow_fast, mm_newline_position="grid")
    assert layout_of(grid).pool_stride == 3
    assert layout_of(grid).slow_every == 10
    assert dimensions_of(grid).has_separator
    every = fields(**slow_fast, mm_newline_position="grid", faster_token_stride=4)
    assert layout_of(every).slow_every == 4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mm_patch_merge_type", "spatial_maxpool2x2"),
        ("mm_newline_position", "nowhere"),
        ("mm_spatial_pool_mode", "conv"),
        ("image_aspect_ratio", "highres"),
        ("image_aspect_ratio", "anyres_max_x"),
    ],
)
def test_layouts_this_library_does_not_build_are_refused(key: str, value: str):
    with pytest.raises(CheckpointError, match=value):
        layout_of(fields(**{key: value}))


@pytest.mark.parametrize(
    ("values", "pool_of", "newline"),
    [
        ({}, "features", Newline.NONE),  # the first release
        ({"mm_pooling_position": "before", "mm_newline_position": "grid"}, "features", Newline.ROW),
        ({"mm_newline_position": "frame"}, "features", Newline.FRAME),
        ({"mm_pooling_position": "after"}, "tokens", Newline.CLIP),  # the later code
        (
            {"mm_pooling_position": "after", "mm_newline_position": "no_token"},
            "tokens",
            Newline.NONE,
        ),
    ],
)
def test_next_video_pools_before_the_projector_unless_told(values, pool_of: str, newline: Newline):
    found = JsonFields({**POOLED, **values}, "config.json")
    layout = layout_of(found, member=LLAVA_NEXT_VIDEO)
    assert (layout.pool_of, layout.newline) == (pool_of, newline)
    assert (layout.pool_mode, layout.pool_stride) == ("average", 2)


def test_next_video_obeys_its_stride_where_onevision_does_not():
    found = JsonFields({**POOLED, "mm_spatial_pool_stride": 4}, "config.json")
    assert layout_of(found, member=LLAVA_NEXT_VIDEO).pool_stride == 4
    assert layout_of(found, member=LLAVA_ONEVISION).pool_stride == 2


@pytest.mark.parametrize(
    ("merge", "newline"),
    [("spatial_unpad", Newline.FRAME), ("spatial", Newline.NONE), ("flat", Newline.NONE)],
)
def test_a_frame_shown_as_a_picture_ends_as_a_picture_of_one_tile_does(merge: str, newline):
    found = fields(mm_patch_merge_type=merge)
    for member in (LLAVA_15, LLAVA_NEXT):
        layout = layout_of(found, member=member)
        assert (layout.newline, layout.pool_stride, layout.pool_of) == (newline, 1, "tokens")


def test_minis_frames_have_no_newline_even_where_there_is_one():
    layout = layout_of(fields(mm_patch_merge_type="spatial_unpad"), member=LLAVA_MINI)
    assert (layout.newline, layout.pool_stride) == (Newline.NONE, 1)


def test_pooling_positions_have_two_names():
    found = JsonFields({**POOLED, "mm_pooling_position": "beside"}, "config.json")
    with pytest.raises(CheckpointError, match="mm_pooling_position = 'beside'") as caught:
        layout_of(found, member=LLAVA_NEXT_VIDEO)
    assert "write one of these in config.json" in caught.value.hint


@pytest.mark.parametrize("key", ["mm_newline_position", "mm_patch_merge_type"])
def test_a_mistyped_word_says_which_there_are(key: str):
    with pytest.raises(CheckpointError, match=r"expected '(grid|flat)' or") as caught:
        layout_of(fields(**{key: "foo"}))
    assert "write one of these in config.json" in caught.value.hint
