"""Several recordings are one sequence of events; each is known by its name."""

from pathlib import Path

import pytest

from llava_video.errors import SourceError
from llava_video.monitor.camera_streams import CameraStreams
from llava_video.video.settings import StreamSettings
from llava_video.video.stream_events import StreamFrame
from llava_video.world.bars import paint_index, read_index
from llava_video.world.clip import write_clip

FAST = StreamSettings(pace="fast", starts_at_s=0.0)


def test_frames_of_all_cameras_come_by_name(tmp_path: Path) -> None:
    paths = {"gate": tmp_path / "a.mp4", "yard": tmp_path / "b.mp4"}
    for first, path in zip((10, 20), paths.values(), strict=True):
        write_clip(path, [paint_index(first + k, 32, 64) for k in range(3)], frame_rate_hz=1)
    (tmp_path / "c.mp4").write_bytes(b"no video")
    paths["broken"] = tmp_path / "c.mp4"
    streams = CameraStreams({name: (str(path), FAST) for name, path in paths.items()})
    seen: dict[str, list[int]] = {name: [] for name in paths}
    try:
        while not streams.is_over:
            found = streams.next(5.0)
            if found is not None and isinstance(found[1], StreamFrame):
                seen[found[0]].append(read_index(found[1].picture))
        assert seen == {"gate": [10, 11, 12], "yard": [20, 21, 22], "broken": []}
        assert {one.state for one in streams.statuses().values()} == {"ended"}
        assert set(streams.errors()) == {"broken"}
    finally:
        streams.close()


def test_a_file_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        CameraStreams({"gate": (str(tmp_path / "nowhere.mp4"), FAST)})
