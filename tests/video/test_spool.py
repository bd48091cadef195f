import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llava_video.errors import SourceError
from llava_video.video.settings import FetchSettings
from llava_video.video.spool import Deadline, check_size, public_url, spool


def test_public_url() -> None:
    url = "https://me:secret@example.org:8443/a%20b.mp4?token=1#t=5"
    assert public_url(url) == "https://example.org:8443/a%20b.mp4"
    assert public_url("http://me:s3cret/s3cret@127.0.0.1/a.mp4") == "http://..."


def _spool(chunks: list[bytes], stated: int | None = None, max_bytes: int = 10) -> bytes:
    settings = FetchSettings(max_bytes=max_bytes)
    with spool(iter(chunks), stated, "it", settings, Deadline(60)) as file:
        return Path(file.name).read_bytes()


def test_bytes_in_any_pieces() -> None:
    assert _spool([b"abc", b"", b"defg"]) == b"abcdefg"
    assert _spool([b"0123456789"], stated=10) == b"0123456789"  # just what is allowed


@pytest.mark.parametrize(
    ("chunks", "stated", "message"),
    [
        ([], None, "it is empty"),
        ([b"abc"], 4, "ended after 3 of 4 bytes"),
        ([b"0123456789", b"x"], None, "it is larger than 10 bytes"),
    ],
)
def test_what_ends_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chunks: list[bytes],
    stated: int | None,
    message: str,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SourceError, match=message):
        _spool(chunks, stated)
    assert list(tmp_path.iterdir()) == []


def test_too_late() -> None:
    given = []

    def slowly() -> Iterator[bytes]:
        while True:
            given.append(b"xy")
            yield b"xy"
            time.sleep(0.02)

    with pytest.raises(SourceError, match=r"it: \d+ bytes after 0\.1 s, and not the end"):
        spool(slowly(), None, "it", FetchSettings(timeout_s=0.1), Deadline(0.1))
    assert 1 < len(given) < 20


def test_a_deadline() -> None:
    assert Deadline(60).wait_s() == pytest.approx(60, abs=1)
    assert Deadline(60, most_silent_s=2).wait_s() == 2
    assert not Deadline(60).is_over
    over = Deadline(-1, most_silent_s=2)
    assert over.is_over
    with pytest.raises(TimeoutError):
        over.wait_s()


def test_the_limit_itself_is_allowed() -> None:
    check_size(5, "it", FetchSettings(max_bytes=5))
    with pytest.raises(SourceError, match="larger than 5 bytes"):
        check_size(6, "it", FetchSettings(max_bytes=5))
