"""Connections go where was judged and nowhere else, encrypted ones by the name's certificate."""

import http.server
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llava_video.errors import SourceError
from llava_video.video.connections import TimedSocket, connect
from llava_video.video.fetch import fetch
from llava_video.video.settings import FetchSettings
from llava_video.video.spool import Deadline

LOCAL = FetchSettings(allow_private=True)


def _place(address: str, port: int = 80) -> tuple[Any, ...]:
    return socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)


def test_a_name_that_resolves_otherwise_a_moment_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the first answer is public, every later one is this machine."""
    answers = iter(["8.8.8.8"])
    went: list[Any] = []

    def note(self: TimedSocket, place: Any) -> None:
        went.append(place)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [_place(next(answers, "127.0.0.1"))]
    )
    monkeypatch.setattr(TimedSocket, "connect", note)
    with pytest.raises(SourceError, match="cannot be reached"):
        fetch("http://rebinding.example/a.mp4", FetchSettings(timeout_s=5))
    assert went == [("8.8.8.8", 80)]
    # The wrong way, a second look: it would have gone here.
    assert socket.getaddrinfo("rebinding.example", 80)[0][4] == ("127.0.0.1", 80)
    with pytest.raises(SourceError, match="loopback"):
        fetch("http://rebinding.example/a.mp4", FetchSettings(timeout_s=5))
    assert len(went) == 1


def test_the_next_address_when_one_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        # Nobody listens on the first; 127.0.0.2 is this machine, too.
        places = [_place("127.0.0.2", port), _place("127.0.0.1", port)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: places)
        connection = connect("two.example", port, Deadline(5), allow_private=True)
        assert connection.getpeername() == ("127.0.0.1", port)
        connection.close()
    with pytest.raises(ConnectionRefusedError):
        connect("two.example", port, Deadline(5), allow_private=True)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    with pytest.raises(ConnectionError, match="has no address"):
        connect("none.example", port, Deadline(5), allow_private=True)


def test_no_read_outlasts_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = connect(
            "127.0.0.1", server.getsockname()[1], Deadline(0.1), allow_private=True
        )
        with connection, connection.makefile("rb") as file, pytest.raises(TimeoutError):
            file.read(1)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a key and a certificate of videos.example that signs itself."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl program")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=videos.example"),
            *("-addext", "subjectAltName=DNS:videos.example"),
            *("-keyout", str(path), "-out", str(path.with_suffix(".crt"))),
        ],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


@pytest.fixture
def tls_port(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Serve encrypted on this machine, under any name that ends in .example."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"video")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        port = server.server_port
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [_place("127.0.0.1", port)])
        yield port
        server.shutdown()


def test_the_certificate_is_the_names(tls_port: int) -> None:
    with fetch(f"https://videos.example:{tls_port}/a.mp4", LOCAL) as file:
        assert Path(file.name).read_bytes() == b"video"
    for other in ("other.example", "127.0.0.1"):  # the same address, not on the certificate
        with pytest.raises(SourceError, match=r"cannot be reached.*CERTIFICATE_VERIFY_FAILED"):
            fetch(f"https://{other}:{tls_port}/a.mp4", LOCAL)


def test_encrypted_hops_are_judged_too(tls_port: int) -> None:
    with pytest.raises(SourceError, match=r"videos\.example \(127\.0\.0\.1\) is a loopback"):
        fetch(f"https://videos.example:{tls_port}/a.mp4", FetchSettings())


def test_a_silent_handshake_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/a.mp4"
        with pytest.raises(SourceError, match=r"no answer after 0\.2 s"):
            fetch(url, FetchSettings(allow_private=True, timeout_s=0.2))
