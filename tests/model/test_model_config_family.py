"""Configurations of every member: what the planner is told, and where a tower's sizes come from."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llava_video.errors import CheckpointError
from llava_video.model import sources
from llava_video.model.dimensions import FusionConfig
from llava_video.model.model_config import (
    ModelConfig,
    geometry_of,
    parse_model_config,
    read_model_config,
    with_overrides,
)
from llava_video.values import Newline

LLAVA_15 = {
    "architectures": ["LlavaLlamaForCausalLM"],
    "model_type": "llava",  # transformers' own class has that name too
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
    "image_aspect_ratio": "pad",
    "mm_hidden_size": 1024,
    "tokenizer_model_max_length": 2048,
}
LLAVA = {**LLAVA_15, "mm_vision_tower": "openai/clip-vit-large-patch14"}
del LLAVA["mm_projector_type"], LLAVA["image_aspect_ratio"]
LLAVA_NEXT = {
    **LLAVA_15,
    "image_aspect_ratio": "anyres",
    "mm_patch_merge_type": "spatial_unpad",
    "image_grid_pinpoints": [[336, 672], [672, 336]],
}
NEXT_VIDEO = {
    **LLAVA_NEXT,
    "mm_resampler_type": "spatial_pool",
    "mm_spatial_pool_mode": "average",
    "rope_scaling": {"type": "linear", "factor": 2.0},
}
MINI = {**LLAVA_15, "compressor_size": 2, "prefusion_layer_num": 3, "resolution_ratio": 2}
# The tower of this file: 3 layers of 48 channels.
TOWER = {
    "model_type": "clip",
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": 56,
        "patch_size": 14,
    },
}
NAMED = {**LLAVA_15, "mm_vision_tower": "me/clip-tiny", "mm_hidden_size": 48}


def write(folder: Path, values: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def geometry(values: dict[str, object], **overrides: object):
    return geometry_of(with_overrides(parse_model_config(values), overrides), "x", "float32")


def test_members_and_templates():
    found = {
        parse_model_config(values).member: parse_model_config(values)
        for values in (LLAVA, LLAVA_15, LLAVA_NEXT, NEXT_VIDEO, MINI)
    }
    assert list(found) == ["LLaVA", "LLaVA-1.5", "LLaVA-NeXT", "LLaVA-NeXT-Video", "LLaVA-Mini"]
    templates = [config.template for config in found.values()]
    assert templates == ["llava_v1", "vicuna_v1", "vicuna_v1", "vicuna_v1", "llava_llama_3_1"]
    assert not any(config.has_mark_ends for config in found.values())
    assert parse_model_config({**LLAVA, "mm_use_im_start_end": True}).has_mark_ends
    assert not any(config.text.qkv_bias for config in found.values())
    contexts = [config.context_tokens for config in found.values()]
    assert contexts == [4096, 4096, 4096, 8192, 4096]  # positions x factor: the cut is lifted


def test_frames_are_pictures_where_no_video_was_seen():
    for values, fit, newline in (
        (LLAVA, "crop", Newline.NONE),
        (LLAVA_15, "pad", Newline.NONE),
        (LLAVA_NEXT, "squeeze", Newline.FRAME),  # as the overview of a tiled picture
    ):
        found = geometry(values)
        assert (found.video_fit, found.newline) == (fit, newline)
        assert (found.is_video_trained, found.stretches, found.max_frames) == (False, True, 8)
        assert (found.pool_stride, found.pool_of) == (1, "tokens")
        assert (found.square_fit, found.keeps_line) == ("crop", False)
        assert found.projector_layers == (1 if values is LLAVA else 2)
        assert (found.compressed_side, found.split, found.fusion_layers) == (0, 1, 0)


def test_next_video_as_released():
    found = geometry(NEXT_VIDEO)
    assert (found.video_fit, found.square_fit, found.newline) == ("crop", "crop", Newline.NONE)
    assert (found.is_video_trained, found.stretches, found.max_frames) == (True, True, 32)
    assert (found.pool_mode, found.pool_stride, found.pool_of) == ("average", 2, "features")
    assert (found.reference_rule, found.fps, found.keeps_line) == ("spread", None, False)
    assert (found.rope_scale, found.context_tokens) == (2.0, 8192)
    later = geometry(NEXT_VIDEO, mm_pooling_position="after", mm_newline_position="grid")
    assert (later.pool_of, later.newline) == ("tokens", Newline.ROW)
    cut = geometry(NEXT_VIDEO, tokenizer_model_max_length=None)
    assert cut.context_tokens == 8192


def test_mini_is_fused():
    found = geometry(MINI)
    assert (found.compressed_side, found.split, found.fusion_layers) == (2, 2, 3)
    assert (found.video_fit, found.aspect, found.square_fit) == ("nearest", "pad", "crop")
    assert (found.fps, found.reference_rule, found.max_frames) == (1.0, "midpoints", 4096)
    assert (found.is_video_trained, found.stretches, found.newline) == (True, False, Newline.NONE)
    assert not found.is_qwen
    changed = with_overrides(parse_model_config(MINI), {"compressor_size": 8})
    assert changed.dimensions.fusion == FusionConfig(side=8, num_layers=3, split=2)


def test_onevision_is_as_it_was():
    siglip = {**LLAVA_NEXT, "architectures": ["LlavaQwenForCausalLM"], "mm_hidden_size": 1152}
    siglip |= {"mm_vision_tower": "google/siglip-so400m-patch14-384"}
    siglip |= {"image_grid_pinpoints": "(1x1),...,(6x6)", "vocab_size": 152_064}
    found = geometry(siglip)
    assert (found.square_fit, found.video_fit, found.keeps_line) == ("squeeze", "squeeze", True)
    assert (found.is_video_trained, found.stretches, found.fps) == (True, False, None)
    assert found.is_qwen
    mistral = {"architectures": ["LlavaMistralForCausalLM"], "num_key_value_heads": 2}
    assert not geometry({**siglip, **mistral}).is_qwen
    assert (found.reference_rule, found.max_frames, found.pool_of) == ("steps", 32, "tokens")


@pytest.mark.parametrize("where", ["beside the checkpoint", "as a path", "as an argument"])
def test_a_named_tower_is_found_here(tmp_path: Path, where: str):
    tower = write(tmp_path / "me" / "clip-tiny", TOWER)
    named = {**NAMED, "mm_vision_tower": str(tower)} if where == "as a path" else NAMED
    place = "elsewhere/model" if where == "as an argument" else "model"
    folder = write(tmp_path / place, named)
    config = read_model_config(folder, tower=tower if where == "as an argument" else None)
    assert (config.vision.hidden_size, config.vision.num_layers) == (48, 2)  # 3 and hidden state -2
    assert (config.vision.image_px, config.vision.kind) == (56, "clip")
    # The sizes stay with the configuration: overrides and copies need no folder.
    assert with_overrides(config, {"image_aspect_ratio": "square"}).vision == config.vision
    assert parse_model_config(config.values, name=config.name).vision == config.vision


def test_a_tower_of_another_size_is_refused(tmp_path: Path):
    folder = write(tmp_path / "model", {**NAMED, "mm_hidden_size": 1024})
    write(tmp_path / "me" / "clip-tiny", TOWER)
    with pytest.raises(CheckpointError, match=r"mm_hidden_size = 1024, expected 48"):
        read_model_config(folder)


def test_an_argument_comes_before_what_the_file_holds(tmp_path: Path):
    folder = write(tmp_path / "model", {**NAMED, "vision_config": {"model_type": "dinov2"}})
    tower = write(tmp_path / "tower", TOWER)
    assert read_model_config(folder, tower=tower).vision.hidden_size == 48
    values = {**LLAVA_15, "mm_vision_tower": "/data/of/somebody"}
    other = write(tmp_path / "other", values)
    assert read_model_config(other, tower="openai/clip-vit-large-patch14").vision.image_px == 224
    # The name is the checkpoint's, and the sizes stay.
    assert read_model_config(other, tower=tower_of_width(tmp_path, 1024)).values[
        "mm_vision_tower"
    ] == ("/data/of/somebody")


def tower_of_width(tmp_path: Path, width: int) -> Path:
    sizes = {**TOWER["vision_config"], "hidden_size": width}
    return write(tmp_path / f"tower-{width}", {**TOWER, "vision_config": sizes})


@pytest.mark.parametrize(
    "name", ["openai/clip-vit-large-patch14-336", "me/clip-patch14-336", "me/clip-tiny"]
)
def test_a_tower_for_other_pictures_is_refused(tmp_path: Path, name: str):
    """By the table, by the size in the name, and by the folder of the tower beside it."""
    sizes = {**TOWER["vision_config"], "image_size": 70}
    write(tmp_path / "me" / "clip-tiny", {**TOWER, "vision_config": sizes})
    folder = write(tmp_path / "model", {**NAMED, "mm_vision_tower": name})
    with pytest.raises(CheckpointError, match=r"pictures of 56 px, .* for (336|70) px") as caught:
        read_model_config(folder, tower=write(tmp_path / "tower", TOWER))
    assert "trained with" in caught.value.hint


def test_a_newline_that_an_override_turns_off_stays_in_the_files():
    config = parse_model_config(LLAVA_NEXT)
    flat = with_overrides(config, {"mm_patch_merge_type": "flat"})
    assert "newline" not in config.dimensions.spares
    assert "newline" in flat.dimensions.spares
    assert "newline" in with_overrides(flat, {"image_aspect_ratio": "pad"}).dimensions.spares
    assert with_overrides(flat, {"mm_patch_merge_type": "spatial_unpad"}).dimensions.has_newline


def test_the_member_and_the_template_of_the_file_win():
    stated = {"llava_video_member": "LLaVA-NeXT-Video", "llava_video_template": "llava_llama_2"}
    config = parse_model_config({**LLAVA_NEXT, **stated}, name="llava-v1.6")
    assert (config.member, config.template) == ("LLaVA-NeXT-Video", "llava_llama_2")
    for key in stated:
        known = r"(llava_v1|LLaVA-1\.5)"
        with pytest.raises(CheckpointError, match=f"{key} = 'foo', expected .*{known}"):
            parse_model_config({**LLAVA_NEXT, key: "foo"})


def test_frames_that_the_file_states_win():
    """Over its line's own (8 spread, of pictures) and over a known checkpoint's of the name."""
    plain = parse_model_config(LLAVA_15)
    assert (plain.max_frames, plain.fps) == (None, None)
    assert geometry_of(plain, "mine", "float32").max_frames == 8
    stated = {"llava_video_fps": 2, "llava_video_max_frames": 24}
    config = parse_model_config({**LLAVA_15, **stated})
    for name in ("mine", "liuhaotian/llava-v1.5-7b"):
        geometry = geometry_of(config, name, "float32")
        assert (geometry.max_frames, geometry.fps) == (24, 2.0)
    for key, wrong in (("fps", 0), ("fps", 1e9), ("max_frames", 2.5), ("max_frames", 0)):
        with pytest.raises(CheckpointError, match=f"llava_video_{key} = {wrong}, expected "):
            parse_model_config({**LLAVA_15, f"llava_video_{key}": wrong})


def test_a_tower_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, fetched = write(tmp_path / "a" / "model", NAMED), write(tmp_path / "cache", TOWER)
    asked: list[tuple[str, str]] = []

    def resolve(name: str, *, files: str) -> Path:
        asked.append((name, files))
        return fetched

    monkeypatch.setattr(sources, "resolve_checkpoint", resolve)
    assert read_model_config(folder).vision.hidden_size == 48
    assert asked == [("me/clip-tiny", "config")]


def test_a_missing_tower_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = write(tmp_path / "model", {**NAMED, "mm_vision_tower": "no one/clip-tiny"})
    with pytest.raises(CheckpointError, match="no one/clip-tiny") as caught:
        read_model_config(folder)
    assert "beside the checkpoint" in caught.value.hint
    assert "vision_tower=" in caught.value.hint


@pytest.mark.parametrize("aspect", [{}, {"image_aspect_ratio": "square"}])
def test_a_projector_alone_is_of_the_first_stage(tmp_path: Path, aspect: dict[str, object]):
    folder = write(tmp_path / "mine", {**LLAVA_15, **aspect, "tune_mm_mlp_adapter": True})
    assert read_model_config(folder).template == "vicuna_v1"  # a whole model that says so too
    (folder / "mm_projector.bin").write_bytes(b"")
    config = read_model_config(folder)
    assert config.template == "plain"
    assert with_overrides(config, {"image_aspect_ratio": "pad"}).template == "plain"
    # Over a checkpoint of this library the keys are the base's: what the folder holds decides.
    write(folder, {**LLAVA_15, "tune_mm_mlp_adapter": True, "llava_video_template": "llava_v1"})
    assert read_model_config(folder).template == "plain"


@pytest.mark.parametrize(
    ("folder", "name", "member"),
    [
        ("llava-critic-7b", "llava-critic-7b", "LLaVA-Critic"),
        ("models--lmms-lab--llava-critic-7b/snapshots/0a1b", "llava-critic-7b", "LLaVA-Critic"),
        ("critics/llava-onevision", "llava-onevision", "LLaVA-OneVision"),
    ],
)
def test_the_name_is_the_folders_or_the_hubs(tmp_path: Path, folder: str, name: str, member: str):
    values = {**LLAVA_15, "architectures": ["LlavaQwenForCausalLM"], "mm_hidden_size": 1152}
    values["mm_vision_tower"] = "google/siglip-so400m-patch14-384"
    config = read_model_config(write(tmp_path / folder, values))
    assert (config.name, config.member) == (name, member)


@pytest.mark.parametrize("values", [LLAVA, LLAVA_15, LLAVA_NEXT, NEXT_VIDEO, MINI])
def test_no_override_is_no_change(values: dict[str, object]):
    config = parse_model_config(values, name="x")
    assert with_overrides(config, {}) == config


def test_mpt_is_refused_in_a_sentence(tmp_path: Path):
    folder = write(tmp_path, {**LLAVA_15, "architectures": ["LlavaMPTForCausalLM"]})
    with pytest.raises(CheckpointError, match="no MPT"):
        read_model_config(folder)


GOLDEN = {
    "llava-v1-tiny": ("LLaVA", "llava_v1", 2048),
    "llava-v1.5-tiny": ("LLaVA-1.5", "vicuna_v1", 4096),
    "llava-v1.5-tiny-lora": ("LLaVA-1.5", "vicuna_v1", 4096),
    "llava-pretrain-tiny": ("LLaVA-1.5", "plain", 4096),
    "llava-v1.6-tiny": ("LLaVA-NeXT", "vicuna_v1", 4096),
    "LLaVA-NeXT-Video-tiny": ("LLaVA-NeXT-Video", "vicuna_v1", 8192),
    "llava-mini-tiny": ("LLaVA-Mini", "llava_llama_3_1", 131_072),
    "llava-mini-hd-tiny": ("LLaVA-Mini", "llava_llama_3_1", 131_072),
}


def golden_config(shared: Path, name: str) -> ModelConfig:
    return read_model_config(shared / "golden" / "family" / name)


@pytest.mark.parametrize("name", list(GOLDEN))
def test_golden_folders_are_recognised(shared: Path, name: str):
    config = golden_config(shared, name)
    assert (config.member, config.template, config.context_tokens) == GOLDEN[name]
    assert (config.vision.kind, config.vision.num_layers, config.vision.hidden_size) == (
        "clip",
        2,
        48,
    )
    assert config.vision.image_px == (224 if name == "llava-v1-tiny" else 336)
    assert config.has_mark_ends == (name == "llava-v1-tiny")
    assert config.dimensions.projector_layers == (1 if name == "llava-v1-tiny" else 2)


def test_the_templates_are_those_of_the_golden_cases(shared: Path):
    cases = json.loads((shared / "golden" / "family" / "cases.json").read_text())
    stated = {case["checkpoint"]: case["conv"] for case in cases.values() if "conv" in case}
    assert stated
    for name, template in stated.items():
        assert golden_config(shared, name).template == template


def test_golden_overrides(shared: Path):
    cases = json.loads((shared / "golden" / "family" / "cases.json").read_text())
    config = golden_config(shared, "LLaVA-NeXT-Video-tiny")
    changed = [case["overrides"] for case in cases.values() if "overrides" in case]
    assert len(changed) >= 6
    for overrides in changed:
        visual = with_overrides(config, overrides).visual
        is_before = overrides["mm_pooling_position"] == "before"
        assert visual.pool_of == ("features" if is_before else "tokens")
        assert visual.pool_stride == overrides.get("mm_spatial_pool_stride", 2)
        assert visual.pool_mode == overrides.get("mm_spatial_pool_mode", "average")
    assert (
        replace(config.visual, pool_of="tokens")
        == with_overrides(
            config, {"mm_pooling_position": "after", "mm_newline_position": "no_token"}
        ).visual
    )
