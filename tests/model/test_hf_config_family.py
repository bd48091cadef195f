"""transformers' Llava, LlavaNext, LlavaNextVideo: sparse old files, 5.x files, there and back."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

from llava_video.errors import CheckpointError
from llava_video.model.hf_config import hf_from_original, original_from_hf
from llava_video.model.model_config import ModelConfig, geometry_of, parse_model_config
from llava_video.values import Newline

CLIP_L_336 = {
    "hidden_size": 1024,
    "image_size": 336,
    "intermediate_size": 4096,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
    "vocab_size": 32000,
}
# What llava-hf/llava-1.5-7b-hf looks like: transformers 4.36 leaves class defaults out.
LLAVA = {
    "architectures": ["LlavaForConditionalGeneration"],
    "ignore_index": -100,
    "image_token_index": 32000,
    "model_type": "llava",
    "pad_token_id": 32001,
    "projector_hidden_act": "gelu",
    "text_config": {
        "_name_or_path": "lmsys/vicuna-7b-v1.5",
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "rms_norm_eps": 1e-05,
        "torch_dtype": "float16",
        "vocab_size": 32064,
    },
    "torch_dtype": "float16",
    "vision_config": CLIP_L_336,
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
}
# llava-hf/llava-v1.6-mistral-7b-hf.
NEXT = {
    **LLAVA,
    "architectures": ["LlavaNextForConditionalGeneration"],
    "model_type": "llava_next",
    "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    "text_config": {
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "model_type": "mistral",
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "vocab_size": 32064,
    },
}
# llava-hf/LLaVA-NeXT-Video-7B-DPO-hf.
VIDEO = {
    **NEXT,
    "architectures": ["LlavaNextVideoForConditionalGeneration"],
    "model_type": "llava_next_video",
    "image_token_index": 32001,
    "video_token_index": 32000,
    "spatial_pool_mode": "average",
    "spatial_pool_stride": 2,
    "text_config": {
        **LLAVA["text_config"],
        "rope_scaling": {"factor": 2.5, "type": "linear"},
    },
}
TINY_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
TINY_TEXT |= {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 352}
TINY_TOWER = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3}
TINY_TOWER |= {"num_attention_heads": 4, "image_size": 56, "patch_size": 14}


def config_of(values: dict[str, object]) -> ModelConfig:
    return parse_model_config(values, name="x")


def changed(values: dict[str, object], part: str, **others: object) -> dict[str, object]:
    return {**values, part: {**values[part], **others}}


def test_a_15_of_4_36():
    config = config_of(LLAVA)
    text, vision, visual = config.text, config.vision, config.visual
    assert (config.layout, config.member, config.template) == ("hf", "LLaVA-1.5", "vicuna_v1")
    assert (text.hidden_size, text.intermediate_size, text.num_layers) == (4096, 11_008, 32)
    assert (text.num_heads, text.num_kv_heads, text.vocab_size) == (32, 32, 32_064)
    assert (text.rms_norm_eps, text.rope_theta, text.qkv_bias) == (1e-5, 10_000.0, False)
    assert (vision.kind, vision.num_layers, vision.image_px) == ("clip", 23, 336)
    assert (vision.layer_norm_eps, vision.activation) == (1e-5, "quick_gelu")
    # Trained on padded pictures, whatever the conversion's processor does.
    assert (visual.aspect, visual.merge, visual.newline) == ("pad", "flat", Newline.NONE)
    assert (config.context_tokens, config.stored_dtype) == (4096, "float16")
    assert config.generation.eos_ids == (2,)  # the class's, which the file leaves out
    assert (config.generation.bos_id, config.generation.pad_id) == (1, 32_001)


def test_a_next_with_mistral():
    config = config_of(NEXT)
    assert (config.member, config.template) == ("LLaVA-NeXT", "mistral_instruct")
    assert (config.text.num_kv_heads, config.text.rope_theta) == (8, 1e6)
    assert (config.context_tokens, config.dimensions.has_newline) == (32_768, True)
    visual = config.visual
    assert (visual.aspect, visual.merge, visual.unpad) == ("anyres", "spatial", True)
    # Stored as (height, width).
    assert visual.canvases[:2] == ((336, 672), (672, 336))
    assert visual.canvases[3:] == ((1008, 336), (336, 1008))
    original = original_from_hf(NEXT)
    assert original["image_grid_pinpoints"][0] == [672, 336]  # the original says (width, height)
    default = config_of({key: NEXT[key] for key in NEXT if key != "image_grid_pinpoints"})
    assert default.visual.canvases == visual.canvases


def test_mistrals_class_has_a_window_unless_told():
    windowed = {key: value for key, value in NEXT["text_config"].items() if key != "sliding_window"}
    with pytest.raises(CheckpointError, match="sliding_window = 4096"):
        config_of({**NEXT, "text_config": windowed})


def test_a_next_video_pools_as_the_release():
    config = config_of(VIDEO)
    assert (config.member, config.template) == ("LLaVA-NeXT-Video", "vicuna_v1")
    visual = config.visual
    assert (visual.pool_mode, visual.pool_stride, visual.pool_of) == ("average", 2, "features")
    assert visual.newline is Newline.NONE
    assert (config.text.rope_scale, config.context_tokens) == (2.5, 10_240)
    sparse = {key: VIDEO[key] for key in VIDEO if not key.startswith("spatial")}
    assert config_of(sparse).visual == visual
    stride = config_of({**VIDEO, "spatial_pool_stride": 4, "spatial_pool_mode": "max"}).visual
    assert (stride.pool_mode, stride.pool_stride) == ("max", 4)


def test_a_scale_one_level_too_high_has_no_effect():
    """As 7B-hf stores it: "factor" and "type" beside the sizes, where no class reads them."""
    text = {**LLAVA["text_config"], "factor": 2.0, "type": "linear"}
    config = config_of({**VIDEO, "text_config": text})
    assert (config.text.rope_scale, config.context_tokens) == (1.0, 4096)


@pytest.mark.parametrize(
    ("vocab_size", "template"),
    [(32_064, "vicuna_v1"), (64_064, "chatml_direct"), (128_320, "llava_llama_3")],
)
def test_llama_decoders_are_told_apart_by_vocabulary(vocab_size: int, template: str):
    values = changed({**NEXT, "text_config": LLAVA["text_config"]}, "text_config")
    assert config_of(changed(values, "text_config", vocab_size=vocab_size)).template == template


def test_a_qwen_decoder():
    config = config_of({**NEXT, "text_config": {"model_type": "qwen2", "vocab_size": 152_128}})
    assert (config.template, config.text.qkv_bias) == ("qwen_1_5", True)


def test_nothing_stated_is_the_classes_own():
    config = config_of({"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava"})
    assert (config.text.hidden_size, config.text.vocab_size) == (4096, 32_000)
    assert (config.vision.num_layers, config.vision.image_px) == (23, 336)


@pytest.mark.parametrize("layer", [-2, -1, 1, 3])
def test_the_feature_layer_says_how_many_layers_run(layer: int):
    values = {**LLAVA, "vision_config": {**CLIP_L_336, "num_hidden_layers": 3}}
    used = layer if layer > 0 else 4 + layer
    assert config_of({**values, "vision_feature_layer": layer}).vision.num_layers == used


@pytest.mark.parametrize(
    "values",
    [
        changed(LLAVA, "text_config", model_type="gemma"),
        changed(LLAVA, "vision_config", model_type="siglip_vision_model"),
        changed(NEXT, "vision_config", image_size=[336, 336]),
        {**LLAVA, "vision_feature_select_strategy": "full"},
        {**NEXT, "vision_feature_layer": [-2, -5]},
        {**NEXT, "multimodal_projector_bias": False},
        {**NEXT, "projector_hidden_act": "relu"},
    ],
)
def test_other_parts_are_refused(values: dict[str, object]):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        config_of(values)


@pytest.mark.parametrize("values", [LLAVA, NEXT, VIDEO])
@pytest.mark.parametrize(
    "others",
    [
        {},
        {"mm_newline_position": "grid", "mm_pooling_position": "after"},
        {"tokenizer_model_max_length": 2048, "mm_use_im_start_end": True},
        {"mm_spatial_pool_mode": "max", "mm_spatial_pool_stride": 4},
        {"llava_video_template": "llava_v1"},
    ],
)
def test_original_to_hf_and_back_means_the_same(values, others: dict[str, object]):
    first = parse_model_config({**original_from_hf(values), **others}, name="x")
    again = config_of(hf_from_original(first.values))
    assert again.layout == "hf"
    for part in ("member", "template", "dimensions", "visual", "context_tokens", "has_mark_ends"):
        assert getattr(again, part) == getattr(first, part), part
    assert geometry_of(again, "x", "float32") == geometry_of(first, "x", "float32")


def test_a_factor_without_a_type_is_refused_here_too():
    for key in ("rope_scaling", "rope_parameters"):
        values = changed(VIDEO, "text_config", **{key: {"factor": 2.0}})
        with pytest.raises(CheckpointError, match="factor without a type"):
            config_of(values)


def test_a_15_of_cropped_pictures_stays_one():
    first = parse_model_config({**original_from_hf(LLAVA), "image_aspect_ratio": "square"})
    assert config_of(hf_from_original(first.values)).visual == first.visual
    assert first.visual.aspect == "square"


@pytest.mark.parametrize("model_type", ["llava", "llava_next", "llava_next_video"])
@pytest.mark.parametrize("backbone", ["llama", "mistral", "qwen2"])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_files_of_5x(tmp_path: Path, model_type: str, backbone: str, is_sparse: bool):
    """What transformers writes of one tiny model, with every default and without."""
    text = {**TINY_TEXT, "model_type": backbone, "max_position_embeddings": 2048}
    tower = {**TINY_TOWER, "model_type": "clip_vision_model"}
    pinpoints = {"image_grid_pinpoints": [[56, 112], [112, 56]]} if model_type != "llava" else {}
    made = AutoConfig.for_model(model_type, text_config=text, vision_config=tower, **pinpoints)
    written = made.to_diff_dict() if is_sparse else made.to_dict()
    config = config_of({**json.loads(json.dumps(written)), "architectures": None})
    assert (config.text.hidden_size, config.text.num_kv_heads, config.text.vocab_size) == (
        64,
        2,
        352,
    )
    assert config.text.rms_norm_eps == made.text_config.rms_norm_eps
    assert config.text.rope_theta == made.text_config.rope_parameters["rope_theta"]
    assert config.text.qkv_bias == (backbone == "qwen2")
    assert (config.vision.hidden_size, config.vision.num_layers, config.vision.image_px) == (
        48,
        2,
        56,
    )
    assert config.context_tokens == 2048


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"compressor_size": 1}, "LLaVA-Mini"),
        ({"mm_projector_type": "linear"}, "LLaVA"),
        ({"mm_projector_type": "mlp3x_gelu"}, "LLaVA-1.5"),
    ],
)
def test_members_without_a_class_are_refused(values: dict[str, object], word: str):
    with pytest.raises(CheckpointError, match=rf"no class for {word} ") as caught:
        hf_from_original({**original_from_hf(LLAVA), **values})
    assert "original layout" in caught.value.hint


def test_a_siglip_tower_does_not_fit_next_videos_class():
    values = {**original_from_hf(VIDEO), "vision_config": None}
    values |= {"mm_vision_tower": "google/siglip-so400m-patch14-384", "mm_hidden_size": 1152}
    with pytest.raises(CheckpointError, match="has a CLIP tower"):
        hf_from_original(values)


def test_placeholders_are_rows_of_the_embedding():
    original = original_from_hf(VIDEO)
    kept = hf_from_original(original)
    assert (kept["image_token_index"], kept["video_token_index"]) == (32_001, 32_000)
    bare = {**original, "image_token_index": None, "video_token_index": None, "vocab_size": 32_000}
    made = hf_from_original(bare)
    assert (made["image_token_index"], made["video_token_index"]) == (31_998, 31_999)
