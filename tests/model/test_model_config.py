"""config.json and generation_config.json of every kind, overrides, and what the planner is told."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from llava_video.errors import CheckpointError, ConfigError
from llava_video.model.model_config import (
    READ_KEYS,
    GenerationDefaults,
    geometry_of,
    parse_model_config,
    read_model_config,
    with_overrides,
)
from llava_video.values import Newline

ONEVISION_7B = {
    "architectures": ["LlavaQwenForCausalLM"],
    "model_type": "llava",  # as the hub says; transformers would build another model of it
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_size": 3584,
    "image_aspect_ratio": "anyres_max_9",
    "image_grid_pinpoints": [[a, b] for a in range(384, 2305, 384) for b in range(384, 2305, 384)],
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "mm_hidden_size": 1152,
    "mm_patch_merge_type": "spatial_unpad",
    "mm_projector_type": "mlp2x_gelu",
    "mm_spatial_pool_mode": "bilinear",
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "tokenizer_model_max_length": 32768,
    "tokenizer_padding_side": "right",
    "torch_dtype": "bfloat16",
    "vocab_size": 152064,
}
VIDEO_7B = {
    **ONEVISION_7B,
    "mm_newline_position": "grid",
    "add_time_instruction": True,
    "force_sample": True,
    "add_faster_video": False,
    "faster_token_stride": 10,
}
GENERATION = {
    "bos_token_id": 151643,
    "eos_token_id": [151645, 151643],
    "pad_token_id": 151643,
    "do_sample": True,
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.8,
    "repetition_penalty": 1.05,
}


def write(folder: Path, config: object, generation: object = None) -> Path:
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    return folder


def test_onevision_as_published(tmp_path: Path):
    config = read_model_config(write(tmp_path, ONEVISION_7B, GENERATION))
    assert config.layout == "original"
    assert (config.text.num_layers, config.text.head_dim, config.vision.num_layers) == (28, 128, 26)
    assert config.visual.newline is Newline.CLIP
    assert config.context_tokens == 32_768
    assert not config.time_instruction
    assert (config.padding_side, config.stored_dtype) == ("right", "bfloat16")
    assert config.generation == GenerationDefaults(
        eos_ids=(151645, 151643),
        bos_id=151643,
        pad_id=151643,
        repetition_penalty=1.05,
        do_sample=True,
        temperature=0.7,
        top_p=0.8,
        top_k=20,
    )


def test_geometry_of_onevision_and_video():
    onevision = geometry_of(parse_model_config(ONEVISION_7B), "lmms-lab/x", "bfloat16")
    assert (onevision.newline, onevision.max_frames) == (Newline.CLIP, 32)
    assert (onevision.aspect, onevision.anyres_max) == ("anyres", 9)
    assert len(onevision.canvases) == 36
    assert (onevision.unpad, onevision.merge, onevision.has_newline) == (True, "spatial", True)
    assert (onevision.tile_px, onevision.patches_per_side, onevision.pool_stride) == (384, 27, 2)
    assert not onevision.time_instruction
    # 28 layers x 4 heads x 128 x (key and value) x 2 bytes = 56 KiB per token
    per_token = onevision.num_layers * onevision.num_kv_heads * onevision.head_dim * 2
    assert per_token * onevision.value_bytes == 56 * 1024
    assert onevision.weights_bytes == pytest.approx(16.06e9, rel=1e-3)
    video = geometry_of(parse_model_config(VIDEO_7B), "some/folder", "float32")
    assert (video.newline, video.max_frames, video.time_instruction) == (Newline.ROW, 64, True)
    assert (video.value_bytes, video.weights_bytes) == (4, 2 * onevision.weights_bytes)


def test_geometry_has_the_sizes_that_memory_depends_on():
    geometry = geometry_of(parse_model_config(VIDEO_7B), "some/folder", "bfloat16")
    assert (geometry.num_heads, geometry.num_kv_heads, geometry.head_dim) == (28, 4, 128)
    assert (geometry.hidden_size, geometry.intermediate_size) == (3584, 18_944)
    assert geometry.vocab_size == 152_064
    assert (geometry.vision_width, geometry.vision_intermediate_size) == (1152, 4304)


def test_a_checkpoints_own_scale_stretches_its_context():
    """32,768 positions by 2.5 are 81,920, where the tokenizer's limit does not come first."""
    config = parse_model_config(VIDEO_7B)
    scaling = {"rope_scaling": {"type": "linear", "factor": 2.5}}
    geometry = geometry_of(
        with_overrides(config, {**scaling, "tokenizer_model_max_length": 10**6}), "x", "float32"
    )
    assert (geometry.rope_scale, geometry.context_tokens) == (2.5, 81_920)
    cut = geometry_of(
        with_overrides(config, {**scaling, "tokenizer_model_max_length": 40_000}), "x", "float32"
    )
    assert (cut.rope_scale, cut.context_tokens) == (2.5, 40_000)
    assert geometry_of(config, "x", "float32").rope_scale == 1


def test_the_frame_limit_of_a_known_name_wins():
    config = parse_model_config(VIDEO_7B)
    assert geometry_of(config, "lmms-lab/llava-onevision-qwen2-7b-ov", "float16").max_frames == 32
    assert geometry_of(config, "lmms-lab/LLaVA-Video-7B-Qwen2", "float16").max_frames == 64
    with pytest.raises(ConfigError, match="bfloat16"):
        geometry_of(config, "x", "int8")


