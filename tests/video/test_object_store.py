"""Objects come out of fsspec's file system in memory, which stands in for the services."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

fsspec = pytest.importorskip("fsspec")

from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402 - after the skip
from fsspec.registry import _registry  # noqa: E402

from llava_video import backends  # noqa: E402
from llava_video.errors import BackendMissingError, SourceError  # noqa: E402
from llava_video.video import object_store  # noqa: E402
from llava_video.video.object_store import fetch_object  # noqa: E402
from llava_video.video.settings import FetchSettings  # noqa: E402
from llava_video.video.source import open_source  # noqa: E402

CONTENT = bytes(range(256)) * 40  # 10,240 bytes


class _Store(MemoryFileSystem):
    """A service of our own, with what can go wrong in one."""

    store: dict[str, Any] = {}  # noqa: RUF012 - as its parent keeps it
    problem: Exception | None = None

    def info(self, path: str, **kwargs: Any) -> Any:
        if self.problem:
            raise self.problem
        return super().info(path, **kwargs)


@pytest.fixture(params=["s3", "gs"])
def scheme(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the store stand in for a service; the service's own package is taken for installed."""
    monkeypatch.setattr(_Store, "store", {})
    monkeypatch.setitem(_registry, request.param, _Store)
    monkeypatch.setattr(
        object_store, "require", lambda name: fsspec if name == "fsspec" else SimpleNamespace()
    )
    _Store().pipe(f"{request.param}://bucket/a b.mp4", CONTENT)
    _Store().pipe(f"{request.param}://bucket/empty.mp4", b"")
    _Store().pipe(f"{request.param}://bucket/folder/c.mp4", CONTENT)
    return str(request.param)


def test_the_bytes_arrive_and_the_file_goes_when_closed(scheme: str) -> None:
    source = open_source(f"{scheme}://bucket/a b.mp4")
    assert (source.kind, source.name) == ("path", f"{scheme}://bucket/a b.mp4")
    assert source.path is not None
    path = source.path
    assert path.read_bytes() == CONTENT
    del source
    assert not path.exists()


def test_the_scheme_in_capitals(scheme: str) -> None:
    with pytest.raises(SourceError, match="is not there"):
        open_source(f"{scheme.upper()}://bucket/none.mp4")


@pytest.mark.parametrize(
    ("place", "settings", "message"),
    [
        ("bucket/none.mp4", {}, r"is not there.*check the bucket"),
        ("bucket/empty.mp4", {}, "is empty"),
        ("bucket/a b.mp4", {"max_bytes": 10_239}, "larger than 10239 bytes"),
        ("bucket/a b.mp4::file:///etc/hostname", {}, "not one bucket and one key"),
        ("me:s3cret@bucket/a b.mp4", {}, r"not one bucket.*configured for fsspec"),
        ("bucket", {}, r"not one bucket and one key.*://bucket/key"),
        ("", {}, "not one bucket and one key"),
        ("bucket/folder", {}, "is a folder"),
    ],
)
def test_what_ends_a_copy(
    scheme: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    settings: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SourceError, match=message) as caught:
        fetch_object(f"{scheme}://{place}", FetchSettings(**settings))
    assert "s3cret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_size_that_is_not_stated_does_not_lift_the_limit(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Store, "info", lambda *_, **__: {"size": None, "type": "file"})
    url = f"{scheme}://bucket/a b.mp4"
    fetch_object(url, FetchSettings(max_bytes=10_240)).close()
    with pytest.raises(SourceError, match="larger than 10239 bytes"):
        fetch_object(url, FetchSettings(max_bytes=10_239))


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("bucket/", ["a b.mp4", "empty.mp4", "folder/c.mp4"]),
        ("bucket", ["a b.mp4", "empty.mp4", "folder/c.mp4"]),
        ("bucket/folder", ["folder/c.mp4"]),
        ("bucket/*.mp4", ["a b.mp4", "empty.mp4"]),
        ("bucket/nothing/", []),
    ],
)
def test_what_is_in_a_bucket(scheme: str, place: str, names: list[str]) -> None:
    found = object_store.list_objects(f"{scheme}://{place}", FetchSettings())
    # The store in memory keeps no name of a bucket apart from its scheme.
    assert [name.partition("bucket/")[2] for name in found] == names
    assert all(name.startswith(f"{scheme}://") for name in found)


