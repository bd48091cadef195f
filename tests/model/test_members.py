"""Which line a configuration belongs to, and the template its conversations were written in."""

import pytest

from llava_video.errors import CheckpointError
from llava_video.model.json_fields import JsonFields
from llava_video.model.members import (
    LLAVA,
    LLAVA_15,
    LLAVA_CRITIC,
    LLAVA_MINI,
    LLAVA_NEXT,
    LLAVA_NEXT_VIDEO,
    LLAVA_ONEVISION,
    LLAVA_VIDEO,
    MEMBERS,
    Member,
    backbone_of,
    member_of,
    trained_template,
)

CLIP = {"mm_vision_tower": "openai/clip-vit-large-patch14-336", "mm_projector_type": "mlp2x_gelu"}
SIGLIP = {"mm_vision_tower": "google/siglip-so400m-patch14-384", "mm_projector_type": "mlp2x_gelu"}
UNPAD = {"mm_patch_merge_type": "spatial_unpad"}


def test_the_table_is_keyed_by_name():
    assert list(MEMBERS) == [
        "LLaVA",
        "LLaVA-1.5",
        "LLaVA-NeXT",
        "LLaVA-NeXT-Video",
        "LLaVA-Mini",
        "LLaVA-Critic",
        "LLaVA-OneVision",
        "LLaVA-Video",
    ]
    assert all(MEMBERS[member.name] is member for member in MEMBERS.values())
    pictures = [member.name for member in MEMBERS.values() if not member.is_video_trained]
    assert pictures == ["LLaVA", "LLaVA-1.5", "LLaVA-NeXT"]


@pytest.mark.parametrize(
    ("values", "name", "member", "word"),
    [
        ({"mm_vision_tower": "openai/clip-vit-large-patch14"}, "", LLAVA, "linear"),
        ({**CLIP, "image_aspect_ratio": "pad"}, "", LLAVA_15, "padded pictures"),
        (CLIP, "", LLAVA_15, "square pictures"),
        ({**CLIP, "image_aspect_ratio": "foo"}, "", LLAVA_15, "square pictures (image_aspect_"),
        ({**CLIP, "llava_video_member": "LLaVA"}, "llava-1.5", LLAVA, "llava_video_member"),
        ({**SIGLIP, "llava_video_member": "LLaVA-Critic"}, "mine", LLAVA_CRITIC, "says so"),
        ({**CLIP, "image_aspect_ratio": "anyres", **UNPAD}, "", LLAVA_NEXT, "anyres pictures"),
        (
            {**CLIP, "image_aspect_ratio": "anyres", "mm_resampler_type": "spatial_pool"},
            "",
            LLAVA_NEXT_VIDEO,
            "spatial_pool",
        ),
        ({**SIGLIP, "mm_resampler_type": "spatial_pool"}, "", LLAVA_NEXT_VIDEO, "spatial_pool"),
        ({**CLIP, "compressor_size": 1}, "", LLAVA_MINI, "compressor_size = 1"),
        (SIGLIP, "lmms-lab/llava-onevision-qwen2-7b-ov", LLAVA_ONEVISION, "SigLIP"),
        (SIGLIP, "lmms-lab/llava-critic-7b", LLAVA_CRITIC, "llava-critic-7b"),
        ({**SIGLIP, "add_time_instruction": True}, "", LLAVA_VIDEO, "times"),
        ({**SIGLIP, **UNPAD, "mm_newline_position": "grid"}, "", LLAVA_VIDEO, "each row"),
        ({**SIGLIP, "mm_newline_position": "grid"}, "", LLAVA_ONEVISION, "SigLIP"),  # no vector
    ],
)
def test_recognised(values: dict[str, object], name: str, member: Member, word: str):
    found, why = member_of(values, name)
    assert found is member
    assert word in why


@pytest.mark.parametrize(
    ("values", "backbone"),
    [
        ({"architectures": ["LlavaLlamaForCausalLM"], **SIGLIP}, "llama"),
        ({"architectures": ["LlavaMiniLlamaForCausalLM"]}, "llama"),
        ({"architectures": ["LlavaMistralForCausalLM"], "model_type": "llava"}, "mistral"),
        ({"architectures": ["LlavaQwenForCausalLM"], "model_type": "llava", **CLIP}, "qwen2"),
        ({"model_type": "llava_mistral"}, "mistral"),
        ({"model_type": "llava_qwen", **CLIP}, "qwen2"),
        ({"model_type": "llava", **CLIP}, "llama"),
        ({"model_type": "llava", **SIGLIP}, "qwen2"),
        ({}, "qwen2"),
    ],
)
def test_decoders(values: dict[str, object], backbone: str):
    assert backbone_of(JsonFields(values, "config.json")) == backbone


