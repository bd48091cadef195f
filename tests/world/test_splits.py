"""No clip of one split can be in another: each pair has no frame size in common."""

import itertools

import pytest

from llava_video.errors import ConfigError
from llava_video.world.backdrop import MUTED
from llava_video.world.composer import compose
from llava_video.world.splits import HELD_OUT, SPLITS, split_settings


def test_no_two_splits_share_a_size() -> None:
    for one, other in itertools.combinations(SPLITS.values(), 2):
        assert not set(one.sizes_px) & set(other.sizes_px)


@pytest.mark.parametrize("name", HELD_OUT)
def test_held_out_is_unlike_training_in_every_way(name: str) -> None:
    train, held = SPLITS["train"], SPLITS[name]
    for field in ("sizes_px", "rates_hz", "lengths_s", "crfs"):
        assert not set(getattr(train, field)) & set(getattr(held, field)), field
    assert train.palette != held.palette


@pytest.mark.parametrize("name", SPLITS)
def test_clips_keep_to_their_split(name: str) -> None:
    settings = split_settings(name)
    for idx in range(20):
        made = compose(settings, name, idx)
        assert (made.height_px, made.width_px) in settings.sizes_px
        assert made.backdrop.colour in MUTED[settings.palette]


def test_an_unknown_split_is_named_with_a_near_one() -> None:
    with pytest.raises(ConfigError, match="did you mean heldout"):
        split_settings("held-out")
    with pytest.raises(ConfigError, match="known: train"):
        split_settings("x")
