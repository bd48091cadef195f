"""Equal bytes have one hash; a file that was hashed is read again only when it may have changed."""

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from llava_video.archive import content
from llava_video.archive.content import FileStamp, content_hash, is_unchanged, local_path
from llava_video.archive.ledger import Ledger
from llava_video.errors import ChangedFileError, SourceError
from llava_video.video.settings import FetchSettings
from llava_video.video.source import Source

BYTES = bytes(range(256)) * 20_000  # more than one piece


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "a.mp4"
    path.write_bytes(BYTES)
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the files that were read for their hash."""
    read, seen = content._hash_file, []

    def noted(path: Path) -> tuple[str, FileStamp]:
        seen.append(path)
        return read(path)

    monkeypatch.setattr(content, "_hash_file", noted)
    return seen


def test_the_hash_is_the_sha256_of_the_bytes(video: Path) -> None:
    assert content_hash(str(video)) == hashlib.sha256(BYTES).hexdigest()
    assert content_hash(video.as_uri()) == hashlib.sha256(BYTES).hexdigest()


def test_a_data_url_is_its_bytes() -> None:
    assert content_hash("data:video/mp4;base64,YWJj") == hashlib.sha256(b"abc").hexdigest()


def test_a_known_file_is_not_read_again(video: Path, ledger: Ledger, reads: list[Path]) -> None:
    found = [content_hash(str(video), ledger) for _ in range(3)]
    assert found == [hashlib.sha256(BYTES).hexdigest()] * 3
    assert reads == [video]


def test_a_moved_file_is_not_read_again(video: Path, ledger: Ledger, reads: list[Path]) -> None:
    before = content_hash(str(video), ledger)
    moved = video.rename(video.with_name("b.mp4"))
    assert content_hash(str(moved), ledger) == before
    assert reads == [video]


def test_a_copy_is_read_and_has_the_same_hash(
    video: Path, ledger: Ledger, reads: list[Path]
) -> None:
    copy = video.with_name("b.mp4")
    copy.write_bytes(BYTES)
    assert content_hash(str(copy), ledger) == content_hash(str(video), ledger)
    assert reads == [copy, video]


@pytest.mark.parametrize("shift_ns", [0, -(10**18), 10**18])
def test_a_change_is_noticed_whatever_the_clock_says(
    video: Path, ledger: Ledger, shift_ns: int
) -> None:
    status = video.stat()
    before = content_hash(str(video), ledger)
    with video.open("r+b") as file:
        file.write(b"X")
    # Same length, and a time of change that is the old one, or far in the past or the future.
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns + shift_ns))
    assert not is_unchanged(str(video), before, ledger)
    assert content_hash(str(video), ledger) == hashlib.sha256(b"X" + BYTES[1:]).hexdigest()


def test_a_file_from_the_future_is_known_too(video: Path, ledger: Ledger, reads: list) -> None:
    os.utime(video, (2**33, 2**33))
    content_hash(str(video), ledger)
    content_hash(str(video), ledger)
    assert reads == [video]


def test_is_unchanged_until_it_changes(video: Path, ledger: Ledger) -> None:
    before = content_hash(str(video), ledger)
    assert is_unchanged(str(video), before, ledger)
    assert not is_unchanged(str(video), "another", ledger)
    video.unlink()
    assert not is_unchanged(str(video), before, ledger)
    assert is_unchanged("https://example.org/a.mp4", "anything", ledger)


class _Meddler:
    """Remembers nothing, and is asked in the midst of a hash."""

    def __init__(self, meddle: object) -> None:
        self.meddle, self.kept = meddle, []

    def known_hash(self, stamp: FileStamp) -> str | None:
        self.meddle()
        return None

    def keep_hash(self, stamp: FileStamp, found: str) -> None:
        self.kept.append(found)


def test_a_file_that_grows_while_it_is_read_is_noticed(video: Path) -> None:
    def grow() -> None:
        with video.open("ab") as file:
            file.write(b"more")

    store = _Meddler(grow)
    with pytest.raises(ChangedFileError, match=r"changed while it was read.*retry"):
        content_hash(str(video), store)
    assert store.kept == []


def test_a_file_that_is_replaced_while_it_is_read_is_noticed(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sha:
        def __init__(self) -> None:
            self.inner = hashlib.blake2b()

        def update(self, piece: bytes) -> None:
            other = video.with_name("other")
            other.write_bytes(BYTES)
            other.replace(video)

        def hexdigest(self) -> str:
            return self.inner.hexdigest()

    monkeypatch.setattr(content.hashlib, "sha256", Sha)
    with pytest.raises(ChangedFileError):
        content_hash(str(video))


@pytest.mark.parametrize("name", ["none.mp4", "", "empty.mp4"])
def test_what_cannot_be_hashed_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(SourceError):
        content_hash(str(tmp_path / name))


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("a b.mp4", "a b.mp4"),
        ("file:///a%20b.mp4", "/a b.mp4"),
        ("https://example.org/a.mp4", None),
        ("s3://bucket/a.mp4", None),
        ("data:video/mp4;base64,YWJj", None),
    ],
)
def test_local_paths(address: str, path: str | None) -> None:
    assert local_path(address) == (None if path is None else Path(path))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """Stand for a bucket of one object: its bytes, its mark, and how often it was fetched."""
    found = SimpleNamespace(content=b"abc", mark="v1", fetched=0, during=lambda: None)

    def opened(address: str, **_: object) -> Source:
        found.fetched += 1
        content = found.content
        found.during()
        return Source(kind="bytes", name=address, content=content)

    def version(url: str, settings: FetchSettings) -> tuple[int, str] | None:
        return found.mark and (len(found.content), found.mark)

    monkeypatch.setattr(content, "open_source", opened)
    monkeypatch.setattr(content, "object_version", version)
    return found


def test_an_object_is_fetched_once_per_version(ledger: Ledger, bucket: SimpleNamespace) -> None:
    def hashed(address: str = "s3://b/a.mp4") -> str:
        return content_hash(address, ledger)

    assert hashed() == hashed() == hashlib.sha256(b"abc").hexdigest()
    assert bucket.fetched == 1
    bucket.content, bucket.mark = b"abx", "v2"  # of the same length
    assert hashed() == hashlib.sha256(b"abx").hexdigest()
    assert bucket.fetched == 2
    # Marks of two objects say nothing of one another.
    hashed("s3://b/b.mp4")
    assert bucket.fetched == 3
    bucket.mark = None
    assert hashed() == hashed()
    assert bucket.fetched == 5


def test_a_version_that_comes_meanwhile_lends_no_mark(
    ledger: Ledger, bucket: SimpleNamespace
) -> None:
    def replaced() -> None:
        bucket.content, bucket.mark, bucket.during = b"abx", "v2", lambda: None

    bucket.during = replaced
    assert content_hash("s3://b/a.mp4", ledger) == hashlib.sha256(b"abc").hexdigest()
    assert content_hash("s3://b/a.mp4", ledger) == hashlib.sha256(b"abx").hexdigest()
    assert content_hash("s3://b/a.mp4", ledger) == hashlib.sha256(b"abx").hexdigest()
    assert bucket.fetched == 2


def test_what_http_serves_is_fetched_each_time(ledger: Ledger, bucket: SimpleNamespace) -> None:
    for _ in range(2):
        content_hash("https://example.org/a.mp4", ledger)
    assert bucket.fetched == 2


def test_inode_numbers_of_all_64_bits_are_kept(ledger: Ledger) -> None:
    stamp = FileStamp(path="/a", device=1, inode=content._signed(2**64 - 1), size_bytes=1,
                      mtime_ns=2, ctime_ns=3)  # fmt: skip
    ledger.keep_hash(stamp, "c")
    assert ledger.known_hash(stamp) == "c"
    assert stamp.inode == -1
