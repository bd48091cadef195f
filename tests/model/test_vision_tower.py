"""The tower against transformers' SigLIP on the same seeded weights, and against near misses."""

import warnings

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
    names = {
        "embeddings.patch_embedding": "patch_embedding",
        "embeddings.position_embedding.weight": "position_embedding",
        "encoder.layers": "layers",
        "self_attn.": "",
        "layer_norm": "norm",
        "mlp.": "",
    }
    for name, parameter in theirs.named_parameters():
        short = name.removeprefix("vision_model.")
        if short.startswith("post_layernorm"):
            torch.nn.init.normal_(parameter, 1.0)  # must not matter
            continue
        for their_part, our_part in names.items():
            short = short.replace(their_part, our_part)
        parameter.data.copy_(ours[short])
    return theirs


def tiles(num_tiles: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(num_tiles, 3, VISION.image_px, VISION.image_px, generator=generator) * 2 - 1


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


@torch.inference_mode()
def test_a_tile_does_not_depend_on_its_neighbours():
    tower = filled(VisionTower(VISION))
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


def test_gradients_flow_and_agree_with_inference():
    tower = filled(VisionTower(VISION))
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
