"""The original keys: the defaults of the original code, and what is refused."""

import pytest

from llava_video.errors import CheckpointError
from llava_video.model.dimensions import VisionConfig
from llava_video.model.json_fields import JsonFields
from llava_video.model.original_config import (
    check_supported,
    context_of,
    dimensions_of,
    visual_layout_of,
)
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


def fields(**values: object) -> JsonFields:
    return JsonFields({**BARE, **values}, "config.json")


def test_defaults_of_missing_keys():
    bare = fields()
    check_supported(bare)
    dimensions, visual = dimensions_of(bare), visual_layout_of(bare, 384)
    text = dimensions.text
    assert dimensions.vision == VisionConfig()  # so400m: no vision_config in public checkpoints
    assert (text.rms_norm_eps, text.rope_theta, text.max_positions) == (1e-6, 10_000.0, 32_768)
    assert (text.head_dim, text.tie_embeddings, text.rope_scale) == (128, False, 1.0)
    # mm_patch_merge_type -> flat, image_aspect_ratio -> square, add_faster_video -> false
    assert (visual.merge, visual.unpad, visual.newline) == ("flat", False, Newline.NONE)
    assert (visual.aspect, visual.anyres_max, visual.canvases) == ("square", None, ())
    assert (visual.pool_mode, visual.pool_stride, visual.slow_every) == ("bilinear", 2, 0)
    assert not dimensions.has_newline
    assert not dimensions.has_separator


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
    assert visual_layout_of(found, 384).newline is newline
    assert dimensions_of(found).has_newline


def test_without_unpad_there_is_no_newline_vector_to_place():
    one = fields(mm_patch_merge_type="spatial", mm_newline_position="one_token")
    assert visual_layout_of(one, 384).newline is Newline.NONE
    flat = fields(mm_patch_merge_type="flat", mm_newline_position="grid")
    assert visual_layout_of(flat, 384).newline is Newline.NONE
    with pytest.raises(CheckpointError, match="need 'unpad'"):
        visual_layout_of(fields(mm_patch_merge_type="spatial", mm_newline_position="grid"), 384)


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
    visual = visual_layout_of(fields(image_aspect_ratio=ratio, image_grid_pinpoints=pinpoints), 384)
    assert (visual.aspect, visual.anyres_max) == (aspect, anyres_max)
    assert visual.canvases == ((768, 384), (384, 768))  # stored (width, height), in their order


def test_pinpoints_as_text_name_the_first_and_last_pair_in_tiles():
    visual = visual_layout_of(fields(image_grid_pinpoints="(1x1),...,(6x6)"), 384)
    sides = [384 * count for count in range(1, 7)]
    assert visual.canvases == tuple((b, a) for a in sides for b in sides)
    assert len(visual.canvases) == 36
    tiny = visual_layout_of(fields(image_grid_pinpoints="(1x1),...,(2x3)"), 56)
    assert tiny.canvases == ((56, 56), (112, 56), (168, 56), (56, 112), (112, 112), (168, 112))
    listed = visual_layout_of(fields(image_grid_pinpoints="[[384, 768]]"), 384)
    assert listed.canvases == ((768, 384),)


@pytest.mark.parametrize(
    "pinpoints",
    [[[384, 700]], [[384]], [384], "nonsense(", "7", [["384", "384"]], [[0, 384]], {"a": 1}],
)
def test_pinpoints_that_are_no_canvases_are_refused(pinpoints: object):
    with pytest.raises(CheckpointError, match="image_grid_pinpoints"):
        visual_layout_of(fields(image_grid_pinpoints=pinpoints), 384)


def test_anyres_without_canvases_is_refused():
    with pytest.raises(CheckpointError, match="image_grid_pinpoints"):
        visual_layout_of(fields(image_aspect_ratio="anyres"), 384)


