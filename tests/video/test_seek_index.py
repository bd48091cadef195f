from pathlib import Path

import pytest
import synthetic

from llava_video.video.container import open_container
from llava_video.video.seek_index import is_indexed, last_indexed_tick
from llava_video.video.source import open_source


def _last_tick(path: Path) -> int | None:
    source = open_source(path)
    with open_container(source) as container:
        return last_indexed_tick(source, container, container.streams.video[0])


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 90 frames, 30 a second, a keyframe every 12."""
    return synthetic.write_video(tmp_path_factory.mktemp("clip") / "a.mp4", 90)


def test_an_index_reaches_the_last_keyframe(tmp_path: Path, path: Path) -> None:
    # Frame 84 is at 2.8 s; Matroska counts milliseconds.
    assert _last_tick(synthetic.remux(path, tmp_path / "a.mkv")) == 2800
    assert _last_tick(synthetic.remux(path, tmp_path / "a.mkv", reserve_index_space="9000")) == 2800


def test_without_one_only_the_beginning_is_known(tmp_path: Path, path: Path) -> None:
    assert (_last_tick(synthetic.remux(path, tmp_path / "a.mkv", live="1")) or 0) < 1400
    assert _last_tick(synthetic.remux(path, tmp_path / "a.ts")) is None


def test_the_container_that_is_read_from_does_not_move(tmp_path: Path, path: Path) -> None:
    source = open_source(synthetic.remux(path, tmp_path / "a.mkv"))
    with open_container(source) as container:
        last_indexed_tick(source, container, container.streams.video[0])
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 90


def test_past_the_middle_of_the_keyframes() -> None:
    assert is_indexed(1500, 1000, 2000)
    assert not is_indexed(1499, 1000, 2000)
    assert not is_indexed(None, 0, 2000)
    assert is_indexed(0, 0, 0)  # one keyframe
    # The wrong middle, of the file's times and not of the keyframes': 1400 is past 2000 / 2.
    assert not is_indexed(1400, 1000, 2000)
