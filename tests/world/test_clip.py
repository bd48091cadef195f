from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from llava_video.errors import ConfigError
from llava_video.world.bars import paint_index, read_index
from llava_video.world.clip import write_clip


def _decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def test_pixels_and_even_times(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_clip(path, (paint_index(i, 48, 64) for i in range(10)), frame_rate_hz=5)
    frames = _decoded(path)
    assert [read_index(f.to_ndarray(format="rgb24")) for f in frames] == list(range(10))
    assert [f.time for f in frames] == pytest.approx([i / 5 for i in range(10)])


def test_given_times(tmp_path: Path) -> None:
    path, times_s = tmp_path / "a.mkv", [0.0, 0.04, 1.5, 1.75, 9.0]
    write_clip(path, (paint_index(i, 48, 64) for i in range(5)), times_s=times_s)
    assert [f.time for f in _decoded(path)] == pytest.approx(times_s, abs=1e-3)


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_rotation_is_stored_clockwise(tmp_path: Path, rotation_deg: int) -> None:
    path = tmp_path / "a.mp4"
    write_clip(path, [paint_index(1, 48, 64)] * 2, rotation_deg=rotation_deg)
    # PyAV counts counter-clockwise, from -180 to 180.
    assert -_decoded(path)[0].rotation % 360 == rotation_deg


def test_sample_aspect_and_pixel_format(tmp_path: Path) -> None:
    path, aspect = tmp_path / "a.mp4", Fraction(4, 3)
    frames = [np.full((48, 64, 3), 128, np.uint8)]
    write_clip(path, frames, sample_aspect=aspect, pixel_format="yuv420p10le")
    with av.open(str(path)) as container:
        track = container.streams.video[0]
        assert (track.sample_aspect_ratio, track.pix_fmt) == (aspect, "yuv420p10le")


@pytest.mark.parametrize("num_times", [2, 4])
def test_as_many_times_as_frames(tmp_path: Path, num_times: int) -> None:
    with pytest.raises(ConfigError, match="times"):
        write_clip(tmp_path / "a.mp4", [paint_index(0, 48, 64)] * 3, times_s=list(range(num_times)))


def test_no_frames(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 frames"):
        write_clip(tmp_path / "a.mp4", [])
