"""A file is probed once, again when it has changed; what was not asked for longest goes first."""

import os
from pathlib import Path

import numpy as np
import pytest

from llava_video.train.known_videos import KnownVideos
from llava_video.values import VideoInfo


def info(num_frames: int) -> VideoInfo:
    return VideoInfo(
        duration_s=1.0,
        num_frames=num_frames,
        frame_rate_hz=25.0,
        height_px=8,
        width_px=8,
        codec="h264",
        container="mp4",
        pts_s=np.arange(num_frames) / 25,
        tick_s=0.04,
    )


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    made = [tmp_path / name for name in "abc"]
    for path in made:
        path.write_bytes(b"1234")
    return [str(path) for path in made]


def test_what_was_told_is_known_until_the_file_changes(paths: list[str]):
    known, told = KnownVideos(), info(3)
    assert known.info_of(paths[0]) is None
    known.add(paths[0], told)
    assert known.info_of(paths[0]) is told
    assert known.info_of(paths[1]) is None
    # As many bytes at another time, or more bytes at the same time, are another file.
    os.utime(paths[0], ns=(0, 0))
    assert known.info_of(paths[0]) is None
    known.add(paths[0], told)
    Path(paths[0]).write_bytes(b"12345")
    os.utime(paths[0], ns=(0, 0))
    assert known.info_of(paths[0]) is None


def test_the_longest_unused_go_first(paths: list[str]):
    known = KnownVideos(most_frames=10)
    told = {path: info(4) for path in paths}
    known.add(paths[0], told[paths[0]])
    known.add(paths[1], told[paths[1]])
    known.info_of(paths[0])
    known.add(paths[2], told[paths[2]])  # 12 frames: one of them goes, and it is not the first
    assert [known.info_of(path) for path in paths] == [told[paths[0]], None, told[paths[2]]]
    # The same file again takes its own place, not another one.
    known.add(paths[2], told[paths[2]])
    assert known.info_of(paths[0]) is told[paths[0]]


def test_what_cannot_be_kept_is_not_kept(paths: list[str], tmp_path: Path):
    known = KnownVideos(most_frames=10)
    known.add(paths[0], info(6))
    known.add(paths[1], info(11))
    assert known.info_of(paths[1]) is None
    assert known.info_of(paths[0]) is not None
    known.add(str(tmp_path / "gone"), info(1))
    assert known.info_of(str(tmp_path / "gone")) is None
    Path(paths[0]).unlink()
    assert known.info_of(paths[0]) is None
