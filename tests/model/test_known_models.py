"""The table of public checkpoints: made by the reader's own code, its arithmetic by hand."""

import pytest

from llava_video.errors import ConfigError
from llava_video.model.known_models import (
    find_known,
    frame_tokens,
    known_config,
    known_geometry,
    known_models,
)
from llava_video.values import Newline


def test_each_is_of_the_family_that_its_values_say():
    for model in known_models():
        config = known_config(model.name)
        assert (config.member, config.layout) == (model.family, model.layout)
        assert config.name == model.name
        assert find_known(model.name) == model


@pytest.mark.parametrize(
    ("name", "tokens", "frames", "context"),
    [
        ("liuhaotian/LLaVA-Lightning-7B-delta-v1-1", 256, 8, 2048),  # 16 x 16
        ("liuhaotian/llava-v1.5-7b", 576, 8, 4096),  # 24 x 24
        ("liuhaotian/llava-v1.6-mistral-7b", 577, 8, 32_768),  # and a newline; no cut at 4,096
        ("lmms-lab/LLaVA-NeXT-Video-7B", 144, 32, 4096),  # 12 x 12
        ("llava-hf/LLaVA-NeXT-Video-7B-DPO-hf", 144, 32, 10_240),  # 4,096 x 2.5
        ("ICTNLP/llava-mini-llama-3.1-8b", 1, 131_072, 131_072),
        ("lmms-lab/llava-onevision-qwen2-7b-ov", 196, 32, 32_768),  # 14 x 14
        ("lmms-lab/llava-critic-7b", 196, 32, 32_768),
        ("lmms-lab/LLaVA-Video-7B-Qwen2", 210, 64, 32_768),  # 14 rows of 14 and a newline
    ],
)
def test_frames_and_tokens_by_hand(name: str, tokens: int, frames: int, context: int):
    model = find_known(name)
    assert (model.tokens_per_frame, model.max_frames) == (tokens, frames)
    assert model.context_tokens == context
    at_end = int(model.newline is Newline.CLIP)  # one newline after the clip
    assert model.tokens_per_video == frames * tokens + at_end
    geometry = known_geometry(name)
    assert frame_tokens(geometry) == tokens
    assert (geometry.max_frames, geometry.context_tokens) == (frames, context)


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        # Sizes of the published files in half precision; 1.5's tower comes in a file of its own.
        ("liuhaotian/llava-v1.5-7b", 13.5 + 0.6),
        ("liuhaotian/llava-v1.6-vicuna-7b", 14.1),
        ("lmms-lab/LLaVA-Video-7B-Qwen2", 16.06),
        # 16.06 of Llama-3.1, 1.75 of four pre-fusion layers, and a tower of 0.6.
        ("ICTNLP/llava-mini-llama-3.1-8b", 16.06 + 1.75 + 0.6),
    ],
)
def test_bytes_of_the_weights_are_the_files(name: str, gigabytes: float):
    half, full = known_geometry(name), known_geometry(name, "float32")
    assert half.weights_bytes == pytest.approx(gigabytes * 1e9, rel=0.005)
    assert full.weights_bytes == 2 * half.weights_bytes


def test_facts_of_videos():
    video = find_known("lmms-lab/LLaVA-Video-7B-Qwen2")
    assert (video.newline, video.time_instruction) == (Newline.ROW, True)
    onevision = find_known("lmms-lab/llava-onevision-qwen2-7b-ov")
    assert (onevision.newline, onevision.time_instruction) == (Newline.CLIP, False)
    assert find_known("lmms-lab/LLaVA-NeXT-Video-34B").newline is Newline.NONE


def test_templates_of_some():
    assert find_known("lmms-lab/LLaVA-NeXT-Video-34B-DPO").template == "chatml_direct"
    assert find_known("liuhaotian/LLaVA-13b-delta-v0").template == "llava_v0"
    assert find_known("liuhaotian/llava-pretrain-vicuna-7b-v1.3").template == "plain"


@pytest.mark.parametrize("name", ["", "someone/another-model"])
def test_unknown_names_have_no_facts(name: str):
    assert find_known(name) is None
    assert known_config(name) is None
    assert known_geometry(name) is None


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ConfigError, match="bfloat16"):
        known_geometry("liuhaotian/llava-v1.5-7b", "int8")
