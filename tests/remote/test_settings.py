"""Every setting is checked, and what decides how frames look is told."""

import pytest

from llava_video.errors import ConfigError
from llava_video.remote.settings import RemoteSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"picture": "gif"},
        {"jpeg_quality": 0},
        {"jpeg_quality": 101},
        {"frame_px": 0},
        {"frame_px": "large"},
        {"sends": "film"},
        {"max_running": 0},
        {"silence_s": 0},
        {"retry_for_s": -1},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RemoteSettings(**wrong)


def test_what_decides_how_frames_look_is_told() -> None:
    plain = RemoteSettings().of_frames()
    assert RemoteSettings(max_running=3, silence_s=1.0).of_frames() == plain
    changed = [
        {"picture": "png"},
        {"jpeg_quality": 80},
        {"frame_px": 100},
        {"frame_px": "whole"},
        {"sends": "video"},
    ]
    told = [RemoteSettings(**one).of_frames() for one in changed]
    assert all(one != plain for one in told)
    assert "jpeg_quality" not in told[0]
    # A video's frames are JPEG whatever is said of pictures.
    assert RemoteSettings(picture="png", sends="video").of_frames() == told[4]
