"""The vision tower a configuration means: sizes in the file, known names, a tower's own file."""

import pytest

from llava_video.errors import CheckpointError
from llava_video.model.dimensions import VisionConfig
from llava_video.model.json_fields import JsonFields
from llava_video.model.tower_config import (
    CLIP_L,
    CLIP_L_336,
    SO400M,
    check_same_picture,
    completed,
    known_tower,
    tower_kind,
    tower_to_find,
    tower_values,
    unsupported,
    vision_config_of,
    vision_values,
)

# The file of openai/clip-vit-large-patch14-336, as far as it concerns the tower.
CLIP_MODEL = {
    "model_type": "clip",
    "text_config": {"hidden_size": 768, "num_hidden_layers": 12},
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "model_type": "clip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
}


def fields(**values: object) -> JsonFields:
    return JsonFields(values, "config.json")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, "siglip"),
        ({"mm_vision_tower": SO400M}, "siglip"),
        ({"mm_vision_tower": "a/local/tower"}, "siglip"),
        ({"mm_vision_tower": CLIP_L_336}, "clip"),
        ({"mm_vision_tower": "/data/me/CLIP-vit-large-patch14"}, "clip"),
        ({"mm_vision_tower": "/clip/siglip-so400m"}, "siglip"),
        ({"mm_vision_tower": "t", "vision_config": {"model_type": "clip_vision_model"}}, "clip"),
    ],
)
def test_kinds(values: dict[str, object], kind: str):
    assert tower_kind(fields(**values)) == kind


@pytest.mark.parametrize(
    ("name", "image_px"), [(CLIP_L, 224), (CLIP_L_336, 336), ("D:\\t\\clip-vit-large-patch14", 224)]
)
def test_clip_l_is_known_by_name(name: str, image_px: int):
    vision = vision_config_of(fields(mm_vision_tower=name))
    # 24 layers, of which hidden state -2 leaves out the last.
    assert (vision.hidden_size, vision.num_layers, vision.num_heads) == (1024, 23, 16)
    assert (vision.intermediate_size, vision.patch_px, vision.image_px) == (4096, 14, image_px)
    assert (vision.kind, vision.activation, vision.layer_norm_eps) == ("clip", "quick_gelu", 1e-5)
    assert vision.pixel_mean == (0.48145466, 0.4578275, 0.40821073)
    assert vision.pixel_std == (0.26862954, 0.26130258, 0.27577711)
    assert tower_to_find({"mm_vision_tower": name}) is None


@pytest.mark.parametrize(
    ("layer", "used"), [(None, 23), (-2, 23), (-1, 24), (-24, 1), (24, 24), (1, 1)]
)
def test_the_selected_hidden_state_says_how_many_layers_run(layer: int | None, used: int):
    found = fields(mm_vision_tower=CLIP_L_336, mm_vision_select_layer=layer)
    assert vision_config_of(found).num_layers == used


@pytest.mark.parametrize("layer", [0, 25, -25, "-2", True, [-2, -5]])
def test_a_hidden_state_that_is_not_there_is_refused(layer: object):
    with pytest.raises(CheckpointError, match="mm_vision_select_layer"):
        vision_config_of(fields(mm_vision_tower=CLIP_L_336, mm_vision_select_layer=layer))


def test_siglip_ignores_the_selected_layer_as_the_original_does():
    assert vision_config_of(fields(mm_vision_select_layer=-2)) == VisionConfig()


def test_the_class_token_is_never_a_feature():
    with pytest.raises(CheckpointError, match="cls_patch") as caught:
        vision_config_of(fields(mm_vision_tower=CLIP_L, mm_vision_select_feature="cls_patch"))
    assert "class token" in caught.value.message


def test_a_width_that_contradicts_the_tower_is_refused():
    with pytest.raises(CheckpointError, match=r"mm_hidden_size = 1152, expected 1024"):
        vision_config_of(fields(mm_vision_tower=CLIP_L_336, mm_hidden_size=1152))
    with pytest.raises(CheckpointError, match=r"mm_hidden_size = 1024, expected 1152"):
        vision_config_of(fields(mm_vision_tower=SO400M, mm_hidden_size=1024))


