"""Names and shapes of the members with a CLIP tower: by hand, and against the golden files."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from llava_video.model.dimensions import (
    FusionConfig,
    ModelDimensions,
    TextConfig,
    VisionConfig,
)
from llava_video.model.model_config import read_model_config
from llava_video.model.names import (
    SPELLINGS,
    file_names,
    final_norm_names,
    is_beside_tower,
    is_ignored,
    num_parameters,
    our_names,
    parameter_shapes,
)

CLIP_L_336 = VisionConfig(
    hidden_size=1024,
    intermediate_size=4096,
    num_layers=23,
    num_heads=16,
    image_px=336,
    layer_norm_eps=1e-5,
    kind="clip",
    activation="quick_gelu",
)
# LLaVA-Mini: Llama-3.1-8B, four pre-fusion layers, one token per frame.
MINI = ModelDimensions(
    vision=CLIP_L_336,
    text=TextConfig(
        hidden_size=4096,
        intermediate_size=14_336,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        vocab_size=128_256,
        rms_norm_eps=1e-5,
        rope_theta=5e5,
        max_positions=131_072,
        tie_embeddings=False,
        qkv_bias=False,
    ),
    has_newline=False,
    fusion=FusionConfig(side=1, num_layers=4),
)
# LLaVA-1.5-7B and LLaVA-7B: Vicuna.
VICUNA = replace(
    MINI.text, intermediate_size=11_008, num_kv_heads=32, vocab_size=32_000, max_positions=4096
)
LLAVA_15 = replace(MINI, text=VICUNA, fusion=None)
LLAVA = replace(LLAVA_15, vision=replace(CLIP_L_336, image_px=224), projector_layers=1)


def test_names_of_a_clip_tower():
    tower = "model.vision_tower.vision_tower.vision_model"
    names = file_names(LLAVA_15, "original")
    for ours, theirs in {
        "class_embedding": "embeddings.class_embedding",
        "pre_norm.weight": "pre_layrnorm.weight",
        "pre_norm.bias": "pre_layrnorm.bias",
        "position_embedding": "embeddings.position_embedding.weight",
        "layers.22.fc2.bias": "encoder.layers.22.mlp.fc2.bias",
    }.items():
        assert names[f"vision_tower.{ours}"] == f"{tower}.{theirs}"
        for place in ("", "vision_model."):  # the tower's own folder
            assert our_names(LLAVA_15)[place + theirs] == f"vision_tower.{ours}"
    assert "vision_tower.patch_embedding.bias" not in names
    siglip = file_names(replace(LLAVA_15, vision=VisionConfig()), "original")
    assert "vision_tower.class_embedding" not in siglip
    assert "vision_tower.pre_norm.bias" not in siglip


def test_shapes_of_a_clip_tower_by_hand():
    shapes = parameter_shapes(LLAVA_15)
    assert shapes["vision_tower.position_embedding"] == (577, 1024)  # 24 x 24 and the class
    assert parameter_shapes(LLAVA)["vision_tower.position_embedding"] == (257, 1024)  # 16 x 16
    assert shapes["vision_tower.class_embedding"] == (1024,)
    layer = 4 * (1024**2 + 1024) + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024
    tower = 23 * layer + 1024 * 3 * 14 * 14 + 577 * 1024 + 1024 + 2 * 1024
    projector = 1024 * 4096 + 4096 + 4096 * 4096 + 4096
    decoder = 2 * 32_000 * 4096 + 4096 + 32 * (4 * 4096**2 + 3 * 4096 * 11_008 + 2 * 4096)
    assert num_parameters(LLAVA_15) == tower + projector + decoder
    # The public 24 layers and last norm have 303.5 M; the projector is told as 21 M.
    assert round((tower + layer + 2 * 1024) / 1e6, 1) == 303.5
    assert round(projector / 1e6) == 21


def test_a_linear_projector_is_spelled_with_and_without_its_place():
    names, ours = file_names(LLAVA, "original"), our_names(LLAVA)
    assert names["projector.linear1.weight"] == "model.mm_projector.weight"
    assert ours["model.mm_projector.weight"] == ours["model.mm_projector.0.weight"]
    assert "model.mm_projector.2.weight" not in ours
    assert "model.mm_projector.weight" not in our_names(LLAVA_15)
    deep = file_names(replace(LLAVA_15, projector_layers=3), "original")
    assert deep["projector.linear3.bias"] == "model.mm_projector.4.bias"
    assert parameter_shapes(replace(LLAVA_15, projector_layers=3))["projector.linear3.weight"] == (
        4096,
        4096,
    )


def test_a_mini_has_a_compressor_and_more_layers():
    names, shapes = file_names(MINI, "original"), parameter_shapes(MINI)
    for ours, (theirs, shape) in {
        "query": ("model.compressor.query", (1, 1024)),
        "position": ("model.compressor.pos_embed", (1, 1024)),
        "norm_q.weight": ("model.compressor.ln_q.weight", (1024,)),
        "norm_kv.bias": ("model.compressor.ln_kv.bias", (1024,)),
        "attention.in_proj.weight": ("model.compressor.attn.in_proj_weight", (3072, 1024)),
        "attention.in_proj.bias": ("model.compressor.attn.in_proj_bias", (3072,)),
        "attention.out_proj.weight": ("model.compressor.attn.out_proj.weight", (1024, 1024)),
        "layers.3.q_proj.weight": (
            "model.prefusion_layers.3.self_attn.q_proj.weight",
            (4096, 4096),
        ),
        "layers.0.k_proj.weight": (
            "model.prefusion_layers.0.self_attn.k_proj.weight",
            (1024, 4096),
        ),
        "layers.0.down_proj.weight": (
            "model.prefusion_layers.0.mlp.down_proj.weight",
            (4096, 14_336),
        ),
        "layers.1.post_norm.weight": (
            "model.prefusion_layers.1.post_attention_layernorm.weight",
            (4096,),
        ),
    }.items():
        assert (names[f"fusion.{ours}"], shapes[f"fusion.{ours}"]) == (theirs, shape)
    assert parameter_shapes(replace(MINI, fusion=FusionConfig(side=8, num_layers=4)))[
        "fusion.query"
    ] == (64, 1024)
    fused = sum(name.startswith("fusion.layers") for name in shapes)
    assert fused == 4 * 9  # four linear layers, three of the MLP, two norms
    # The files' four pre-fusion layers are 1.75 GB in bf16.
    layer = 2 * 4096**2 + 2 * 1024 * 4096 + 3 * 4096 * 14_336 + 2 * 4096
    assert 2 * 4 * layer == pytest.approx(1.75e9, rel=0.005)


@pytest.mark.parametrize("size", [LLAVA, LLAVA_15, MINI])
def test_no_names_collide_in_any_member(size: ModelDimensions):
    expected, ours = parameter_shapes(size), our_names(size)
    for spelling in SPELLINGS:
        names = file_names(size, spelling)
        assert set(names) == set(expected)
        assert {ours[theirs]: theirs for theirs in names.values()} == names


@pytest.mark.parametrize(
    "name",
    [
        "vision_model.post_layernorm.weight",
        "vision_model.embeddings.position_ids",
        "vision_model.encoder.layers.23.mlp.fc1.weight",
        "encoder.layers.23.mlp.fc1.weight",
        "vision_model.head.probe",
    ],
)
def test_layers_and_buffers_that_nothing_needs(name: str):
    assert name not in our_names(LLAVA_15)
    assert is_ignored(name, LLAVA_15)


@pytest.mark.parametrize(
    "name",
    [
        "model.vision_resampler.pool.weight",
        "vision_model.encoder.layers.22.mlp.fc3.weight",
        "model.compressor.query",
        "model.prefusion_layers.0.mlp.up_proj.weight",
        "model.layers.0.self_attn.q_proj.bias",
    ],
)
def test_what_a_15_must_not_have(name: str):
    assert name not in our_names(LLAVA_15)
    assert not is_ignored(name, LLAVA_15)


def test_only_next_video_registered_its_projector_twice():
    video = replace(LLAVA_15, spares=frozenset(("projector copy",)))
    for name in ("0.weight", "2.bias", "weight"):
        assert is_ignored(f"model.vision_resampler.mm_projector.{name}", video)
        assert not is_ignored(f"model.vision_resampler.mm_projector.{name}", LLAVA_15)
    assert not is_ignored("model.vision_resampler.mm_projector.0.scale", video)


@pytest.mark.parametrize(
    "name",
    [
        "text_model.encoder.layers.0.mlp.fc1.weight",
        "text_projection.weight",
        "visual_projection.weight",
        "logit_scale",
    ],
)
def test_a_text_model_stands_only_beside_a_tower(name: str):
    assert is_beside_tower(name)
    assert not is_ignored(name, LLAVA_15)
    assert not is_beside_tower(f"model.{name}")


def test_the_last_norm_in_every_spelling():
    named = {file_names(LLAVA_15, one)["language_model.norm.weight"] for one in SPELLINGS}
    assert final_norm_names() == named


# Folder of golden/family → the parts of the model that it does not hold: a tower fetched by name.
HELD = {
    "llava-v1-tiny": {"vision_tower"},
    "llava-v1.5-tiny": {"vision_tower"},
    "llava-v1.6-tiny": set(),
    "LLaVA-NeXT-Video-tiny": set(),
    "llava-mini-tiny": set(),
    "llava-mini-hd-tiny": {"vision_tower"},
    "llava-pretrain-tiny": {"vision_tower", "language_model"},
}


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    for path in folder.glob("*.bin"):
        found |= {name: tuple(t.shape) for name, t in torch.load(path, weights_only=True).items()}
    return found


@pytest.mark.parametrize("folder", list(HELD))
def test_every_tensor_of_the_golden_folders_is_accounted_for(shared: Path, folder: str):
    place = shared / "golden" / "family"
    dimensions = read_model_config(place / folder).dimensions
    ours, expected = our_names(dimensions), parameter_shapes(dimensions)
    found = stored_shapes(place / folder)
    assert [name for name in found if name not in ours and not is_ignored(name, dimensions)] == []
    used = {ours[name]: shape for name, shape in found.items() if name in ours}
    assert used == {name: expected[name] for name in used}
    missing = set(expected) - set(used)
    assert {name.split(".")[0] for name in missing} == HELD[folder]
    if "vision_tower" in HELD[folder]:
        name = read_model_config(place / folder).values["mm_vision_tower"]
        own = stored_shapes(place / name)
        assert {n for n in own if n not in ours and not is_ignored(n, dimensions)} == set()
        tower = {ours[name]: shape for name, shape in own.items() if name in ours}
        assert tower == {n: s for n, s in expected.items() if n.startswith("vision_tower.")}
