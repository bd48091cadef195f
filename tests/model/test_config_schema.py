"""Whose keys a config.json has, and what is said where they contradict its architecture."""

import pytest

from llava_video.errors import CheckpointError
from llava_video.model.config_schema import schema_of

MM = {"mm_vision_tower": "openai/clip-vit-large-patch14-336", "hidden_size": 64}
HF = {"text_config": {"model_type": "llama"}, "vision_config": {}}


def with_class(values: dict[str, object], *architectures: str) -> dict[str, object]:
    return {**values, "architectures": list(architectures)}


@pytest.mark.parametrize(
    ("values", "schema"),
    [
        (with_class(MM, "LlavaLlamaForCausalLM"), "original"),
        (with_class({**MM, "model_type": "llava"}, "LlavaQwenForCausalLM"), "original"),
        ({**MM, "model_type": "llava"}, "original"),
        # LoRA and first-stage folders, as training saves them.
        (with_class({**MM, "model_type": "llava_llama"}, "LlamaForCausalLM"), "original"),
        (with_class(MM, "MistralForCausalLM"), "original"),
        (with_class(MM, "Qwen2ForCausalLM"), "original"),
        (with_class({}, "LlavaQwenForCausalLM"), "original"),
        (with_class(HF, "LlavaNextForConditionalGeneration"), "hf"),
        ({**HF, "model_type": "llava_next"}, "hf"),
        (with_class({}, "LlavaForConditionalGeneration"), "hf"),  # all by default
        (with_class({**HF, **MM}, "LlavaForConditionalGeneration"), "hf"),  # keys of both
    ],
)
def test_told_by_the_class_and_the_keys(values: dict[str, object], schema: str):
    assert schema_of(values) == schema


@pytest.mark.parametrize(
    "values",
    [
        with_class(MM, "LlavaForConditionalGeneration"),
        with_class(HF, "LlavaLlamaForCausalLM"),
        with_class(MM, "LlavaLlamaForCausalLM", "LlavaForConditionalGeneration"),
        {**MM, **HF, "model_type": "llava"},
    ],
)
def test_a_contradiction_is_named(values: dict[str, object]):
    with pytest.raises(CheckpointError, match="contradicts itself") as caught:
        schema_of(values)
    assert "LlavaLlamaForCausalLM and its like with mm_vision_tower" in caught.value.hint


@pytest.mark.parametrize(
    "values",
    [
        with_class({}, "LlamaForCausalLM"),  # a decoder alone
        with_class(HF, "LlamaForCausalLM"),
        with_class(MM, "Qwen2_5_VLForConditionalGeneration"),
        {**HF, "model_type": "qwen2_5_vl"},
        {},
    ],
)
def test_another_kind_of_model(values: dict[str, object]):
    with pytest.raises(CheckpointError, match="another kind of model") as caught:
        schema_of(values)
    assert "llava-video models" in caught.value.hint


@pytest.mark.parametrize("kind", ["clip", "clip_vision_model", "siglip", "siglip_vision_model"])
def test_a_bare_tower_says_how_to_use_it(kind: str):
    found = with_class({"model_type": kind, **HF}, "CLIPModel")
    with pytest.raises(CheckpointError, match="is a vision tower") as caught:
        schema_of(found)
    assert "vision_tower=" in caught.value.hint