def test_without_generation_config_the_ids_come_from_config(tmp_path: Path):
    generation = read_model_config(write(tmp_path, ONEVISION_7B)).generation
    assert generation == GenerationDefaults(eos_ids=(151645,), bos_id=151643)


@pytest.mark.parametrize(
    "generation",
    [{"repetition_penalty": 0}, {"repetition_penalty": "1"}, {"eos_token_id": "x"}, {"top_k": 1.5}],
)
def test_a_wrong_generation_config_is_refused(tmp_path: Path, generation: dict[str, object]):
    with pytest.raises(CheckpointError, match=r"generation_config\.json"):
        read_model_config(write(tmp_path, ONEVISION_7B, generation))


@pytest.mark.parametrize(
    "changed",
    [
        {"architectures": None, "model_type": "llava_qwen"},
        {"architectures": [], "model_type": "qwen2"},
        {"model_type": "anything"},
    ],
)
def test_kind_is_decided_by_architecture_or_mm_keys(changed: dict[str, object]):
    assert parse_model_config({**ONEVISION_7B, **changed}).layout == "original"


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"},
        {"architectures": ["LlavaNextVideoModel"], "mm_vision_tower": "openai/clip"},
        {"model_type": "llava"},  # transformers' own, or an original without its keys?
        {"model_type": "bert"},
        {},
    ],
)
def test_other_kinds_are_refused(tmp_path: Path, config: dict[str, object]):
    with pytest.raises(CheckpointError, match="another kind of model") as caught:
        read_model_config(write(tmp_path, config))
    assert "LlavaQwenForCausalLM" in caught.value.message
    assert "llava-video models" in caught.value.hint


@pytest.mark.parametrize("architectures", [5, "LlavaQwenForCausalLM", [1], {"a": 1}])
def test_architectures_that_are_no_names_are_refused(architectures: object):
    with pytest.raises(CheckpointError, match="architectures"):
        parse_model_config({**ONEVISION_7B, "architectures": architectures})


def test_a_folder_without_config_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        read_model_config(tmp_path)


def test_overrides_in_the_original_words():
    config = parse_model_config(ONEVISION_7B, GENERATION)
    grid = with_overrides(
        config, {"mm_newline_position": "grid", "mm_spatial_pool_mode": "average"}
    )
    assert (grid.visual.newline, grid.visual.pool_mode) == (Newline.ROW, "average")
    assert grid.generation == config.generation
    assert config.visual.newline is Newline.CLIP  # the original is as it was
    slow_fast = with_overrides(grid, {"add_faster_video": True, "faster_token_stride": 4})
    assert slow_fast.visual.slow_every == 4
    assert slow_fast.visual.pool_mode == "average"  # overrides add up
    scaled = with_overrides(config, {"rope_scaling": {"type": "linear", "factor": 4.0}})
    assert scaled.text.rope_scale == 4.0
    assert scaled.context_tokens == 32_768  # tokenizer_model_max_length still holds
    assert with_overrides(config, {"tokenizer_padding_side": "left"}).padding_side == "left"
    assert with_overrides(config, {"force_sample": False}).values["force_sample"] is False
    assert with_overrides(config, {"image_aspect_ratio": "pad"}).visual.aspect == "pad"
    assert with_overrides(config, {"eos_token_id": 7}).generation.eos_ids == (7,)
    assert with_overrides(config, {}) == config


@pytest.mark.parametrize(
    ("overrides", "error", "match"),
    [
        ({"mm_newline_pos": "grid"}, ConfigError, "did you mean mm_newline_position"),
        ({"xyz": 1}, ConfigError, "known: "),
        ({"mm_newline_position": "nowhere"}, CheckpointError, "nowhere"),
        ({"tokenizer_padding_side": "top"}, CheckpointError, "'left' or 'right'"),
    ],
)
def test_wrong_overrides_are_refused(overrides, error, match):
    with pytest.raises(error, match=match):
        with_overrides(parse_model_config(ONEVISION_7B), overrides)


def test_a_config_survives_pickling():
    config = parse_model_config(VIDEO_7B, GENERATION)
    assert pickle.loads(pickle.dumps(config)) == config
    assert hash(config) == hash(parse_model_config(VIDEO_7B, GENERATION))


def test_golden_layouts_agree(shared: Path):
    golden = shared / "golden" / "onevision_video"
    original = read_model_config(golden / "model_a")
    assert original.generation.repetition_penalty == 1.05
    assert original.generation.eos_ids == (882, 880)
    assert original.visual.newline is Newline.ROW
    words = {key: value for key, value in original.values.items() if key in READ_KEYS}
    for name in ("model_a_hf", "model_a_hf_legacy"):
        converted = read_model_config(golden / name)
        assert converted.layout == "hf"
        assert converted.visual.newline is Newline.CLIP  # the class has no other
        assert converted.dimensions == original.dimensions
        assert converted.generation.eos_ids == (882,)
        assert converted.generation.repetition_penalty == 1.0
        overridden = with_overrides(converted, words)
        assert overridden.visual == original.visual
        assert overridden.context_tokens == original.context_tokens


def test_reading_a_configuration_imports_neither_torch_nor_transformers():
    code = (
        "import sys, llava_video.model.model_config, llava_video.model.hub, "
        "llava_video.model.tokenizer, llava_video.model.prompt, llava_video.model.known_models; "
        "sys.exit(bool({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
