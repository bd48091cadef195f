"""A geometry holds what a model is; numbers no model can have are refused."""

from dataclasses import replace

import pytest

from llava_video.errors import ConfigError
from llava_video.planning.geometry import Geometry


def test_unused_pixels_make_no_patch(geometry: Geometry):
    assert geometry.patches_per_side == 27  # 384 = 27 * 14 + 6
    assert replace(geometry, tile_px=336, canvases=((336, 672),)).patches_per_side == 24
    assert replace(geometry, tile_px=56, canvases=((56, 112),)).patches_per_side == 4


def test_tiles_of_a_frame(geometry: Geometry, mini: Geometry, mini_hd: Geometry):
    assert (geometry.frame_tiles, mini.frame_tiles, mini_hd.frame_tiles) == (1, 1, 5)
    assert replace(mini_hd, split=3).frame_tiles == 10


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("context_tokens", 0, "context_tokens"),
        ("pool_stride", 0, "pool_stride"),
        ("patch_px", 0, "patch_px"),
        ("patch_px", 385, "no patch"),
        ("max_frames", -1, "max_frames"),
        ("canvases", ((384, 400),), "384 x 400"),
        ("canvases", ((0, 384),), "0 x 384"),
        ("canvases", (), "no canvases"),
    ],
)
def test_impossible_numbers_are_refused(geometry: Geometry, field: str, value: object, word: str):
    with pytest.raises(ConfigError, match=word):
        replace(geometry, **{field: value})
