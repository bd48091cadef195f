import pytest

from llava_video.config import from_mapping, to_mapping
from llava_video.errors import ConfigError
from llava_video.world.settings import WorldSettings


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sizes_px": ((63, 64),)}, "63 x 64"),
        ({"sizes_px": ((30, 64),)}, "30 x 64"),
        ({"sizes_px": ((64, 5000),)}, "64 x 5000"),
        ({"sizes_px": ()}, "sizes_px is empty"),
        ({"backdrops": ("starry",)}, "starry"),
        ({"lengths_s": (2.0,)}, "lengths_s"),
        ({"rates_hz": (0.1,)}, "rates_hz"),
        ({"min_objects": 3, "max_objects": 2}, "above max_objects"),
        ({"max_objects": 5}, "max_objects"),
        ({"still_share": 0.7, "quiet_share": 0.5}, "still_share"),
        ({"palette": "c"}, "palette"),
        ({"noise": 41}, "noise"),
    ],
)
def test_what_cannot_be_is_refused(values: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        WorldSettings(**values)


def test_plain_values_and_back() -> None:
    settings = WorldSettings(sizes_px=((48, 64), (64, 64)), rates_hz=(2.0, 12.5))
    assert from_mapping(WorldSettings, to_mapping(settings)) == settings


@pytest.mark.parametrize(
    ("sampled_hz", "rate_hz", "gap_s"),
    [(None, 1.0, 1.0), (None, 25.0, 0.5), (1.0, 25.0, 1.0), (8.0, 4.0, 0.25), (8.0, 10.0, 0.125)],
)
def test_the_gap_is_of_the_slower_one(sampled_hz, rate_hz: float, gap_s: float) -> None:
    assert WorldSettings(sampled_hz=sampled_hz).gap_s(rate_hz) == gap_s
