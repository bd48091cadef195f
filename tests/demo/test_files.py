"""The demo's clip and model are what any video and any checkpoint are."""

from pathlib import Path

import pytest

from llava_video.demo.files import SMALL_TILE_PX, passing_demo_files, write_demo_files
from llava_video.errors import ConfigError
from llava_video.model.spec import read_spec
from llava_video.video.probe import probe
from llava_video.video.source import open_source


def test_the_files_can_be_read(tmp_path: Path) -> None:
    files = write_demo_files(tmp_path / "new" / "folder")
    info = probe(open_source(files.clip))
    assert (info.duration_s, info.num_frames) == (8.0, 96)
    assert (info.height_px, info.width_px) == (360, 640)
    geometry = read_spec(files.model).geometry
    assert (geometry.tile_px, geometry.patches_per_side) == (384, 27)
    assert geometry.time_instruction


def test_only_an_empty_folder_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(ConfigError, match="is not empty"):
        write_demo_files(tmp_path)
    with pytest.raises(ConfigError, match="cannot be made"):
        write_demo_files(tmp_path / "mine")
    with pytest.raises(ConfigError, match="cannot be made"):
        write_demo_files(tmp_path / "mine" / "folder")


def test_passing_files_go_with_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    at_the_end = []
    monkeypatch.setattr("atexit.register", lambda *call, **more: at_the_end.append((call, more)))
    files = passing_demo_files()
    assert files.clip.is_file()
    assert read_spec(files.model).geometry.tile_px == SMALL_TILE_PX
    for (function, *arguments), keywords in at_the_end:
        function(*arguments, **keywords)
    assert not files.clip.parent.exists()
