"""Downloads are tried against a server on this machine."""

import base64
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llava_video.errors import SourceError
from llava_video.video.fetch import decode_data_url, fetch, public_url
from llava_video.video.settings import FetchSettings

CONTENT = bytes(range(256)) * 400


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers by path; notes what it was asked."""

    seen: list[tuple[str, str | None]]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization")))
        name = self.path.split("?")[0].strip("/")
        answers: dict[str, Callable[[], None]] = {
            "good": lambda: self._give(CONTENT, len(CONTENT)),
            "a b": lambda: self._give(CONTENT, len(CONTENT)),
            "a%20b": lambda: self._give(CONTENT, len(CONTENT)),
            "unstated": lambda: self._give(CONTENT, None),
            "short": lambda: self._give(CONTENT[:100], len(CONTENT)),
            "empty": lambda: self._give(b"", 0),
            "lies": lambda: self._give(CONTENT, 10**12),
            "once": lambda: self._redirect("/good"),
            "loop": lambda: self._redirect("/loop"),
            "chain": lambda: self._redirect(f"/chain?{self.path.count('x') * 'x'}x"),
            "ftp": lambda: self._redirect("ftp://127.0.0.1/good"),
            "file": lambda: self._redirect("file:///etc/hostname"),
            "away": lambda: self._redirect(f"http://localhost:{self.server.server_port}/good"),
            "drip": self._drip,
            "private": lambda: self.send_error(401),
            "garbage": lambda: self.wfile.write(b"not http at all\r\n\r\n"),
        }
        answers.get(name, lambda: self.send_error(404))()

    def _give(self, content: bytes, length: int | None) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def _redirect(self, where: str) -> None:
        self.send_response(302)
        self.send_header("Location", where)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(100):
            try:
                self.wfile.write(b"x" * 10)
            except OSError:
                return
            time.sleep(0.02)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.ThreadingHTTPServer]:
    """Serve on a free port of this machine until the test ends."""
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    handler = type("Handler", (_Handler,), {"seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


def _url(server: http.server.ThreadingHTTPServer, path: str, user: str = "") -> str:
    return f"http://{user}127.0.0.1:{server.server_port}/{path}"


@pytest.mark.parametrize("path", ["good", "unstated", "once", "a b", "a%20b", "good?token=secret"])
def test_the_bytes_arrive_and_the_file_goes_when_closed(
    server: http.server.ThreadingHTTPServer, path: str
) -> None:
    file = fetch(_url(server, path), FetchSettings())
    assert Path(file.name).read_bytes() == CONTENT
    file.close()
    assert not Path(file.name).exists()


@pytest.mark.parametrize(
    ("path", "settings", "message"),
    [
        ("nothing", {}, "404"),
        ("private", {}, "401.*log in"),
        ("short", {}, "ended after 100 of 102400 bytes"),
        ("empty", {}, "empty"),
        ("lies", {"max_bytes": 10**6}, "larger than 1000000 bytes"),
        ("good", {"max_bytes": 5000}, "larger than 5000 bytes"),
        ("unstated", {"max_bytes": 5000}, "larger than 5000 bytes"),
        ("loop", {}, "redirects"),
        ("chain", {"max_redirects": 3}, "max_redirects"),
        ("once", {"max_redirects": 0}, "max_redirects"),
        ("ftp", {}, "redirects to a ftp address"),
        ("file", {}, "redirects"),
        ("drip", {"timeout_s": 0.3}, "not the end"),
        ("garbage", {}, "no valid HTTP"),
    ],
)
def test_what_ends_a_download(
    server: http.server.ThreadingHTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    settings: dict[str, float],
    message: str,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    started_s = time.monotonic()
    with pytest.raises(SourceError, match=message):
        fetch(_url(server, path), FetchSettings(**settings))
    assert not list(tmp_path.iterdir())
    assert time.monotonic() - started_s < 5


def test_redirects_are_followed_up_to_the_limit(server: http.server.ThreadingHTTPServer) -> None:
    with pytest.raises(SourceError):
        fetch(_url(server, "chain"), FetchSettings(max_redirects=3))
    assert len(server.RequestHandlerClass.seen) == 4


def test_a_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp4"
        with pytest.raises(SourceError, match=r"stopped answering|cannot be reached"):
            fetch(url, FetchSettings(timeout_s=0.2))


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SourceError, match=r"cannot be reached.*network"):
        fetch(f"http://127.0.0.1:{port}/a.mp4", FetchSettings(timeout_s=2))


def test_no_space(server: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llava_video.video.fetch._copy", full)
    with pytest.raises(SourceError, match=r"No space left on device.*free space"):
        fetch(_url(server, "good"), FetchSettings())


def test_a_password_goes_to_its_host_and_nowhere_else(
    server: http.server.ThreadingHTTPServer,
) -> None:
    fetch(_url(server, "away", user="me:p%40ss@"), FetchSettings()).close()
    token = "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert server.RequestHandlerClass.seen == [("/away", token), ("/good", None)]


@pytest.mark.parametrize(
    "url",
    [
        "http://me:s3cret@127.0.0.1:1/a.mp4?key=s3cret#s3cret",
        "http://me:s3cret@127.0.0.1:port/a.mp4",
        "http://me:s3cret/s3cret@127.0.0.1/a.mp4",
        "http://me:s3cret@[::1/a.mp4",
        "http://me:s3cret@/a.mp4",
    ],
)
def test_no_secret_reaches_a_message(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from llava_video.video.source import open_source

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(SourceError) as caught:
        open_source(url, fetch_settings=FetchSettings(timeout_s=1))
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cret" not in str(error)
        error = error.__cause__


def test_public_url() -> None:
    url = "https://me:secret@example.org:8443/a%20b.mp4?token=1#t=5"
    assert public_url(url) == "https://example.org:8443/a%20b.mp4"


def test_data_urls() -> None:
    text = base64.b64encode(CONTENT).decode()
    settings = FetchSettings()
    assert decode_data_url(f"data:video/mp4;base64,{text}", settings) == CONTENT
    assert decode_data_url("data:,a%20b", settings) == b"a b"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("data:video/mp4;base64", "comma"),
        ("data:video/mp4;base64,@@@@", "base64"),
        ("data:video/mp4;base64,abc", "base64"),
        ("data:," + "x" * 101, "larger than 100 bytes"),
        ("data:;base64," + "x" * 500, "larger than 100 bytes"),
    ],
)
def test_bad_data_urls(url: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        decode_data_url(url, FetchSettings(max_bytes=100))
