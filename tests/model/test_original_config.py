"""The original keys: the sizes they mean, the defaults of the original code, what is refused."""

import pytest

from llava_video.errors import CheckpointError
from llava_video.model.dimensions import FusionConfig, ModelDimensions, VisionConfig
from llava_video.model.json_fields import JsonFields
from llava_video.model.members import LLAVA_ONEVISION
from llava_video.model.original_config import check_supported, context_of, dimensions_of
from llava_video.model.visual_layout import visual_layout_of
from llava_video.ops.frequency_bands import FrequencyBands
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
# The sizes of llava-v1.5-7b.
LLAMA = {
    "architectures": ["LlavaLlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
}
MISTRAL = {**LLAMA, "architectures": ["LlavaMistralForCausalLM"], "intermediate_size": 14336}


def fields(**values: object) -> JsonFields:
    return JsonFields({**BARE, **values}, "config.json")


def read(found: JsonFields) -> ModelDimensions:
    check_supported(found)
    return dimensions_of(found)


def llama(**values: object) -> JsonFields:
    return JsonFields({**LLAMA, **values}, "config.json")


def mistral(**values: object) -> JsonFields:
    return JsonFields({**MISTRAL, **values}, "config.json")


def test_defaults_of_missing_keys():
    bare = fields()
    check_supported(bare)
    dimensions, visual = dimensions_of(bare), visual_layout_of(bare, 384, LLAVA_ONEVISION)
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


@pytest.mark.parametrize("kind", ["yarn", "dynamic", "longrope"])
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


def test_with_clip_the_context_is_the_positions_and_nothing_is_cut():
    linear = {"type": "linear", "factor": 2.0}
    found = llama(
        max_position_embeddings=4096, tokenizer_model_max_length=2048, rope_scaling=linear
    )
    assert context_of(found, dimensions_of(found).text) == 8192


def test_a_factor_without_a_type_is_refused():
    with pytest.raises(CheckpointError, match="factor without a type") as caught:
        dimensions_of(llama(rope_scaling={"factor": 2.0}))
    assert '"type": "linear"' in caught.value.hint
    assert dimensions_of(llama(rope_scaling={"rope_type": "default"})).text.rope_scale == 1.0


def test_what_files_may_hold_beside_the_parameters():
    """LLaVA-NeXT-Video registered its projector twice; SigLIP files may have spare newlines."""
    assert dimensions_of(llama()).spares == frozenset()
    assert dimensions_of(llama(mm_resampler_type="spatial_pool")).spares == {"projector copy"}
    assert dimensions_of(fields()).spares == {"newline"}


def test_vision_config_replaces_so400m():
    small = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 56}
    vision = dimensions_of(fields(vision_config=small)).vision
    assert (vision.hidden_size, vision.num_layers, vision.image_px) == (48, 2, 56)
    assert (vision.intermediate_size, vision.patch_px) == (4304, 14)  # so400m's where left out


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"mm_vision_tower": "EVA02-CLIP-L-14-336"}, "eva02"),
        ({"vision_config": {"model_type": "dinov2"}}, "dinov2"),
        ({"mm_projector_type": "identity"}, "'identity'"),
        ({"mm_projector_type": "mlp2x_relu"}, "'mlp2x_relu'"),
        ({"mm_resampler_type": "perceiver"}, "perceiver"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"mlp_bias": True}, "mlp_bias = True"),
        ({"architectures": ["LlavaMptForCausalLM"]}, "no MPT"),
        ({"architectures": ["LlavaLlamaForCausalLM"], "attention_bias": True}, "attention_bias"),
        ({"use_sliding_window": True, "max_window_layers": 14}, "use_sliding_window"),
    ],
)
def test_unsupported_parts_are_refused_with_a_way_out(values: dict[str, object], found: str):
    with pytest.raises(CheckpointError, match=found) as caught:
        read(fields(**values))
    assert "llava-video models" in caught.value.hint


