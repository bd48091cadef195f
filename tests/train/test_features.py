"""Tiles are told apart by every bit, encoded once, kept as long as there is room."""

from pathlib import Path

import pytest
import torch

from llava_video.model.checkpoint import load_model
from llava_video.model.llava import LlavaModel
from llava_video.model.model_config import read_model_config
from llava_video.train.features import KeptFeatures, fingerprints, keep_features
from llava_video.train.parts import set_learning


def noise(num_tiles: int, seed: int = 0, px: int = 4) -> torch.Tensor:
    return torch.randn(num_tiles, 3, px, px, generator=torch.Generator().manual_seed(seed))


def double(tiles: torch.Tensor) -> torch.Tensor:
    return tiles.flatten(1)[:, None] * 2


def test_a_fingerprint_is_its_formula():
    tile = noise(1)
    generator = torch.Generator().manual_seed(0x5EED)
    numbers = torch.randint(-(2**63), 2**63 - 1, (2, 48), generator=generator).tolist()
    bits = tile.view(torch.int32).flatten().tolist()
    expected = []
    for row in numbers:
        total = sum(x * r for x, r in zip(bits, row, strict=True)) % 2**64
        expected.append(total - 2**64 if total >= 2**63 else total)
    assert fingerprints(tile) == [tuple(expected)]


def test_tiles_are_told_apart_by_every_bit():
    tile = noise(1)
    shifted = tile.roll(1, dims=3)  # the same values elsewhere: a plain sum would not tell
    nearly = tile.clone()
    nearly[0, 2, 3, 3] = torch.nextafter(nearly[0, 2, 3, 3], torch.tensor(9.0))
    found = fingerprints(torch.cat([tile, shifted, nearly, tile]))
    assert found[0] == found[3]
    assert len(set(found)) == 3


def test_a_tile_is_encoded_once():
    asked: list[int] = []
    kept = KeptFeatures(lambda tiles: asked.append(len(tiles)) or double(tiles), 10**6)
    first, second = noise(4), noise(3, seed=1)
    assert torch.equal(kept(first), double(first))
    mixed = torch.cat([second[:2], first[1:3], second[:1]])
    assert torch.equal(kept(mixed), double(mixed))
    assert torch.equal(kept(first.flip(0)), double(first.flip(0)))
    # Four; the two new ones of the second call, one of them shown twice; none.
    assert asked == [4, 2]
    assert kept.num_encoded == 6
    assert kept.num_bytes == 6 * 48 * 4


def test_the_first_stay_and_the_room_is_kept():
    kept = KeptFeatures(double, most_bytes=3 * 48 * 4 + 100)
    tiles = noise(5)
    for _ in range(2):
        assert torch.equal(kept(tiles), double(tiles))
    assert kept.num_bytes == 3 * 48 * 4
    assert kept.num_encoded == 5 + 2
    # What is kept of a call is a copy: its other features are gone.
    assert all(one.untyped_storage().nbytes() == 48 * 4 for one in kept._kept.values())


@pytest.fixture
def model(tiny_folder: Path) -> LlavaModel:
    return load_model(tiny_folder, config=read_model_config(tiny_folder), device="cpu")


def test_a_tower_gives_what_it_gave(model: LlavaModel):
    set_learning(model, ["projector"])
    tiles = noise(3, px=56)
    expected = model.vision_tower(tiles)
    kept = keep_features(model, 10**7)
    for _ in range(2):
        found = model.vision_tower(tiles)
        assert torch.equal(found, expected)
        assert not found.requires_grad
    assert kept.num_encoded == 3
    assert model.projector(model.vision_tower(tiles)).requires_grad