@pytest.mark.parametrize("place", ["", "me:s3cret@bucket/", "bucket/::file:///etc/"])
@pytest.mark.parametrize("ask", [object_store.list_objects, object_store.object_version])
def test_what_is_no_bucket_is_not_asked(scheme: str, place: str, ask: Any) -> None:
    with pytest.raises(SourceError, match="not one bucket") as caught:
        ask(f"{scheme}://{place}", FetchSettings())
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("facts", "version"),
    [
        ({"ETag": '"5d41"', "size": 7}, (7, '"5d41"')),
        ({"etag": "CJ=", "generation": "3", "size": 0}, (0, "CJ=")),
        ({"generation": 17, "size": None}, (0, "17")),
        ({"size": 7}, None),
    ],
)
def test_the_mark_of_a_version(
    scheme: str, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], version: Any
) -> None:
    monkeypatch.setattr(_Store, "info", lambda *_, **__: facts)
    assert object_store.object_version(f"{scheme}://bucket/a b.mp4", FetchSettings()) == version


def test_asking_ends_in_errors_of_ours(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Store, "find", lambda *_, **__: time.sleep(1))
    with pytest.raises(SourceError, match=r"no answer after 0\.1 s"):
        object_store.list_objects(f"{scheme}://bucket/", FetchSettings(timeout_s=0.1))
    monkeypatch.setattr(_Store, "problem", PermissionError("s3cret"))
    with pytest.raises(SourceError, match="may not be read"):
        object_store.object_version(f"{scheme}://bucket/a b.mp4", FetchSettings())


def test_too_slow(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = object_store._chunks

    def slowly(*arguments: Any) -> Any:
        for chunk in read(*arguments):
            time.sleep(0.1)
            yield chunk

    monkeypatch.setattr(object_store, "_CHUNK_BYTES", 256)
    monkeypatch.setattr(object_store, "_chunks", slowly)
    with pytest.raises(SourceError, match=r"bytes after 0\.5 s, and not the end"):
        fetch_object(f"{scheme}://bucket/a b.mp4", FetchSettings(timeout_s=0.5))


@pytest.mark.parametrize("method", ["info", "open"])
def test_a_client_that_hangs_is_left_to_itself(
    scheme: str, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    release = threading.Event()
    monkeypatch.setattr(_Store, method, lambda *_, **__: release.wait(20))
    started_s = time.monotonic()
    with pytest.raises(SourceError, match=r"no answer after 0\.2 s, and not the end"):
        fetch_object(f"{scheme}://bucket/a b.mp4", FetchSettings(timeout_s=0.2))
    assert time.monotonic() - started_s < 1.2
    release.set()


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (PermissionError("s3cret"), r"may not be read.*credentials"),
        (OSError(5, "s3cret"), "Input/output error"),
        (ConnectionError("s3cret"), "ConnectionError"),
        (RuntimeError("https://bucket.example/?Signature=s3cret"), "RuntimeError"),
    ],
)
def test_a_clients_own_words_are_not_repeated(
    scheme: str, monkeypatch: pytest.MonkeyPatch, problem: Exception, message: str
) -> None:
    monkeypatch.setattr(_Store, "problem", problem)
    with pytest.raises(SourceError, match=message) as caught:
        fetch_object(f"{scheme}://bucket/a b.mp4", FetchSettings())
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(("scheme_", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, scheme_: str, package: str
) -> None:
    monkeypatch.setattr(backends, "version", lambda _: None)
    with pytest.raises(BackendMissingError, match=rf"{package}.*pip install.*llava_video\[cloud\]"):
        open_source(f"{scheme_}://bucket/a.mp4")
