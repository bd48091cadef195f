"""What a model cannot be asked, and what its plans say of it."""

from dataclasses import replace

import pytest

from llava_video.errors import ConfigError
from llava_video.planning.geometry import Geometry
from llava_video.planning.layout import image_layout, video_layout, visual_plan
from llava_video.planning.model_notes import check_visuals, crop_warnings, model_reasons


def said(geometry: Geometry, *, has_video: bool, has_visual: bool = True) -> list[str]:
    return list(model_reasons(geometry, has_video=has_video, has_visual=has_visual))


def test_a_model_of_pictures_says_so_of_videos(next_pictures: Geometry, next_video: Geometry):
    (reason,) = said(next_pictures, has_video=True)
    assert reason == (
        "This model was not trained on video: each frame is given as a picture of its own, one "
        "after another."
    )
    assert said(next_pictures, has_video=False) == []
    assert said(next_video, has_video=True) == []


def test_a_model_that_fuses_says_so_of_whatever_it_sees(mini: Geometry, geometry: Geometry):
    (reason,) = said(mini, has_video=False)
    assert said(mini, has_video=True) == [reason]
    assert "another question looks at every frame again" in reason
    assert said(mini, has_video=False, has_visual=False) == []
    assert said(geometry, has_video=True) == []


def test_only_one_visual_can_be_fused(mini: Geometry, geometry: Geometry):
    for count in (0, 1):
        check_visuals(mini, count)
    with pytest.raises(ConfigError, match="2 videos and pictures, and llava-mini") as refusal:
        check_visuals(mini, 2)
    assert refusal.value.hint == "ask about each of them alone."
    check_visuals(geometry, 2)


def test_what_a_crop_hides_is_told(next_video: Geometry):
    """NeXT-Video's frames of 16:9 are cropped: of 1920 px of width 1080 are seen."""

    def plan(geometry: Geometry, height_px: int, width_px: int) -> list[str]:
        layout = video_layout(height_px, width_px, geometry)
        visual = visual_plan(
            layout,
            kind="video",
            source="a.mp4",
            size_px=(height_px, width_px),
            frame_idxs=(0,),
            times_s=(0.0,),
        )
        return list(crop_warnings([visual]))

    (warning,) = plan(next_video, 1080, 1920)
    assert warning.startswith("a.mp4: only the middle 1080 x 1080 px of 1920 x 1080 px are seen")
    assert plan(next_video, 500, 500) == []
    assert plan(replace(next_video, video_fit="squeeze"), 1080, 1920) == []


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (1, "a.png: only the middle 50 x 50 px of 100 x 50 px are seen"),
        (2, "each of 2 x 2 blocks and the whole of 100 x 50 px: only the middle of each is seen."),
    ],
)
def test_a_crop_of_every_block_is_told(mini: Geometry, split: int, said: str):
    """Cut into 2 x 2, the middle 50 x 50 px are not all: each block of 50 x 25 px is cropped."""

    def warnings(height_px: int, width_px: int) -> list[str]:
        cut = replace(mini, split=split)
        visual = visual_plan(
            image_layout(height_px, width_px, cut, "square"),
            kind="image",
            source="a.png",
            size_px=(height_px, width_px),
            frame_idxs=(0,),
            times_s=(0.0,),
        )
        return list(crop_warnings([visual]))

    (warning,) = warnings(50, 100)
    assert said in warning
    assert ("only the middle 50 x 50" in warning) == (split == 1)
    assert warnings(60, 60) == []
