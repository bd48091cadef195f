"""Pictures in the order of their numbers, at the times of their rate; what is none is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava_video.errors import ConfigError, SourceError
from llava_video.video.frame_folder import FrameFolder, frame_files


def picture(level: int, height_px: int = 6, width_px: int = 8) -> Image.Image:
    return Image.fromarray(np.full((height_px, width_px, 3), level, dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return twelve frames, each as bright as its number; the last one is of another size."""
    for number in range(12):
        size = (9, 5) if number == 11 else (6, 8)
        picture(10 * number, *size).save(tmp_path / f"frame_{number}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / ".hidden.png").write_bytes(b"no frame")
    (tmp_path / "frame_5b.png").mkdir()
    return tmp_path


def test_frames_stand_by_their_numbers(folder: Path):
    names = [path.name for path in frame_files(folder)]
    assert names == [f"frame_{number}.png" for number in range(12)]
    assert names != sorted(names)  # where "frame_10" comes before "frame_2"


def test_times_and_frames(folder: Path):
    with FrameFolder(folder, rate_hz=2) as video:
        info = video.info
    assert (info.num_frames, info.duration_s, info.frame_rate_hz) == (12, 6.0, 2)
    assert (info.height_px, info.width_px) == (6, 8)
    assert info.pts_s.tolist() == [0.5 * number for number in range(12)]
    clips = list(video.clips_at([0.0, 1.2, 5.0, 5.5], chunk_frames=3))
    assert [len(clip.frames) for clip in clips] == [3, 1]
    idxs = np.concatenate([clip.frame_idxs for clip in clips])
    assert idxs.tolist() == [0, 2, 10, 11]
    frames = np.concatenate([clip.frames for clip in clips])
    assert frames.shape == (4, 6, 8, 3)
    assert frames[:, 3, 4, 0].tolist() == [0, 20, 100, 110]


def test_what_is_no_video_is_named(folder: Path, tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SourceError, match="holds no picture"):
        FrameFolder(empty, 2)
    with pytest.raises(SourceError, match="cannot be read"):
        FrameFolder(tmp_path / "gone", 2)
    for rate_hz in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="frames in a second"):
            FrameFolder(folder, rate_hz)
    video = FrameFolder(folder, 2)
    video.check_headers()
    (folder / "frame_3.png").write_bytes(b"damaged")
    with pytest.raises(SourceError, match=r"frame_3\.png"):
        video.check_headers()
    with pytest.raises(SourceError, match=r"frame_3\.png"):
        list(video.clips_at([1.5]))
