"""The tower against transformers' SigLIP and CLIP on the same weights, and against near misses."""

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from seeded_models import VISION, filled

from llava_video.model import vision_tower
from llava_video.model.dimensions import VisionConfig
from llava_video.model.vision_tower import PatchEmbedding, VisionTower
from llava_video.ops.activation import activate

LIMIT = 3e-5  # of features that reach 10


def siglip(config: VisionConfig, num_layers: int):
    """Build transformers' tower with the weights of `filled(VisionTower(config))`, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import SiglipVisionConfig, SiglipVisionModel

        theirs = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                num_hidden_layers=num_layers,
                num_attention_heads=config.num_heads,
                image_size=config.image_px,
                patch_size=config.patch_px,
                vision_use_head=False,
            )
        ).eval()
    ours = filled(VisionTower(config)).state_dict()
    for name, parameter in theirs.named_parameters():
        short = our_name(name)
        if short.startswith("post_layernorm"):
            torch.nn.init.normal_(parameter, 1.0)  # must not matter
        else:
            parameter.data.copy_(ours[short])
    return theirs


NAMES = {
    "vision_model.": "",
    "embeddings.patch_embedding": "patch_embedding",
    "embeddings.class_embedding": "class_embedding",
    "embeddings.position_embedding.weight": "position_embedding",
    "pre_layrnorm": "pre_norm",
    "encoder.layers": "layers",
    "self_attn.": "",
    "layer_norm": "norm",
    "mlp.": "",
}


def our_name(name: str) -> str:
    for their_part, our_part in NAMES.items():
        name = name.replace(their_part, our_part)
    return name


def clip(config: VisionConfig):
    """Build transformers' CLIP of one more layer, with the weights of ours under its names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import CLIPVisionConfig, CLIPVisionModel

        theirs = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                num_hidden_layers=config.num_layers + 1,
                num_attention_heads=config.num_heads,
                image_size=config.image_px,
                patch_size=config.patch_px,
                layer_norm_eps=config.layer_norm_eps,
                hidden_act=config.activation,
            )
        ).eval()
    ours = filled(VisionTower(config)).state_dict()
    left = set(ours)
    for name, parameter in theirs.named_parameters():
        short = our_name(name)
        if short in ours:
            parameter.data.copy_(ours[short])
            left.remove(short)
        else:  # the last layer and the norm after it, which must not matter
            assert short.startswith((f"layers.{config.num_layers}.", "post_layernorm"))
            torch.nn.init.normal_(parameter, 1.0)
    assert left == set()
    return theirs


CLIP = dataclasses.replace(VISION, kind="clip", activation="quick_gelu", layer_norm_eps=1e-5)
CLIPS = [
    CLIP,
    dataclasses.replace(CLIP, num_layers=1, num_heads=2, image_px=56, patch_px=14),
    dataclasses.replace(CLIP, num_layers=4, hidden_size=40, num_heads=5, intermediate_size=61),
    dataclasses.replace(CLIP, activation="gelu", num_heads=1, image_px=30, patch_px=10),
]


def tiles(num_tiles: int = 3, side_px: int = VISION.image_px) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(num_tiles, 3, side_px, side_px, generator=generator) * 2 - 1


