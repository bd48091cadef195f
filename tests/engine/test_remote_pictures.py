"""Frames arrive as they are shown, no larger than they are looked at, and are encoded once."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from llava_video.engine.remote_pictures import Pictures
from llava_video.errors import DecodeError
from llava_video.remote.settings import RemoteSettings
from llava_video.values import Grid
from llava_video.world.bars import paint_index, read_index


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def encoded(part, tile_px: int = 1000, **settings) -> list[str]:
    pictures = Pictures(RemoteSettings(**settings), tile_px)
    return [uri for some in pictures.encode(part) for uri in some]


def test_png_loses_nothing(video) -> None:
    uris = encoded(video([3, 200]), picture="png")
    assert all(uri.startswith("data:image/png;base64,") for uri in uris)
    for uri, idx in zip(uris, (3, 200), strict=True):
        assert np.array_equal(np.asarray(opened(uri)), paint_index(idx, 40, 64))


def test_jpeg_is_close_and_its_quality_is_a_choice(video) -> None:
    (fine,) = encoded(video([77]))
    (coarse,) = encoded(video([77]), jpeg_quality=20)
    assert fine.startswith("data:image/jpeg;base64,")
    assert len(coarse) < len(fine)
    assert [read_index(np.asarray(opened(uri))) for uri in (fine, coarse)] == [77, 77]
    assert opened(fine).layer[1][1:3] == (1, 1)  # colours at every pixel
    # A video's frames are JPEG.
    assert encoded(video([77]), picture="png", sends="video")[0] == fine


@pytest.mark.parametrize(
    ("frame_px", "tile_px", "grid", "size"),
    [
        ("whole", 8, (1, 1), (64, 40)),
        ("auto", 1000, (1, 1), (64, 40)),  # nothing is magnified
        ("auto", 20, (1, 1), (32, 20)),  # the squeezed tile keeps its 20 rows and 20 columns
        ("auto", 15, (1, 3), (45, 28)),
        ("auto", 15, (2, 2), (48, 30)),
        (10, 1000, (1, 1), (16, 10)),
        (41, 1, (1, 1), (64, 40)),
    ],
)
def test_frames_are_no_larger_than_they_are_looked_at(
    video, frame_px, tile_px: int, grid: tuple[int, int], size: tuple[int, int]
) -> None:
    part = video([5], plan={"grid": Grid(*grid)})
    (uri,) = encoded(part, tile_px, frame_px=frame_px)
    assert opened(uri).size == size
    assert read_index(np.asarray(opened(uri))) == 5


def test_pictures_are_kept_within_their_bytes(video) -> None:
    parts = [video([idx]) for idx in range(4)]
    size = len(encoded(parts[0])[0])
    pictures = Pictures(RemoteSettings(kept_bytes=2 * size + 8), 1000)
    for part in parts[:2]:
        pictures.keep(part, ("x" * size,))
    assert pictures.kept(parts[0]) == ("x" * size,)  # the second is now the oldest
    pictures.keep(parts[2], ("x" * size,))
    assert [pictures.kept(part) is not None for part in parts] == [True, False, True, False]
    pictures.keep(parts[3], ("x" * 3 * size,))
    assert [pictures.kept(part) for part in parts] == [None] * 4


def test_missing_frames_are_an_error(video) -> None:
    part = video([1, 2], plan={"times_s": (0.0, 1.0, 2.0)})
    with pytest.raises(DecodeError, match="3 frames were planned, 2 came"):
        encoded(part)
