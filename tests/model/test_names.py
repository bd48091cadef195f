"""Names and shapes: against the published tables of the public checkpoints, counted by hand."""

from dataclasses import replace

import pytest

from llava_video.model.dimensions import ModelDimensions, TextConfig, VisionConfig
from llava_video.model.names import (
    SPELLINGS,
    file_names,
    is_head,
    is_ignored,
    likeliest_names,
    num_parameters,
    our_names,
    parameter_shapes,
    unused_tower_shapes,
)


def dimensions(*, num_layers: int, hidden: int, inner: int, heads: int, kv: int, **text: object):
    return ModelDimensions(
        vision=VisionConfig(),
        text=TextConfig(
            hidden_size=hidden,
            intermediate_size=inner,
            num_layers=num_layers,
            num_heads=heads,
            num_kv_heads=kv,
            head_dim=hidden // heads,
            vocab_size=text.pop("vocab", 152_064),
            rms_norm_eps=1e-6,
            rope_theta=1e6,
            max_positions=32_768,
            tie_embeddings=bool(text.pop("tied", False)),
        ),
        **text,
    )


SMALL = dimensions(num_layers=24, hidden=896, inner=4864, heads=14, kv=2, vocab=151_936, tied=True)
MIDDLE = dimensions(num_layers=28, hidden=3584, inner=18_944, heads=28, kv=4)
LARGE = dimensions(num_layers=80, hidden=8192, inner=29_568, heads=64, kv=8)


@pytest.mark.parametrize(("size", "num_tensors"), [(SMALL, 716), (MIDDLE, 765), (LARGE, 1389)])
def test_counts_of_the_public_files(size: ModelDimensions, num_tensors: int):
    # The files hold the tower's last norm too (2 tensors), which nothing uses.
    names = set(file_names(size, "original").values()) | set(unused_tower_shapes(size, "original"))
    assert len(names) == num_tensors


def test_names_of_the_original_layout():
    names = file_names(MIDDLE, "original")
    tower = "model.vision_tower.vision_tower.vision_model"
    for ours, theirs in {
        "language_model.embed_tokens.weight": "model.embed_tokens.weight",
        "language_model.layers.27.q_proj.bias": "model.layers.27.self_attn.q_proj.bias",
        "language_model.layers.0.down_proj.weight": "model.layers.0.mlp.down_proj.weight",
        "language_model.layers.3.input_norm.weight": "model.layers.3.input_layernorm.weight",
        "language_model.layers.3.post_norm.weight": (
            "model.layers.3.post_attention_layernorm.weight"
        ),
        "language_model.norm.weight": "model.norm.weight",
        "language_model.lm_head.weight": "lm_head.weight",
        "image_newline": "model.image_newline",
        "projector.linear1.weight": "model.mm_projector.0.weight",
        "projector.linear2.bias": "model.mm_projector.2.bias",
        "vision_tower.patch_embedding.weight": f"{tower}.embeddings.patch_embedding.weight",
        "vision_tower.position_embedding": f"{tower}.embeddings.position_embedding.weight",
        "vision_tower.layers.9.out_proj.bias": f"{tower}.encoder.layers.9.self_attn.out_proj.bias",
        "vision_tower.layers.0.fc1.weight": f"{tower}.encoder.layers.0.mlp.fc1.weight",
        "vision_tower.layers.0.norm2.weight": f"{tower}.encoder.layers.0.layer_norm2.weight",
    }.items():
        assert names[ours] == theirs


@pytest.mark.parametrize(
    ("spelling", "parts"),
    [
        (
            "hf",
            (
                "language_model.model.layers.0.mlp.up_proj.weight",
                "language_model.lm_head.weight",
                "vision_tower.vision_model.encoder.layers.0.mlp.fc2.bias",
                "multi_modal_projector.linear_1.weight",
                "image_newline",
            ),
        ),
        (
            "hf_native",
            (
                "model.language_model.layers.0.mlp.up_proj.weight",
                "lm_head.weight",
                "model.vision_tower.vision_model.encoder.layers.0.mlp.fc2.bias",
                "model.multi_modal_projector.linear_1.weight",
                "model.image_newline",
            ),
        ),
        (
            "hf_memory",
            (
                "model.language_model.norm.weight",
                "lm_head.weight",
                "model.vision_tower.encoder.layers.0.mlp.fc2.bias",
                "model.multi_modal_projector.linear_2.bias",
                "model.image_newline",
            ),
        ),
        (
            "hf_files",
            (
                "language_model.model.norm.weight",
                "language_model.lm_head.weight",
                "vision_tower.encoder.layers.0.mlp.fc2.bias",
                "multi_modal_projector.linear_2.weight",
                "image_newline",
            ),
        ),
    ],
)
def test_names_of_the_converted_layouts(spelling, parts: tuple[str, ...]):
    assert set(parts) <= set(file_names(MIDDLE, spelling).values())


