"""One connection: upright pictures of bounded size, damage counted, nothing given twice."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
from stream_servers import FileServer, TcpCamera, joined, numbered, sending, write_playlist

from llava_video.video.settings import StreamSettings
from llava_video.video.stream_address import stream_address
from llava_video.video.stream_connection import (
    Connection,
    Remembered,
    StreamFaultError,
    stated_time_s,
)
from llava_video.world.bars import read_index

LIVE = StreamSettings(fps=None, stall_timeout_s=1.0, open_timeout_s=2.0)


def connect(address: Any, settings: StreamSettings = LIVE, remembered: Any = None) -> Connection:
    opened = stream_address(address, settings)
    return Connection(opened, settings, Remembered() if remembered is None else remembered)


def read(connection: Connection) -> list[int]:
    pictures = [picture for picture in connection.pictures() if picture is not None]
    found = [read_index(connection.upright(frame)) for frame, _ in pictures]
    connection.close()
    return found


def test_a_camera_to_its_end() -> None:
    with TcpCamera([sending(*numbered(3, 60))]) as camera:
        connection = connect(camera.url)
        found = [
            (read_index(connection.upright(frame)), raw_s) for frame, raw_s in connection.pictures()
        ]
    assert [idx for idx, _ in found] == list(range(3, 60))
    steps = np.diff([raw_s for _, raw_s in found])
    assert np.allclose(steps, 0.04)
    assert connection.fault is None
    assert (connection.codec, connection.tally.decoded) == ("h264", 57)


def test_silence_is_a_fault_and_what_was_held_comes_out_first() -> None:
    with TcpCamera([]) as camera:
        camera._visits = [lambda line: (sending(*numbered(0, 30))(line), camera.hold(line))]
        connection = connect(camera.url)
        assert read(connection) == list(range(30))
    assert connection.fault == ("timeout", "no answer in time")


@pytest.mark.parametrize("kind", ["noise", "cut_in_a_picture", "bytes_lost"])
def test_damage_is_counted_and_what_is_whole_comes(kind: str) -> None:
    noise = np.random.default_rng(0).bytes(200_000)
    whole = joined(*numbered(0, 40), *numbered(40, 80))
    first, second = whole[:40], whole[40:]
    broken = {
        "noise": (*first, noise, *second),
        "cut_in_a_picture": (*first[:-1], first[-1][: len(first[-1]) // 376 * 188], *second),
        "bytes_lost": (*first[:15], *first[18:], *second),
    }[kind]
    with TcpCamera([sending(*broken)]) as camera:
        connection = connect(camera.url)
        found = read(connection)
    assert found == sorted(set(found))  # in order, nothing made up
    assert set(range(40, 80)) <= set(found)
    assert len(found) >= 80 - 7 - 2
    if kind == "bytes_lost":  # up to the next keyframe, pictures are built on what was lost
        assert not set(range(15, 20)) & set(found)
        assert connection.tally.damaged >= 2


def test_nothing_but_noise_is_no_video() -> None:
    noise = np.random.default_rng(0).bytes(6_000_000)
    with TcpCamera([sending(noise)]) as camera, pytest.raises(StreamFaultError) as caught:
        connect(camera.url)
    assert caught.value.fault == ("unreadable", "what it sends is no video")


def test_nobody_there_and_nobody_who_speaks() -> None:
    with pytest.raises(StreamFaultError) as caught:
        connect("tcp://127.0.0.1:1")
    assert caught.value.fault == ("cut", "connection refused")
    with TcpCamera([]) as camera:
        camera._visits = [camera.hold]
        with pytest.raises(StreamFaultError) as caught:
            connect(camera.url)
    assert caught.value.fault == ("timeout", "no answer in time")


def test_a_new_size_comes_as_it_is() -> None:
    pieces = joined(*numbered(0, 20), *numbered(20, 40, 64, 96))
    with TcpCamera([sending(*pieces)]) as camera:
        connection = connect(camera.url)
        pictures = [connection.upright(frame) for frame, _ in connection.pictures()]
    assert [read_index(picture) for picture in pictures] == list(range(40))
    assert {picture.shape for picture in pictures[:20]} == {(48, 64, 3)}
    assert {picture.shape for picture in pictures[20:]} == {(64, 96, 3)}


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_pictures_are_upright_and_their_pixels_square(tmp_path: Path, rotation_deg: int) -> None:
    path = synthetic.write_video(tmp_path / "a.mp4", 3, rotation_deg=rotation_deg)
    connection = connect(path)
    pictures = [connection.upright(frame) for frame, _ in connection.pictures()]
    assert all(synthetic.is_upright(picture) for picture in pictures)
    assert [synthetic.read_index(picture) for picture in pictures] == [0, 1, 2]
    wide = synthetic.write_video(tmp_path / "b.mp4", 3, sample_aspect=Fraction(2))
    connection = connect(wide)
    assert {connection.upright(frame).shape for frame, _ in connection.pictures()} == {(96, 320, 3)}


def test_no_side_is_longer_than_asked_for(tmp_path: Path) -> None:
    path = synthetic.write_video(tmp_path / "a.mp4", 3)
    connection = connect(path, StreamSettings(max_side_px=80))
    pictures = [connection.upright(frame) for frame, _ in connection.pictures()]
    assert [picture.shape for picture in pictures] == [(48, 80, 3)] * 3
    assert [synthetic.read_index(picture) for picture in pictures] == [0, 1, 2]


def test_a_picture_of_more_pixels_than_allowed_is_not_decoded() -> None:
    pieces = joined(*numbered(0, 20), *numbered(20, 40, 192, 320), *numbered(40, 60))
    with TcpCamera([sending(*pieces)]) as camera:
        connection = connect(camera.url, StreamSettings(max_pixels=20_000, stall_timeout_s=1.0))
        found = read(connection)
    assert found == [*range(20), *range(40, 60)]
    assert connection.tally.damaged >= 20


def test_keyframes_alone() -> None:
    with TcpCamera([sending(*numbered(0, 40))]) as camera:
        connection = connect(camera.url, StreamSettings(keyframes_only=True, stall_timeout_s=1.0))
        assert read(connection) == [0, 10, 20, 30]


def test_a_playlist_read_twice_gives_nothing_twice(tmp_path: Path) -> None:
    remembered = Remembered()
    with FileServer(tmp_path) as server:
        write_playlist(tmp_path, 0, 3, is_over=True)
        first = connect(f"{server.url}/a.m3u8", remembered=remembered)
        assert first.duration_s > 0
        assert read(first) == list(range(40))
        write_playlist(tmp_path, 2, 5, is_over=True)
        second = connect(f"{server.url}/a.m3u8", remembered=remembered)
        assert read(second) == list(range(40, 60))
    assert second.tally.repeated == 20


def test_a_playlist_names_no_file_of_ours(tmp_path: Path) -> None:
    secret = tmp_path / "mine.ts"
    secret.write_bytes(b"".join(numbered(0, 10)))
    (tmp_path / "a.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.4,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    )
    with FileServer(tmp_path) as server, pytest.raises(StreamFaultError):
        connect(f"{server.url}/a.m3u8")


def test_what_a_recording_says_of_its_beginning() -> None:
    assert stated_time_s("1970-01-01T00:01:00.5Z") == 60.5
    assert stated_time_s("1970-01-01T01:01:00+01:00") == 60.0
    assert stated_time_s("1970-01-01 00:01:00") == 60.0
    wrong: Callable[[str], float | None] = stated_time_s
    assert [wrong(text) for text in ("", "yesterday", "99999-01-01T00:00:00Z")] == [None] * 3
