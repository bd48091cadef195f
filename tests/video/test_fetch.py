"""Downloads are tried against a server on this machine, which has to be allowed for that."""

import base64
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llava_video.errors import SourceError
from llava_video.video import hosts
from llava_video.video.fetch import decode_data_url, fetch
from llava_video.video.settings import FetchSettings

CONTENT = bytes(range(256)) * 400
# Without the allowance nothing on this machine answers: `test_private_addresses_are_refused`.
LOCAL = FetchSettings(allow_private=True)


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
            "away": lambda: self._redirect(f"http://localhost:{self._port}/good"),
            "drip": self._drip,
            "headers": lambda: self._for_ever(b"X-Drip: drop\r\n"),
            "endless": self._endless_redirect,
            "mapped": lambda: self._redirect(f"http://[::ffff:127.0.0.1]:{self._port}/good"),
            "inside": lambda: self._redirect(f"http://inside.example:{self._port}/good?k=s3cret"),
            "private": lambda: self.send_error(401),
            "garbage": lambda: self.wfile.write(b"not http at all\r\n\r\n"),
        }
        answers.get(name, lambda: self.send_error(404))()

    @property
    def _port(self) -> int:
        assert isinstance(self.server, http.server.HTTPServer)
        return self.server.server_port

    def _for_ever(self, drop: bytes) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(60):
            try:
                self.wfile.write(drop)
            except OSError:
                return
            time.sleep(0.05)

    def _endless_redirect(self) -> None:
        self.send_response(302)
        self.send_header("Location", "/good")
        self.end_headers()
        for _ in range(60):
            try:
                self.wfile.write(b"x" * 1000)
            except OSError:
                return
            time.sleep(0.05)

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
    file = fetch(_url(server, path), LOCAL)
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
        ("chain", {"max_redirects": 20}, "max_redirects"),  # urllib stops at 10 by itself
        ("loop", {"max_redirects": 20}, "max_redirects"),
        ("once", {"max_redirects": 0}, "max_redirects"),
        ("ftp", {}, "redirects to a ftp address"),
        ("file", {}, "redirects"),
        ("drip", {"timeout_s": 0.3}, "not the end"),
        ("garbage", {}, "no valid HTTP"),
        ("headers", {"timeout_s": 0.4}, "no answer after 0.4 s, and not the end"),
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
        fetch(_url(server, path), replace(LOCAL, **settings))
    assert not list(tmp_path.iterdir())
    assert time.monotonic() - started_s < 5


def test_the_body_of_a_redirect_is_not_read(server: http.server.ThreadingHTTPServer) -> None:
    started_s = time.monotonic()
    fetch(_url(server, "endless"), LOCAL).close()
    assert time.monotonic() - started_s < 2  # the body takes 3 s


def _pretend(monkeypatch: pytest.MonkeyPatch, *public: str) -> None:
    """Let these names lead to this machine, and take 127.0.0.1 under them for a public address.

    The other addresses of this machine stay what they are.
    """
    real, refusal = socket.getaddrinfo, hosts.refusal
    asked: list[str] = []

    def getaddrinfo(host: str, *rest: Any, **options: Any) -> list[Any]:
        asked.append(host)
        is_ours = host.endswith(".example")
        return real("127.0.0.1" if is_ours else host, *rest, **options)

    def judge(address: str) -> str | None:
        return None if asked[-1] in public and address == "127.0.0.1" else refusal(address)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(hosts, "refusal", judge)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"])
def test_private_addresses_are_refused(server: http.server.ThreadingHTTPServer, host: str) -> None:
    url = f"http://me:s3cret@{host}:{server.server_port}/good?key=s3cret"
    with pytest.raises(SourceError, match=r"loopback address.*allow_private=True") as caught:
        fetch(url, FetchSettings())
    assert "s3cret" not in str(caught.value)
    assert server.RequestHandlerClass.seen == []


@pytest.mark.parametrize("path", ["inside", "away", "mapped"])
def test_every_hop_is_judged(
    server: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    _pretend(monkeypatch, "public.example")
    public = f"http://public.example:{server.server_port}"
    fetch(f"{public}/once", FetchSettings()).close()
    server.RequestHandlerClass.seen.clear()
    with pytest.raises(SourceError, match=r"public\.example.*loopback address") as caught:
        fetch(f"{public}/{path}", FetchSettings())
    assert "s3cret" not in str(caught.value)
    # The first hop was made, the second was not; with the allowance it is.
    assert [asked for asked, _ in server.RequestHandlerClass.seen] == [f"/{path}"]
    if path != "mapped":  # which needs a server that listens on IPv6
        fetch(f"{public}/{path}", LOCAL).close()


def test_a_proxy_is_used_only_where_private_addresses_are(
    server: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    _pretend(monkeypatch, "public.example")
    # A port where nobody listens: only the proxy gives an answer.
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    url = f"http://public.example:{port}/good"
    with pytest.raises(SourceError, match=r"cannot be reached.*proxy is used with allow_private"):
        fetch(url, FetchSettings())
    assert server.RequestHandlerClass.seen == []
    with pytest.raises(SourceError, match="404"):  # this server is no proxy, but was asked
        fetch(url, LOCAL)
    assert server.RequestHandlerClass.seen == [(url, None)]
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.server_port}")
    with pytest.raises(SourceError, match="Tunnel connection failed: 501"):
        fetch("https://public.example/good", LOCAL)


def test_redirects_are_followed_up_to_the_limit(server: http.server.ThreadingHTTPServer) -> None:
    with pytest.raises(SourceError):
        fetch(_url(server, "chain"), replace(LOCAL, max_redirects=3))
    assert len(server.RequestHandlerClass.seen) == 4


def test_a_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp4"
        with pytest.raises(SourceError, match=r"no answer after 0\.2 s"):
            fetch(url, replace(LOCAL, timeout_s=0.2))


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SourceError, match=r"cannot be reached.*network"):
        fetch(f"http://127.0.0.1:{port}/a.mp4", replace(LOCAL, timeout_s=2))


def test_no_space(server: http.server.ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llava_video.video.fetch.spool", full)
    with pytest.raises(SourceError, match=r"No space left on device.*free space"):
        fetch(_url(server, "good"), LOCAL)


def test_a_password_goes_to_its_host_and_nowhere_else(
    server: http.server.ThreadingHTTPServer,
) -> None:
    fetch(_url(server, "away", user="me:p%40ss@"), LOCAL).close()
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
        open_source(url, fetch_settings=replace(LOCAL, timeout_s=1))
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cret" not in str(error)
        error = error.__cause__


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
