"""Addresses: what FFmpeg gets, what people may read, and what is refused before anything starts."""

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_video.errors import SourceError
from llava_video.video.settings import StreamSettings
from llava_video.video.stream_address import is_live, shown_address, stream_address

SETTINGS = StreamSettings()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://me:secret@10.0.0.7:554/ch1", "rtsp://10.0.0.7:554/ch1"),
        ("rtsp://10.0.0.7/ch1?user=me&password=secret#x", "rtsp://10.0.0.7/ch1"),
        ("rtsp://10.0.0.7/user=me_password=secret_ch=1.sdp", "rtsp://10.0.0.7/..."),
        ("rtsp://me:se/cret@10.0.0.7/ch1", "rtsp://..."),
        ("rtsp://me:sec@ret@10.0.0.7/ch1", "rtsp://10.0.0.7/ch1"),
        ("http://[::1/secret", "http://..."),
        ("/dev/video0", "/dev/video0"),
        ("a=b.mp4", "a=b.mp4"),
        ("a@b.mp4", "a@b.mp4"),
        ("me:s3cr@host/ch1", "...host/ch1"),
        ("rtsp:/me:s3cr@host/x", "...host/x"),
        ("//me:s3@cr@host/x", "...host/x"),
        ("rtsp://me:12/34@host/ch1", "rtsp://..."),
    ],
)
def test_what_people_read(text: str, shown: str) -> None:
    assert shown_address(text) == shown


@given(
    st.text(min_size=1, max_size=8).map(lambda text: "SECRET" + quote(text, safe="")),
    st.sampled_from(["rtsp", "rtsps", "http", "https", "tcp", "udp"]),
    st.sampled_from(
        ["{s}://me:{p}@host/a", "{s}://{p}@host:1/a", "{s}://host/a?{p}", "{s}://host/pw={p}/a"]
    ),
)
def test_no_password_is_shown(password: str, scheme: str, form: str) -> None:
    text = form.format(s=scheme, p=password)
    address = stream_address(text, SETTINGS)
    assert "SECRET" not in address.shown
    assert "SECRET" not in repr(address)
    assert address.url == text  # and it is sent


def test_each_kind(tmp_path: Path) -> None:
    file = tmp_path / "a b.mp4"
    file.write_bytes(b"x")
    cases = {
        "rtsp://host/a": ("rtsp", "rtsp://host/a"),
        "HTTP://host/a.m3u8": ("http", "HTTP://host/a.m3u8"),
        "tcp://host:1": ("tcp", "tcp://host:1"),
        "udp://127.0.0.1:1": ("udp", "udp://127.0.0.1:1"),
        "/dev/video3": ("device", "/dev/video3"),
        "v4l2:///dev/video3": ("device", "/dev/video3"),
        str(file): ("file", f"file:{file}"),
        f"file://{quote(str(file))}": ("file", f"file:{file}"),
    }
    for text, (kind, url) in cases.items():
        address = stream_address(text, SETTINGS)
        assert (address.kind, address.url) == (kind, url)
        assert address.is_live == (kind != "file")


def test_what_is_told_to_ffmpeg() -> None:
    by_udp = stream_address("rtsp://host/a", StreamSettings(transport="udp")).options
    assert by_udp["rtsp_transport"] == "udp"
    assert stream_address("rtsp://host/a", SETTINGS).options["rtsp_transport"] == "tcp"
    # A playlist from a camera must not read our files.
    for text in ("rtsp://host/a", "http://host/a.m3u8", "tcp://host:1", "udp://host:1"):
        assert "file" not in stream_address(text, SETTINGS).options["protocol_whitelist"].split(",")


def test_a_file_that_grows_is_followed(tmp_path: Path) -> None:
    file = tmp_path / "a.ts"
    file.write_bytes(b"x")
    assert stream_address(file, StreamSettings(pace="follow")).options["follow"] == "1"
    assert "follow" not in stream_address(file, SETTINGS).options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gopher://host/a", "gopher:// addresses are no streams.*supported: rtsp"),
        ("rtsp:///a", "names no host"),
        ("rtsp://me:SECRET/x@host/a", "malformed.*%2F"),
        ("no_such_file.mp4", "is not there"),
        (".", "is a folder"),
    ],
)
def test_refused_before_anything_starts(text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        stream_address(text, SETTINGS)
    assert "SECRET" not in str(caught.value)


def test_what_may_go_on_for_ever() -> None:
    live = ("rtsp://host/a", "HTTP://host/a", "udp://:1", "/dev/video0", "gopher://host/a")
    assert [is_live(text) for text in live] == [True] * 5
    assert [is_live(text) for text in ("a.mp4", "/a/b.mp4", "file:///a.mp4")] == [False] * 3
