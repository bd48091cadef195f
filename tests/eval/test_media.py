"""A name leads to its file wherever a copy was unpacked, or says that there is none."""

from pathlib import Path

import eval_copies
import numpy as np
import pytest

from llava_video.errors import ConfigError, DecodeError, SourceError
from llava_video.eval.media import Footage, MediaIndex
from llava_video.inputs import Picture, Video


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_a_name_is_found_in_its_place_and_anywhere(tmp_path: Path) -> None:
    deep = tmp_path / "a/b/x.webm"
    touch(tmp_path / "data/x.mp4", deep, tmp_path / "data/notes.txt")
    media = MediaIndex(tmp_path)
    assert media.find("x.mp4", "data") == tmp_path / "data/x.mp4"
    assert media.find("x.webm") == deep
    assert media.find("b/x.mp4") == deep  # the same folder, another suffix
    for name in ("notes", "c/x.mp4"):  # no video; a video of another folder
        with pytest.raises(SourceError, match="is not in"):
            media.find(name)
    with pytest.raises(ConfigError, match="may be any of"):
        media.find("x")


def test_a_stem_with_a_point_is_not_a_suffix(tmp_path: Path) -> None:
    touch(tmp_path / "v_1.5.MP4")
    assert MediaIndex(tmp_path).find("v_1.5") == tmp_path / "v_1.5.MP4"


def test_what_is_missing_says_so_when_it_is_shown(tmp_path: Path) -> None:
    media = MediaIndex(tmp_path)
    lost = media.footage("gone.mp4", "data")
    frames = media.frames("gone", rate_hz=3, start_s=None, end_s=None)
    for footage in (lost, frames):
        with pytest.raises(SourceError, match="gone"):
            footage.load()
    assert lost.name == "gone.mp4"


def test_footage_is_shown_as_what_it_is(tmp_path: Path) -> None:
    touch(tmp_path / "v.mp4", tmp_path / "p.JPG")
    media = MediaIndex(tmp_path)
    video = media.footage("v.mp4", start_s=1.0, end_s=2.0).load()
    assert video == Video(tmp_path / "v.mp4", start=1.0, end=2.0)
    assert media.footage("p").load() == Picture(tmp_path / "p.JPG")
    pictures = Footage(pictures=(b"1", b"2"))
    assert pictures.load() == [Picture(b"1"), Picture(b"2")]
    assert pictures.name == "2 pictures"


def test_a_folder_of_pictures_is_a_video_with_times(tmp_path: Path) -> None:
    folder = tmp_path / "frames/clip"
    folder.mkdir(parents=True)
    for idx in range(7):
        (folder / f"{idx + 1:05d}.png").write_bytes(eval_copies.png(idx * 10))
    media = MediaIndex(tmp_path)
    footage = media.frames("clip", "frames", rate_hz=2.0, start_s=1.0, end_s=2.5)
    frames, times_s = footage.load()
    # The third picture is at 1.0 s, the sixth at 2.5 s, which the span no longer holds.
    assert times_s.tolist() == [1.0, 1.5, 2.0]
    assert frames[:, 0, 0, 0].tolist() == [20, 30, 40]
    assert frames.dtype == np.uint8
    with pytest.raises(SourceError, match="no picture in the span"):
        media.frames("clip", "frames", rate_hz=2.0, start_s=9.0, end_s=None).load()
    (folder / "00003.png").write_bytes(b"no picture")
    with pytest.raises(DecodeError, match="cannot be read"):
        footage.load()