def test_the_pool_stride_is_two_unless_slow_fast_reads_it():
    ignored = fields(mm_spatial_pool_stride=4, mm_patch_merge_type="spatial_unpad")
    assert visual_layout_of(ignored, 384).pool_stride == 2
    slow_fast = {
        "mm_spatial_pool_stride": 3,
        "mm_patch_merge_type": "spatial_unpad",
        "add_faster_video": True,
    }
    not_grid = fields(**slow_fast)  # only the branch of newlines per row reads add_faster_video
    assert visual_layout_of(not_grid, 384).slow_every == 0
    assert not dimensions_of(not_grid).has_separator
    grid = fields(**slow_fast, mm_newline_position="grid")
    assert visual_layout_of(grid, 384).pool_stride == 3
    assert visual_layout_of(grid, 384).slow_every == 10
    assert dimensions_of(grid).has_separator
    every = fields(**slow_fast, mm_newline_position="grid", faster_token_stride=4)
    assert visual_layout_of(every, 384).slow_every == 4


@pytest.mark.parametrize(
    ("scaling", "scale"),
    [
        (None, 1.0),
        ({"type": "linear", "factor": 4.0}, 4.0),
        ({"rope_type": "linear", "factor": 2}, 2.0),
        ({"rope_type": "default"}, 1.0),
    ],
)
def test_rope_scaling(scaling: object, scale: float):
    assert dimensions_of(fields(rope_scaling=scaling)).text.rope_scale == scale


@pytest.mark.parametrize("kind", ["yarn", "dynamic", "llama3", "longrope"])
def test_other_rope_scaling_is_refused_by_name(kind: str):
    with pytest.raises(CheckpointError, match=f"rope_scaling = '{kind}'"):
        dimensions_of(fields(rope_scaling={"type": kind, "factor": 4.0}))


def test_the_context_is_the_smaller_limit_stretched_by_linear_scaling():
    def context(**values: object) -> int:
        found = fields(**values)
        return context_of(found, dimensions_of(found).text)

    linear = {"type": "linear", "factor": 2.0}
    assert context() == 32_768
    assert context(tokenizer_model_max_length=4096) == 4096
    assert context(tokenizer_model_max_length=65_536) == 32_768
    assert context(max_position_embeddings=4096, rope_scaling=linear) == 8192
    assert context(tokenizer_model_max_length=6000, rope_scaling=linear) == 6000


def test_vision_config_replaces_so400m():
    small = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 56}
    vision = dimensions_of(fields(vision_config=small)).vision
    assert (vision.hidden_size, vision.num_layers, vision.image_px) == (48, 2, 56)
    assert (vision.intermediate_size, vision.patch_px) == (4304, 14)  # so400m's where left out


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"mm_vision_tower": "openai/clip-vit-large-patch14-336"}, "clip-vit-large"),
        ({"mm_projector_type": "linear"}, "'linear'"),
        ({"mm_projector_type": None}, "mm_projector_type = None"),
        ({"mm_resampler_type": "perceiver"}, "perceiver"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end = True"),
        ({"use_sliding_window": True, "max_window_layers": 14}, "use_sliding_window"),
    ],
)
def test_unsupported_parts_are_refused_with_a_way_out(values: dict[str, object], found: str):
    with pytest.raises(CheckpointError, match=found) as caught:
        check_supported(fields(**values))
    assert "llava-video models" in caught.value.hint


@pytest.mark.parametrize(
    "values",
    [
        {"mm_vision_tower": "checkpoints/siglip"},
        {"mm_vision_tower": "a/local/tower"},  # the weights decide, not a path's name
        {"mm_resampler_type": None},
        {"use_sliding_window": True, "max_window_layers": 28},  # no layer slides
    ],
)
def test_supported_parts_pass(values: dict[str, object]):
    check_supported(fields(**values))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", None),
        ("hidden_size", "3584"),
        ("num_attention_heads", 27),
        ("num_key_value_heads", 3),
        ("rms_norm_eps", 0),
        ("vision_config", {"num_attention_heads": 7}),
        ("vision_config", {"patch_size": 500}),
        ("vision_config", {"hidden_act": "quick_gelu"}),
        ("vision_config", {"num_channels": 1}),
        ("vision_config", [1]),
    ],
)
def test_impossible_sizes_are_refused(key: str, value: object):
    with pytest.raises(CheckpointError):
        dimensions_of(fields(**{key: value}))


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
        visual_layout_of(fields(**{key: value}), 384)
