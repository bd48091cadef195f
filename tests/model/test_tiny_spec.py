"""The recipes of tiny checkpoints: each is read as its member, and says what was asked."""

from typing import get_args

import pytest

from llava_video.errors import ConfigError
from llava_video.model.members import MEMBERS
from llava_video.model.model_config import parse_model_config
from llava_video.model.tiny_spec import (
    MemberName,
    TinySpec,
    front_token,
    special_tokens,
    tiny_generation,
    tiny_values,
)
from llava_video.values import Newline


def config_of(**options: object):
    spec = TinySpec(**options)
    return parse_model_config(tiny_values(spec), tiny_generation(spec))


def test_there_is_a_recipe_for_every_member():
    assert set(get_args(MemberName)) == set(MEMBERS)
    for member in MEMBERS:
        assert config_of(member=member).member == member


@pytest.mark.parametrize(
    ("member", "template", "context_tokens", "aspect", "newline"),
    [
        ("LLaVA", "llava_v1", 2048, "square", Newline.NONE),
        ("LLaVA-1.5", "vicuna_v1", 4096, "pad", Newline.NONE),
        ("LLaVA-NeXT", "vicuna_v1", 4096, "anyres", Newline.FRAME),
        ("LLaVA-NeXT-Video", "vicuna_v1", 4096, "anyres", Newline.NONE),
        ("LLaVA-Mini", "llava_llama_3_1", 131_072, "pad", Newline.NONE),
        ("LLaVA-OneVision", "qwen_1_5", 32_768, "anyres", Newline.CLIP),
        ("LLaVA-Video", "qwen_1_5", 32_768, "anyres", Newline.ROW),
    ],
)
def test_facts_of_the_members(member, template, context_tokens, aspect, newline: Newline):
    config = config_of(member=member)
    assert (config.template, config.context_tokens) == (template, context_tokens)
    assert (config.visual.aspect, config.visual.newline) == (aspect, newline)
    is_siglip = member in ("LLaVA-OneVision", "LLaVA-Video")
    assert config.vision.kind == ("siglip" if is_siglip else "clip")
    assert (config.vision.num_layers, config.vision.patches_per_side) == (2, 4)
    assert config.text.qkv_bias == is_siglip
    assert config.has_mark_ends == (member == "LLaVA")
    assert config.dimensions.projector_layers == (1 if member == "LLaVA" else 2)


def test_special_tokens_are_those_of_the_template():
    llava, mini = TinySpec(member="LLaVA"), TinySpec(member="LLaVA-Mini")
    assert special_tokens(llava)[:3] == ("<unk>", "<s>", "</s>")
    assert {"<im_start>", "<im_end>"} <= set(special_tokens(llava))
    assert (front_token(llava), front_token(TinySpec())) == ("<s>", "")
    assert special_tokens(mini)[0] == front_token(mini) == "<|begin_of_text|>"
    # The ids follow the 256 bytes: <|eot_id|> is the fifth, <|end_of_text|> the second.
    assert tiny_generation(mini)["eos_token_id"] == [260, 257]
    assert tiny_generation(TinySpec())["eos_token_id"] == [258, 256]


def test_asked_words_come_before_the_members():
    later = config_of(member="LLaVA-NeXT-Video", newline_position="grid", pool_mode="max")
    assert (later.visual.newline, later.visual.pool_mode) == (Newline.ROW, "max")
    plain = config_of(newline_position="one_token", time_instruction=False)
    assert plain.member == "LLaVA-OneVision"
    assert config_of(context_tokens=512).context_tokens == 512
    fused = config_of(member="LLaVA-Mini", fused_side=2, fused_split=2).dimensions.fusion
    assert (fused.side, fused.split, fused.num_layers) == (2, 2, 2)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"member": "LLaVA-2"}, "member = 'LLaVA-2'"),
        ({"member": "LLaVA", "vocab_size": 261}, "vocab_size = 261"),
        ({"slow_every": 2, "newline_position": "frame"}, "newline_position='grid'"),
        ({"slow_every": 2, "member": "LLaVA-OneVision"}, "newline_position='grid'"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], match: str):
    with pytest.raises(ConfigError, match=match):
        TinySpec(**options)
