import base64
import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest

from llava_video.errors import SourceError
from llava_video.video.settings import FetchSettings
from llava_video.video.source import Source, open_source

CONTENT = b"some bytes that stand for a video"
IDENTITY = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a b.mp4"
    path.write_bytes(CONTENT)
    return path


def test_every_way_to_name_the_same_bytes(path: Path) -> None:
    encoded = base64.b64encode(CONTENT).decode()
    sources = [
        open_source(path),
        open_source(str(path)),
        open_source(path.as_uri()),
        open_source(CONTENT),
        open_source(bytearray(CONTENT)),
        open_source(memoryview(CONTENT)),
        open_source(f"data:video/mp4;base64,{encoded}"),
        open_source(io.BytesIO(CONTENT)),
    ]
    with path.open("rb") as file:
        sources.append(open_source(file))
    assert [source.identity() for source in sources] == [IDENTITY] * len(sources)
    kinds = ["path", "path", "path", "bytes", "bytes", "bytes", "bytes", "file", "file"]
    assert [source.kind for source in sources] == kinds
    for source in sources:
        reader = source.reader()
        read = Path(reader).read_bytes() if isinstance(reader, str) else reader.read()
        assert read == CONTENT


def test_names_are_for_people(path: Path) -> None:
    assert open_source(path).name == str(path)
    assert open_source(CONTENT).name == f"{len(CONTENT)} bytes"
    with path.open("rb") as file:
        assert open_source(file).name == "a b.mp4"
    assert open_source(io.BytesIO(CONTENT)).name == "file object"
    assert open_source((np.zeros((2, 4, 6, 3), np.uint8), [0, 1])).name == "2 frames of 6x4"


def test_a_relative_path_with_a_colon(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    Path("10:15.mp4").write_bytes(CONTENT)
    assert open_source("10:15.mp4").identity() == IDENTITY


def test_a_file_object_is_read_from_where_it_stands() -> None:
    file = io.BytesIO(b"header" + CONTENT)
    file.seek(6)
    assert open_source(file).identity() == IDENTITY


def test_a_temporary_file_lives_as_long_as_its_source() -> None:
    source = open_source(io.BytesIO(CONTENT))
    path = source.path
    assert path is not None
    assert path.exists()
    del source
    assert not path.exists()


def test_a_source_is_returned_as_it_is(path: Path) -> None:
    source = open_source(path)
    assert open_source(source) is source


def test_identity_of_frames() -> None:
    frames = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    one = open_source((frames, [0.0, 1.0])).identity()
    assert one == open_source((np.ascontiguousarray(frames), (0, 1))).identity()
    assert one == open_source((frames.copy(order="F"), (0, 1))).identity()
    assert one != open_source((frames, [0.0, 2.0])).identity()
    assert one != open_source((frames[:, :, ::-1], [0.0, 1.0])).identity()
    assert one != open_source((frames.reshape(2, 6, 4, 3), [0.0, 1.0])).identity()


def test_a_file_that_has_gone(path: Path) -> None:
    source = open_source(path)
    path.unlink()
    with pytest.raises(SourceError, match="cannot be read"):
        source.identity()


def test_paths_that_are_no_video(tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "0001.JPG").touch()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for address, message in (
        (tmp_path / "none.mp4", "No such file.*check the path"),
        (tmp_path, "is a folder.*one by one"),
        (pictures, r"is a folder.*pictures have no times.*\(frames, times_s\)"),
        (empty, r"is empty \(0 bytes\)"),
        (pipe, "not a regular file"),
        ("a\0b", "cannot be opened"),
        ("", "cannot be opened|is a folder"),
    ):
        with pytest.raises(SourceError, match=message):
            open_source(address)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("rtsp://host/stream", "rtsp:// addresses are not read"),
        ("ftp://host/a.mp4", "ftp:// addresses"),
        ("concat://a|b", "concat:// addresses"),
        ("http://127.0.0.1/a.mp4", "loopback address"),
        ("http://[bad/a.mp4", "malformed|not a valid"),
        (b"", "0 bytes"),
        (io.BytesIO(b""), "no bytes left"),
        (io.StringIO("text"), 'mode "rb"'),
        (None, "NoneType is no video"),
        (7, "int is no video"),
        (["a.mp4"], "list is no video"),
        (np.zeros((2, 4, 4, 3), np.uint8), "without their times"),
    ],
)
def test_addresses_that_are_no_video(address: object, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(address)


@pytest.mark.parametrize(
    ("frames", "times_s"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), [0, 1]),
        (np.zeros((2, 4, 4), np.uint8), [0, 1]),
        (np.zeros((2, 4, 4, 4), np.uint8), [0, 1]),
        (np.zeros((0, 4, 4, 3), np.uint8), []),
        (np.zeros((2, 0, 4, 3), np.uint8), [0, 1]),
        (np.zeros((2, 4, 4, 3), np.uint8), [0]),
        (np.zeros((2, 4, 4, 3), np.uint8), [[0], [1]]),
        (np.zeros((2, 4, 4, 3), np.uint8), [1, 0]),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 0]),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, float("nan")]),
        (np.zeros((2, 4, 4, 3), np.uint8), ["a", "b"]),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)], [0, 1]),
    ],
)
def test_frames_that_are_none(frames: object, times_s: object) -> None:
    with pytest.raises(SourceError, match=r"\(frames, times_s\)"):
        open_source((frames, times_s))


def test_frames_as_a_list() -> None:
    source = open_source(([np.full((4, 6, 3), i, np.uint8) for i in range(3)], (0, 1, 2)))
    assert source.frames is not None
    assert source.frames.shape == (3, 4, 6, 3)


def test_limits_reach_data_urls() -> None:
    with pytest.raises(SourceError, match="larger than 3 bytes"):
        open_source("data:,abcd", fetch_settings=FetchSettings(max_bytes=3))


def test_content_is_not_printed() -> None:
    assert "some bytes" not in repr(Source(kind="bytes", name="x", content=CONTENT))
