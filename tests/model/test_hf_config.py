"""transformers' spelling of a configuration: sparse 4.45 files, 5.x files, there and back."""

import pytest

from llava_video.errors import CheckpointError
from llava_video.model.dimensions import VisionConfig
from llava_video.model.hf_config import (
    default_pinpoints,
    hf_from_original,
    original_from_hf,
    vision_values,
)

# What a llava-hf 7B file looks like: transformers 4.45 leaves class defaults out.
SPARSE = {
    "architectures": ["LlavaOnevisionForConditionalGeneration"],
    "image_grid_pinpoints": [[384, 768], [768, 384]],
    "image_token_index": 151646,
    "model_type": "llava_onevision",
    "text_config": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "model_type": "qwen2",
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "rope_theta": 1000000.0,
        "vocab_size": 152128,
        "eos_token_id": 151645,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "vision_config": {
        "hidden_size": 1152,
        "image_size": 384,
        "intermediate_size": 4304,
        "model_type": "siglip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 26,
        "patch_size": 14,
        "vision_use_head": False,
    },
    "vision_feature_layer": -1,
}


def with_text(**values: object) -> dict[str, object]:
    return {**SPARSE, "text_config": {**SPARSE["text_config"], **values}}


def with_vision(**values: object) -> dict[str, object]:
    return {**SPARSE, "vision_config": {**SPARSE["vision_config"], **values}}


def test_sparse_file_gets_the_class_defaults():
    original = original_from_hf(SPARSE)
    assert original["rms_norm_eps"] == 1e-6
    assert original["max_position_embeddings"] == 32_768
    assert original["hidden_act"] == "silu"
    assert original["rope_theta"] == 1e6
    assert original["rope_scaling"] is None
    assert original["vision_config"] == vision_values(VisionConfig())
    # The one video layout of the class: one newline after the clip, bilinear.
    assert original["mm_newline_position"] == "one_token"
    assert original["mm_spatial_pool_mode"] == "bilinear"
    assert original["image_aspect_ratio"] == "anyres_max_9"
    assert original["image_grid_pinpoints"] == [[768, 384], [384, 768]]  # now (width, height)
    assert original["eos_token_id"] == 151645
    assert original["torch_dtype"] == "float16"


def test_rope_parameters_of_5x():
    linear = {"rope_type": "linear", "rope_theta": 1e6, "factor": 4.0}
    original = original_from_hf(with_text(rope_parameters=linear, rope_theta=None))
    assert original["rope_theta"] == 1e6
    assert original["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    plain = {"rope_type": "default", "rope_theta": 5e5}
    original = original_from_hf(with_text(rope_parameters=plain))
    assert (original["rope_theta"], original["rope_scaling"]) == (5e5, None)


@pytest.mark.parametrize(
    ("top", "text", "tied"), [(False, True, True), (True, False, True), (False, False, False)]
)
def test_a_tie_on_either_level_counts(top: bool, text: bool, tied: bool):
    values = {**with_text(tie_word_embeddings=text), "tie_word_embeddings": top}
    assert original_from_hf(values)["tie_word_embeddings"] is tied


@pytest.mark.parametrize(
    ("stored_layers", "feature_layer", "used_layers"), [(26, -1, 26), (27, -2, 26), (27, 26, 26)]
)
def test_the_feature_layer_says_how_many_layers_run(
    stored_layers: int, feature_layer: int, used_layers: int
):
    values = {**with_vision(num_hidden_layers=stored_layers), "vision_feature_layer": feature_layer}
    assert original_from_hf(values)["vision_config"]["num_hidden_layers"] == used_layers


def test_no_vision_config_means_so400m_and_no_pinpoints_the_familys():
    values = {key: value for key, value in SPARSE.items() if key != "vision_config"}
    del values["image_grid_pinpoints"]
    original = original_from_hf(values)
    assert original["vision_config"] == vision_values(VisionConfig())
    assert original["image_grid_pinpoints"] == default_pinpoints(384)
    assert len(default_pinpoints(384)) == 36
    assert default_pinpoints(384)[1] == [384, 768]


@pytest.mark.parametrize(
    "values",
    [
        with_text(model_type="llama"),
        with_text(layer_types=["full_attention", "sliding_attention"]),
        with_vision(model_type="clip_vision_model"),
        {**SPARSE, "projector_hidden_act": "gelu_new"},
        {**SPARSE, "vision_feature_select_strategy": "default"},
        {**SPARSE, "multimodal_projector_bias": False},
        {**SPARSE, "vision_feature_layer": [-1, -2]},
        {**SPARSE, "vision_feature_layer": 0},
        {**SPARSE, "vision_feature_layer": -40},
        {**SPARSE, "text_config": "qwen2"},
    ],
)
def test_other_parts_are_refused(values: dict[str, object]):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        original_from_hf(values)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"mm_newline_position": "grid", "add_time_instruction": True, "force_sample": True},
        {"mm_spatial_pool_mode": "average", "image_aspect_ratio": "pad"},
        {"rope_scaling": {"type": "linear", "factor": 4.0}, "tie_word_embeddings": True},
        {"tokenizer_model_max_length": 4096, "head_dim": 64},
    ],
)
def test_original_to_hf_and_back_loses_nothing(changed: dict[str, object]):
    original = {**original_from_hf(SPARSE), **changed}
    again = original_from_hf(hf_from_original(original))
    lost = {key: value for key, value in original.items() if again.get(key) != value}
    unset = {"use_sliding_window", "max_window_layers", "bos_token_id", "pad_token_id"}
    assert set(lost) <= unset | {"video_token_index"}


def test_layouts_of_the_class_itself_are_not_written_twice():
    assert not [key for key in hf_from_original(original_from_hf(SPARSE)) if key.startswith("mm_")]


def test_a_small_vocabulary_has_room_for_the_placeholders():
    values = hf_from_original({**original_from_hf(SPARSE), "vocab_size": 320})
    assert (values["image_token_index"], values["video_token_index"]) == (318, 319)