def features_of_siglip(pixels: torch.Tensor) -> torch.Tensor:
    """Return what leaves transformers' last layer, before its final norm."""
    theirs = siglip(VISION, VISION.num_layers)
    caught: list[torch.Tensor] = []
    last = next(
        m for n, m in theirs.named_modules() if n.endswith(f"layers.{VISION.num_layers - 1}")
    )
    last.register_forward_hook(
        lambda module, args, out: caught.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.inference_mode():
        theirs(pixels)
    return caught[0]


@torch.inference_mode()
def test_equals_transformers():
    tower = filled(VisionTower(VISION))
    features = tower(tiles())
    assert features.shape == (3, 49, 24)
    assert (features - features_of_siglip(tiles())).abs().max().item() <= LIMIT


@torch.inference_mode()
def test_near_misses_are_rejected(monkeypatch: pytest.MonkeyPatch):
    expected = features_of_siglip(tiles())

    def error(config: VisionConfig, last: int | None = None) -> float:
        mutant = filled(VisionTower(config))
        mutant.layers = mutant.layers[:last]
        return (mutant(tiles()) - expected).abs().max().item()

    assert error(VISION) <= LIMIT
    with monkeypatch.context() as patch:
        patch.setattr(vision_tower, "activate", lambda x, kind: activate(x, "gelu"))
        assert error(VISION) > LIMIT  # trap T14
    assert error(VISION, last=-1) > LIMIT  # trap T13: a layer too few
    normed = torch.nn.functional.layer_norm(expected, (24,), eps=1e-6)  # post-norm applied
    assert (normed - expected).abs().max() > LIMIT


@pytest.mark.parametrize("config", CLIPS, ids=range(len(CLIPS)))
@torch.inference_mode()
def test_clip_equals_transformers(config: VisionConfig):
    """In float64, where only the formula can differ."""
    pixels = tiles(3, config.image_px).double()
    states = clip(config).double()(pixels, output_hidden_states=True).hidden_states
    expected = states[-2][:, 1:]
    features = filled(VisionTower(config)).double()(pixels)
    assert features.shape == (3, config.patches_per_side**2, config.hidden_size)
    assert features.is_contiguous()
    assert (features - expected).abs().max().item() <= 1e-11
    for wrong in (states[-1][:, 1:], states[-2][:, :-1], states[-3][:, 1:]):
        assert (features - wrong).abs().max().item() > 1.0


@torch.inference_mode()
def test_near_misses_of_clip_are_rejected():
    expected = clip(CLIP)(tiles(), output_hidden_states=True).hidden_states[-2][:, 1:]

    def error(mutant: VisionTower) -> float:
        return (mutant(tiles()) - expected).abs().max().item()

    without_norm, class_last, another_gelu = (filled(VisionTower(CLIP)) for _ in range(3))
    assert error(without_norm) <= LIMIT
    without_norm.pre_norm = None
    assert error(without_norm) > LIMIT
    positions = class_last.position_embedding
    positions.data = positions.data.roll(-1, dims=0)
    assert error(class_last) > LIMIT
    another_gelu.layers[0].activation = "gelu"
    assert error(another_gelu) > LIMIT


@pytest.mark.parametrize(
    ("name", "case"),
    [("clip-tiny-patch14-336", "llava15_image"), ("clip-tiny-patch14", "llava1_image")],
)
@torch.inference_mode()
def test_golden_features(shared: Path, name: str, case: str):
    from safetensors.torch import load_file

    folder = shared / "golden/family"
    sizes = json.loads((folder / "openai" / name / "config.json").read_text())
    sizes = sizes.get("vision_config", sizes)
    tower = VisionTower(
        VisionConfig(
            kind="clip",
            activation=sizes["hidden_act"],
            hidden_size=sizes["hidden_size"],
            intermediate_size=sizes["intermediate_size"],
            num_layers=sizes["num_hidden_layers"] - 1,
            num_heads=sizes["num_attention_heads"],
            image_px=sizes["image_size"],
            patch_px=sizes["patch_size"],
            layer_norm_eps=sizes["layer_norm_eps"],
        )
    ).eval()
    weights = load_file(folder / "openai" / name / "model.safetensors")
    found = {our_name(key): tensor for key, tensor in weights.items()}
    tower.load_state_dict({key: found[key] for key in tower.state_dict()})
    golden = np.load(folder / f"cases/{case}.npz")
    features = tower(torch.from_numpy(golden["pixel_values"])[None])[0].numpy()
    assert features.shape == golden["clip_features"].shape
    assert np.abs(features - golden["clip_features"]).max() <= 1e-5


@pytest.mark.parametrize("config", [VISION, CLIP], ids=["siglip", "clip"])
@torch.inference_mode()
def test_a_tile_does_not_depend_on_its_neighbours(config: VisionConfig):
    tower = filled(VisionTower(config))
    together = tower(tiles(5))
    alone = torch.cat([tower(tile[None]) for tile in tiles(5)])
    assert (together - alone).abs().max().item() <= LIMIT


@torch.inference_mode()
def test_pixels_after_the_last_whole_patch_are_unused():
    tower = filled(VisionTower(VISION))
    changed = tiles()
    changed[:, :, 56:, :] = 1.0  # 7 x 8 px are whole patches, 58 px are given
    changed[:, :, :, 56:] = -1.0
    assert torch.equal(tower(changed), tower(tiles()))
    changed[:, :, 55, 0] += 1.0
    assert not torch.equal(tower(changed), tower(tiles()))


def test_patches_are_a_convolution():
    patches = filled(PatchEmbedding(VISION))
    by_convolution = torch.nn.functional.conv2d(tiles(), patches.weight, patches.bias, stride=8)
    expected = by_convolution.flatten(2).transpose(1, 2)
    assert torch.allclose(patches(tiles()), expected, atol=1e-5)


@pytest.mark.parametrize("config", [VISION, CLIP], ids=["siglip", "clip"])
def test_gradients_flow_and_agree_with_inference(config: VisionConfig):
    tower = filled(VisionTower(config))
    features = tower(tiles())
    features.sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in tower.layers[0].fc1.parameters()
    )
    with torch.inference_mode():
        assert torch.allclose(tower(tiles()), features, atol=LIMIT)


def test_half_precision_tiles_and_weights():
    exact = filled(VisionTower(VISION))(tiles())
    tower = filled(VisionTower(VISION)).to(torch.bfloat16)
    with torch.inference_mode():
        features = tower(tiles())
    assert features.dtype is torch.bfloat16
    assert (features.float() - exact).abs().mean() <= 0.03 * exact.abs().mean()


@pytest.mark.parametrize("shape", [(3, 58, 58), (1, 3, 58, 60), (1, 1, 58, 58)])
def test_tiles_of_another_size_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="expected \\(N, 3, 58, 58\\)"):
        VisionTower(VISION)(torch.zeros(shape))


def test_the_real_tower_costs_nothing_on_the_meta_device():
    with torch.device("meta"):
        tower = VisionTower(VisionConfig())
    # 26 layers x 16 tensors + patch weight, patch bias, positions; post-norm is not kept.
    assert len(list(tower.parameters())) == 26 * 16 + 3
    assert sum(p.numel() for p in tower.parameters()) == 26 * 15_239_504 + 678_528 + 839_808


def test_the_real_clip_has_the_parameters_of_its_paper():
    """CLIP-L/14 at 336 px has 303.5 M; ours leaves out its last layer and the norm after it."""
    config = VisionConfig(
        kind="clip",
        hidden_size=1024,
        intermediate_size=4096,
        num_layers=23,
        image_px=336,
        layer_norm_eps=1e-5,
    )
    with torch.device("meta"):
        tower = VisionTower(config)
    layer = 4 * (1024 * 1024 + 1024) + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024
    # Patches without a bias, the class token, 577 positions and the norm before the layers.
    embedding = 3 * 14 * 14 * 1024 + 1024 + 577 * 1024 + 2 * 1024
    assert sum(p.numel() for p in tower.parameters()) == 23 * layer + embedding
    assert 24 * layer + embedding + 2 * 1024 == 303_507_456