@pytest.mark.parametrize(
    "values",
    [
        {"mm_vision_tower": "checkpoints/siglip"},
        {"mm_vision_tower": "a/local/tower"},  # the weights decide, not a path's name
        {"mm_resampler_type": None},
        {"mm_resampler_type": "spatial_pool"},
        {"mm_use_im_start_end": True},
        {"use_sliding_window": True, "max_window_layers": 28},  # no layer slides
    ],
)
def test_supported_parts_pass(values: dict[str, object]):
    check_supported(fields(**values))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_size", None),
        ("num_hidden_layers", 10**9),
        ("vision_config", {"num_hidden_layers": 10**9}),
        ("intermediate_size", 10**18),
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


def test_a_llama_has_no_biases_and_its_classes_defaults():
    text = dimensions_of(llama()).text
    assert not text.qkv_bias
    assert (text.num_kv_heads, text.head_dim, text.max_positions) == (32, 128, 2048)
    assert not dimensions_of(llama(attention_bias=False)).text.qkv_bias
    text = dimensions_of(mistral()).text
    assert (text.num_kv_heads, text.max_positions, text.qkv_bias) == (8, 131_072, False)
    assert dimensions_of(fields()).text.qkv_bias
    assert not dimensions_of(fields(attention_bias=False)).text.qkv_bias


@pytest.mark.parametrize("key", ["rope_type", "type"])
def test_llama_3_stretches_long_waves_only(key: str):
    scaling = {
        key: "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    found = llama(rope_scaling=scaling, max_position_embeddings=131_072)
    text = dimensions_of(found).text
    bands = FrequencyBands(factor=8.0, low_factor=1.0, high_factor=4.0, positions=8192)
    assert text.rope_bands == bands
    assert text.rope_scale == 1.0
    assert context_of(found, text) == 131_072  # which has the factor in it already
    with pytest.raises(CheckpointError, match="low_freq_factor"):
        dimensions_of(llama(rope_scaling={key: "llama3", "factor": 8.0}))


@pytest.mark.parametrize(
    ("window", "limit", "context"),
    [(None, 4096, 131_072), (4096, 4096, 4096), (8192, 4096, 8192)],
)
def test_a_window_that_nothing_leaves_is_none(window: int | None, limit: int, context: int):
    found = mistral(sliding_window=window, tokenizer_model_max_length=limit)
    assert context_of(found, dimensions_of(found).text) == context


@pytest.mark.parametrize("stated", [{"sliding_window": 4096}, {}])  # 4096 is the class's default
def test_a_window_smaller_than_the_context_is_refused(stated: dict[str, object]):
    found = mistral(tokenizer_model_max_length=32_768, **stated)
    with pytest.raises(CheckpointError, match="sliding_window = 4096"):
        context_of(found, dimensions_of(found).text)


@pytest.mark.parametrize(
    ("kind", "layers"),
    [(None, 1), ("linear", 1), ("mlp1x_gelu", 1), ("mlp2x_gelu", 2), ("mlp3x_gelu", 3)],
)
def test_layers_of_the_projector(kind: str | None, layers: int):
    assert dimensions_of(llama(mm_projector_type=kind)).projector_layers == layers


def test_a_compressor_makes_a_mini():
    assert dimensions_of(llama()).fusion is None
    found = llama(compressor_size=1)
    assert dimensions_of(found).fusion == FusionConfig(side=1, num_layers=4, split=1)
    given = {"compressor_size": 8, "prefusion_layer_num": 2, "resolution_ratio": 2}
    assert dimensions_of(llama(**given)).fusion == FusionConfig(side=8, num_layers=2, split=2)


def test_the_compressors_heads_divide_the_towers_width():
    tower = {"model_type": "clip_vision_model", "hidden_size": 36, "num_attention_heads": 4}
    with pytest.raises(CheckpointError, match="8 heads"):
        dimensions_of(llama(compressor_size=1, vision_config=tower))
