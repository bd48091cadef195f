from pathlib import Path
from typing import Any

import pytest
import synthetic

from llava_video.errors import BackendMissingError, SourceError
from llava_video.video import container as container_module
from llava_video.video.container import (
    open_container,
    packets_of,
    prepare_containers,
    watch_packets,
)
from llava_video.video.source import open_source


def test_a_path_and_bytes_open_alike(tmp_path: Path) -> None:
    path = synthetic.write_video(tmp_path / "a.mp4", 2)
    for address in (path, path.read_bytes()):
        with open_container(open_source(address)) as container:
            assert container.streams.video[0].width == 160


def test_a_name_is_never_taken_for_a_protocol_or_a_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written = synthetic.write_video(tmp_path / "a.mp4", 2)
    for name in ("concat:a.mp4", "%d.mp4", "-i.mp4", "a|b.mp4"):
        written.rename(name)
        with open_container(open_source(name)) as container:
            assert container.format.name.startswith("mov")
        written = Path(name)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{path}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{path}'\n",
        "<MPD><Period><BaseURL>{path}</BaseURL></Period></MPD>",
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ffconcat"])
def test_playlists_open_no_other_file(tmp_path: Path, text: str, suffix: str) -> None:
    video = synthetic.write_video(tmp_path / "a.ts", 2)
    playlist = tmp_path / f"list{suffix}"
    playlist.write_text(text.format(path=video))
    for address in (playlist, playlist.read_bytes()):
        with (
            pytest.raises(SourceError, match="is text, not a video"),
            open_container(open_source(address)),
        ):
            pass


def test_text_renamed_to_mp4(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("these are my notes\n" * 100)
    with (
        pytest.raises(SourceError, match="is text, not a video"),
        open_container(open_source(path)),
    ):
        pass


def test_an_mp4_without_its_index(tmp_path: Path) -> None:
    content = synthetic.write_video(tmp_path / "a.mp4").read_bytes()
    with (
        pytest.raises(SourceError, match=r"without a readable index \(moov\).*copy it again"),
        open_container(open_source(content[: len(content) // 2])),
    ):
        pass


def test_noise() -> None:
    noise = bytes((i * 167 + i // 3) % 256 for i in range(4000))
    with (
        pytest.raises(SourceError, match="cannot be opened as a video"),
        open_container(open_source(noise)),
    ):
        pass


def test_a_file_that_has_gone(tmp_path: Path) -> None:
    path = synthetic.write_video(tmp_path / "a.mp4", 2)
    source = open_source(path)
    path.unlink()
    with pytest.raises(SourceError, match="No such file"), open_container(source):
        pass


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(synthetic.write_video(tmp_path / "a.mp4", 2))

    def absent(name: str) -> None:
        raise BackendMissingError(f"{name} cannot be imported.", "pip install")

    monkeypatch.setattr("llava_video.video.container.require", absent)
    with pytest.raises(BackendMissingError), open_container(source):
        pass


def test_packets_can_be_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten packets of the video, and the empty one that ends it; then the watch ends the reading."""
    monkeypatch.setattr(container_module, "_watches", [])
    source = open_source(synthetic.write_video(tmp_path / "a.mp4", 10))
    seen: list[int] = []

    def watch() -> None:
        seen.append(len(seen))
        if len(seen) > 15:
            raise RuntimeError("enough")

    watch_packets(watch)
    with open_container(source) as container:
        assert len(list(packets_of(container, container.streams.video))) == len(seen) == 11
    with open_container(source) as container, pytest.raises(RuntimeError, match="enough"):
        list(packets_of(container, container.streams.video))
    assert len(seen) == 16


def test_containers_are_prepared_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_module, "_preparations", [])
    prepared: list[Any] = []
    prepare_containers(prepared.append)
    source = open_source(synthetic.write_video(tmp_path / "a.mp4", 3))
    with open_container(source) as container:
        assert prepared == [container]
