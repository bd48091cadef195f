"""What is drawn from the small world, and what is refused."""

import pytest

from llava_video.errors import ConfigError
from llava_video.train.world_settings import DenseSettings, WorldSource


def test_a_kind_of_question_that_is_not_there_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match="'cuont'") as told:
        WorldSource(seldom=("cuont",))
    assert told.value.hint == "did you mean count?"
    assert WorldSource(seldom=("count", "when")).seldom == ("count", "when")


def test_no_loss_at_all_is_refused():
    with pytest.raises(ConfigError, match="no loss counts"):
        DenseSettings(looks=0, story=0, answers=0)
    assert DenseSettings(patches=1, looks=0, story=0, answers=0).patches == 1


def test_a_layer_of_the_story_goes_with_a_story():
    with pytest.raises(ConfigError, match="story_layer = 0"):
        DenseSettings(story=0, story_layer=0)
    assert DenseSettings(story_layer=0).story_layer == 0


@pytest.mark.parametrize(
    "change",
    [
        {"pointers": 1},
        {"pointers": 1, "name_heads": ((0, 0),), "moments": True},
        {"pointers": 1, "trail_heads": ((0, 0),), "moments": True},
        {"pointers": 1, "name_heads": ((0, 0),), "captions": True},
        {"name_heads": ((0, 0),)},
        {"pointers": 1, "answer_heads": ((0, 0),), "story": 0, "answers": 0},
    ],
)
def test_heads_that_look_go_with_a_weight_and_a_decoder(change):
    with pytest.raises(ConfigError, match="pointers"):
        DenseSettings(**change)
    assert DenseSettings(pointers=1, name_heads=((0, 0), (1, 2))).heads["name"] == ((0, 0), (1, 2))