@pytest.mark.parametrize(
    "values", [{"architectures": ["LlavaMPTForCausalLM"]}, {"model_type": "llava_mpt"}]
)
def test_mpt_is_refused(values: dict[str, object]):
    with pytest.raises(CheckpointError, match="MPT"):
        backbone_of(JsonFields(values, "config.json"))


@pytest.mark.parametrize(
    ("member", "backbone", "vocab_size", "name", "template"),
    [
        (LLAVA, "Llama", 32_003, "LLaVA-Lightning-7B-delta-v1-1", "llava_v1"),
        (LLAVA, "Llama", 32_003, "liuhaotian/LLaVA-13b-delta-v0", "llava_v0"),
        (LLAVA, "Llama", 32_000, "llava-v1-0719-336px-lora-merge-vicuna-13b-v1.3", "llava_v1"),
        (LLAVA, "Llama", 32_000, "llava-llama-2-13b-chat-lightning-preview", "llava_llama_2"),
        (LLAVA_15, "Llama", 32_000, "llava-v1.5-7b", "vicuna_v1"),
        (LLAVA_15, "Llama", 32_064, "llava-1.5-7b-hf", "vicuna_v1"),
        (LLAVA_15, "Llama", 128_256, "llava-1.5-llama-3-8b", "llava_llama_3"),
        (LLAVA_15, "Mistral", 32_000, "llava-1.5-mistral", "mistral_instruct"),
        (LLAVA_15, "Qwen", 152_064, "llava-1.5-qwen2", "qwen_1_5"),
        (LLAVA, "Qwen", 152_064, "llava-qwen", "qwen_1_5"),
        (LLAVA_NEXT, "Llama", 32_000, "llava-v1.6-vicuna-7b", "vicuna_v1"),
        (LLAVA_NEXT, "Mistral", 32_000, "llava-v1.6-mistral-7b", "mistral_instruct"),
        (LLAVA_NEXT, "Llama", 64_000, "llava-v1.6-34b", "chatml_direct"),
        (LLAVA_NEXT, "Llama", 64_064, "llava-v1.6-34b-hf", "chatml_direct"),
        (LLAVA_NEXT, "Llama", 128_256, "llama3-llava-next-8b", "llava_llama_3"),
        (LLAVA_NEXT, "Qwen", 152_064, "llava-next-72b", "qwen_1_5"),
        (LLAVA_NEXT_VIDEO, "Llama", 32_000, "LLaVA-NeXT-Video-7B-DPO", "vicuna_v1"),
        (LLAVA_NEXT_VIDEO, "Llama", 64_000, "LLaVA-NeXT-Video-34B", "chatml_direct"),
        (LLAVA_NEXT_VIDEO, "Qwen", 152_064, "LLaVA-NeXT-Video-32B-Qwen", "qwen_1_5"),
        (LLAVA_MINI, "MiniLlama", 128_256, "llava-mini-llama-3.1-8b", "llava_llama_3_1"),
        (LLAVA_CRITIC, "Qwen", 152_064, "llava-critic-7b", "qwen_1_5"),
        (LLAVA_ONEVISION, "Qwen", 151_936, "llava-onevision-qwen2-0.5b-ov", "qwen_1_5"),
        (LLAVA_VIDEO, "Qwen", 152_064, "LLaVA-Video-7B-Qwen2", "qwen_1_5"),
    ],
)
def test_templates(member: Member, backbone: str, vocab_size: int, name: str, template: str):
    values = {"architectures": [f"Llava{backbone}ForCausalLM"], "vocab_size": vocab_size}
    assert trained_template(member, JsonFields(values, "config.json"), name) == template


def test_the_template_that_was_written_down_wins():
    values = {"llava_video_template": "llava_v0", "vocab_size": 32_000}
    fields = JsonFields({**values, "architectures": ["LlavaLlamaForCausalLM"]}, "config.json")
    assert trained_template(LLAVA_NEXT, fields, "llava-v1.6-vicuna-7b") == "llava_v0"
    wrong = JsonFields({"llava_video_template": "foo"}, "config.json")
    with pytest.raises(CheckpointError, match="'vicuna_v1'") as caught:
        trained_template(LLAVA_NEXT, wrong)
    assert "write one of these" in caught.value.hint


def test_the_first_stage_knows_captions_only():
    values = {"tune_mm_mlp_adapter": True, "architectures": ["LlavaLlamaForCausalLM"]}
    fields = JsonFields(values, "config.json")
    assert (
        trained_template(LLAVA_15, fields, "llava-v1.5-mlp2x-336px-pretrain-vicuna-7b") == "plain"
    )
    assert trained_template(LLAVA_15, fields, "a-whole-model") == "vicuna_v1"