def test_an_unknown_clip_tower_must_be_found():
    name = "openai/clip-vit-base-patch16"
    assert tower_to_find({"mm_vision_tower": name}) == name
    assert tower_to_find({"mm_vision_tower": name, "vision_config": {"hidden_size": 8}}) is None
    with pytest.raises(CheckpointError, match="clip-vit-base-patch16") as caught:
        vision_config_of(fields(mm_vision_tower=name))
    assert "tower=FOLDER" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["openai/nope", "/data/vit-large-336", "google/siglip-large-patch16-384"]
)
def test_nothing_is_made_up_of_an_unknown_tower(name: str):
    assert tower_to_find({"mm_vision_tower": name}) == name
    with pytest.raises(CheckpointError, match="sizes are not known") as caught:
        vision_config_of(fields(mm_vision_tower=name, mm_hidden_size=1024))
    assert "1152" not in caught.value.message
    assert "vision_tower=" in caught.value.hint


def test_a_configuration_that_names_no_tower_says_so():
    with pytest.raises(CheckpointError, match="names no vision tower"):
        vision_config_of(fields(mm_hidden_size=1024))


def test_so400m_is_known_as_the_family_uses_it():
    sizes = known_tower("/mnt/SigLIP-so400m-patch14-384")
    assert sizes is not None
    assert vision_config_of(fields(mm_vision_tower="t", vision_config=sizes)) == VisionConfig()


@pytest.mark.parametrize(
    ("own", "given", "found"),
    [
        ({"mm_vision_tower": CLIP_L_336}, {"image_size": 224, "patch_size": 14}, "for 336 px"),
        ({"mm_vision_tower": "x/y-patch16-384"}, {"image_size": 384, "patch_size": 14}, "16 px"),
        (
            {"vision_config": {"image_size": 56}, "mm_vision_tower": CLIP_L_336},
            {"image_size": 336, "patch_size": 14},
            "for 56 px",
        ),
    ],
)
def test_a_given_tower_sees_the_same_picture(
    own: dict[str, object], given: dict[str, object], found: str
):
    with pytest.raises(CheckpointError, match=found):
        check_same_picture(fields(**own), given, "mine")


def test_a_given_tower_is_taken_where_nothing_is_known_of_the_own():
    given = {"image_size": 224, "patch_size": 14}
    for own in ({}, {"mm_vision_tower": "a/tower"}, {"mm_vision_tower": CLIP_L}):
        check_same_picture(fields(**own), given, "mine")


def test_a_towers_own_file_beside_its_text_model_or_alone():
    whole = tower_values(CLIP_MODEL, "clip/config.json")
    alone = tower_values(CLIP_MODEL["vision_config"], "clip/config.json")
    assert whole == alone == known_tower(CLIP_L_336)
    # An early writer put what differs from the defaults into a second object.
    early = {**CLIP_MODEL, "vision_config": {}, "vision_config_dict": CLIP_MODEL["vision_config"]}
    assert tower_values(early, "clip/config.json") == whole


def test_the_last_layer_of_a_siglip_tower_is_deleted():
    sizes = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27}
    sizes |= {"num_attention_heads": 16, "image_size": 384, "patch_size": 14}
    own = tower_values({"model_type": "siglip", "vision_config": sizes}, "tower/config.json")
    assert vision_config_of(fields(mm_vision_tower="a/tower", vision_config=own)) == VisionConfig()


def test_a_tower_of_another_kind_is_refused():
    with pytest.raises(CheckpointError, match="dinov2"):
        tower_values({"model_type": "dinov2"}, "tower/config.json")


def test_left_out_sizes_are_the_classes():
    assert completed({"model_type": "clip_vision_model"})["patch_size"] == 32
    assert completed({})["patch_size"] == 16
    assert completed({"hidden_size": 8})["hidden_size"] == 8


def test_values_mean_the_tower_they_were_made_of():
    for found in (fields(mm_vision_tower=CLIP_L), fields()):
        vision = vision_config_of(found)
        spelled = {"vision_config": vision_values(vision), "mm_vision_select_layer": -1}
        assert vision_config_of(fields(**spelled)) == vision


@pytest.mark.parametrize(
    ("tower", "activation"), [(CLIP_L, "gelu_pytorch_tanh"), (SO400M, "quick_gelu")]
)
def test_an_activation_of_the_other_tower_is_refused(tower: str, activation: str):
    kind = "clip" if tower == CLIP_L else "siglip"
    sizes = {"model_type": f"{kind}_vision_model", "hidden_act": activation}
    with pytest.raises(CheckpointError, match=activation):
        vision_config_of(fields(mm_vision_tower=tower, vision_config=sizes))
    gelu = {"model_type": "clip_vision_model", "hidden_act": "gelu"}
    assert vision_config_of(fields(vision_config=gelu)).activation == "gelu"


def test_what_is_not_built_is_said_with_a_way_out():
    error = unsupported("key", "found", "'this'")
    assert error.message == "the checkpoint has key = 'found', this version reads 'this'."
    assert "llava-video models" in error.hint