def test_every_spelling_names_every_parameter_and_none_collide():
    expected, ours = parameter_shapes(MIDDLE), our_names(MIDDLE)
    for spelling in SPELLINGS:
        names = file_names(MIDDLE, spelling)
        assert set(names) == set(expected)
        assert len(set(names.values())) == len(names)
        assert {ours[theirs]: theirs for theirs in names.values()} == names


def test_shapes_of_the_7b():
    shapes = parameter_shapes(MIDDLE)
    assert shapes["vision_tower.patch_embedding.weight"] == (1152, 3, 14, 14)
    assert shapes["vision_tower.position_embedding"] == (729, 1152)
    assert shapes["vision_tower.layers.0.fc1.weight"] == (4304, 1152)
    assert shapes["vision_tower.layers.0.fc1.bias"] == (4304,)
    assert shapes["vision_tower.layers.0.fc2.weight"] == (1152, 4304)
    assert shapes["vision_tower.layers.0.fc2.bias"] == (1152,)
    assert shapes["vision_tower.layers.0.norm1.bias"] == (1152,)
    assert shapes["projector.linear1.weight"] == (3584, 1152)
    assert shapes["projector.linear2.weight"] == (3584, 3584)
    assert shapes["image_newline"] == (3584,)
    assert shapes["language_model.layers.0.k_proj.weight"] == (512, 3584)
    assert shapes["language_model.layers.0.k_proj.bias"] == (512,)
    assert shapes["language_model.layers.0.o_proj.weight"] == (3584, 3584)
    assert "language_model.layers.0.o_proj.bias" not in shapes
    assert shapes["language_model.lm_head.weight"] == (152_064, 3584)


def test_optional_parameters_follow_the_configuration():
    assert "language_model.lm_head.weight" not in parameter_shapes(SMALL)
    assert "image_newline" not in parameter_shapes(replace(MIDDLE, has_newline=False))
    assert "separator" not in parameter_shapes(MIDDLE)
    slow_fast = replace(MIDDLE, has_separator=True)
    assert file_names(slow_fast, "original")["separator"] == "model.faster_token"


def test_parameters_of_the_7b_by_hand():
    text = (
        2 * 152_064 * 3584
        + 3584
        + 28
        * (
            2 * 3584 * 3584  # q and o
            + 2 * 512 * 3584  # k and v
            + 3584
            + 2 * 512  # their biases
            + 3 * 3584 * 18_944
            + 2 * 3584
        )
    )
    tower_layer = 4 * (1152 * 1152 + 1152) + 2 * 1152 * 4304 + 4304 + 1152 + 4 * 1152
    tower = 26 * tower_layer + 1152 * 3 * 14 * 14 + 1152 + 729 * 1152
    projector = 1152 * 3584 + 3584 + 3584 * 3584 + 3584
    assert num_parameters(MIDDLE) == text + tower + projector + 3584
    assert round(num_parameters(MIDDLE) / 1e9, 2) == 8.03  # as the public shards: 16.06 GB in bf16


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "vision_tower.vision_model.embeddings.position_ids",
        "model.vision_tower.vision_tower.vision_model.head.probe",
        "model.vision_tower.vision_tower.vision_model.head.attention.in_proj_weight",
        "model.vision_tower.vision_tower.vision_model.post_layernorm.weight",
        "vision_tower.post_layernorm.bias",
        "model.vision_tower.post_layernorm.bias",
        "vision_tower.vision_model.post_layernorm.bias",
        "model.vision_tower.vision_tower.vision_model.encoder.layers.26.mlp.fc1.weight",
        "vision_tower.encoder.layers.26.layer_norm1.bias",
        "model.faster_token",  # not used by this configuration
    ],
)
def test_known_and_not_needed(name: str):
    assert name not in our_names(MIDDLE)
    assert is_ignored(name, MIDDLE)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.28.mlp.up_proj.weight",
        "model.layers.0.self_attn.o_proj.bias",
        "model.vision_tower.vision_tower.vision_model.encoder.layers.25.mlp.fc3.weight",
        "model.vision_resampler.query",
        "model.mm_projector.4.weight",
        "head.weight",
        "lm_head.weight",
        "model.image_newline",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
    ],
)
def test_anything_else_is_not_ignored(name: str):
    assert not is_ignored(name, MIDDLE)


def test_a_tied_head_and_an_unused_newline_are_ignored():
    for name in ("lm_head.weight", "language_model.lm_head.weight"):
        assert is_head(name)
        assert is_ignored(name, SMALL)
    for name in ("model.image_newline", "image_newline"):
        assert not is_ignored(name, replace(MIDDLE, has_newline=False))
        spare = replace(MIDDLE, has_newline=False, spares=frozenset(("newline",)))
        assert is_ignored(name, spare)
        assert not is_ignored(name, replace(spare, has_newline=True))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_spelling_of_a_file_is_recognised_by_most_of_its_names(spelling):
    names = file_names(MIDDLE, spelling)
    found = set(names.values()) - {names["projector.linear1.weight"]}
    assert likeliest_names(MIDDLE, found) == names
