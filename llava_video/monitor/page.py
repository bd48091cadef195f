"""A board → a live page, meters and a health check over HTTP.

The standard library's server: a handful of addresses that are only read, for a few viewers, and a
base install without another package. Listens on this machine unless a host is named. Knows no
secret: what it shows is the board's. Other sites' pages cannot read it: the Host header is checked
against names that lead elsewhere, and nothing is shared across origins.
"""

import ipaddress
import json
import logging
import re
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from llava_video.errors import BackendMissingError, ConfigError
from llava_video.monitor.board import Board
from llava_video.monitor.meters import CONTENT_TYPE, metrics_text

_log = logging.getLogger(__name__)

_SITE: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FRAME = re.compile(r"/frame/(\d{1,4})\.jpg")
_EVIDENCE = re.compile(r"/evidence/([0-9a-f]{32}-(?:snapshot|sheet|clip)\.(?:jpg|mp4))")
_TYPES: Final = {".jpg": "image/jpeg", ".mp4": "video/mp4"}
_MOST_VIEWERS: Final = 16
_LEAST_S: Final = 0.25  # between two events, so that a busy watch does not drown a browser
_MOST_S: Final = 5.0  # without news: a viewer that has gone is noticed


def page_address(text: str) -> tuple[str, int]:
    """Read HOST:PORT, :PORT or PORT; without a host it is this machine alone.

    >>> page_address(":8080"), page_address("0.0.0.0:80"), page_address("[::1]:8080")
    (('127.0.0.1', 8080), ('0.0.0.0', 80), ('::1', 8080))

    Raises:
        ConfigError: it is none of these.
    """
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 <= int(port) < 2**16:
        raise ConfigError(f"--page {text}.", "HOST:PORT, or :8080 for this machine alone.")
    return host.strip("[]") or "127.0.0.1", int(port)


def is_local(host: str) -> bool:
    """Say whether only this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class LivePage:
    """Serves the page; a context manager that starts and stops it.

    Args:
        board: what is shown.
        evidence: folder of alerts' pictures.
        host: where it listens.
        port: 0 takes a free one.

    Attributes:
        address: http://HOST:PORT/.

    Raises:
        ConfigError: it cannot listen there.
    """

    def __init__(
        self, board: Board, evidence: Path, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.board, self.evidence = board, evidence
        self.is_local = is_local(host)
        self.viewers = threading.BoundedSemaphore(_MOST_VIEWERS)
        self.is_closed = threading.Event()
        page = self

        class Handler(_Handler):
            live = page

        family = _Server6 if ":" in host else _Server
        try:
            self._server = family((host, port), Handler)
        except OSError as cause:
            raise ConfigError(
                f"the page cannot listen on {host}:{port}: {cause.strerror}.", "another port."
            ) from cause
        shown = f"[{host}]" if ":" in host else host
        self.port = int(self._server.server_address[1])
        self.address = f"http://{shown}:{self.port}/"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="page", daemon=True
        )

    def __enter__(self) -> "LivePage":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.is_closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a viewer that hangs holds up no end

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of viewers that go away."""
        del request, client_address
        _log.debug("a viewer of the page has gone", exc_info=True)


class _Server6(_Server):
    import socket

    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    live: LivePage
    timeout = 30.0
    server_version, sys_version = "llava-video", ""

    def do_GET(self) -> None:
        """Answer one request."""
        path = unquote(urlsplit(self.path).path)
        if not self._is_ours():
            self._send(HTTPStatus.MISDIRECTED_REQUEST, b"another host's name", "text/plain")
        elif path in _SITE:
            name, kind = _SITE[path]
            site = resources.files("llava_video.monitor").joinpath("site")
            self._send(HTTPStatus.OK, site.joinpath(name).read_bytes(), kind)
        elif path == "/events":
            self._events()
        elif path in _PLAIN:
            _PLAIN[path](self)
        else:
            self._picture(path)

    def do_HEAD(self) -> None:
        """Answer as GET without a body, for checks of health."""
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Log requests where somebody wants to see them."""
        _log.debug(format, *args)

    def _state(self) -> None:
        self._send(HTTPStatus.OK, self._facts(), "application/json")

    def _health(self) -> None:
        facts = self.live.board.facts()
        states = {one["name"]: one["state"] for one in facts["cameras"]}
        # Pictures that come and are never answered raise no alert, however live they are.
        failing = [one["name"] for one in facts["cameras"] if one["failing"]]
        is_well = not facts["ended"] and "live" in states.values() and not failing
        found = {"ok": is_well, "cameras": states, "failing": failing}
        body = json.dumps(found, ensure_ascii=False).encode()
        status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
        self._send(status, body, "application/json")

    def _metrics(self) -> None:
        try:
            body = metrics_text(self.live.board.facts())
        except BackendMissingError as error:
            self._send(HTTPStatus.NOT_IMPLEMENTED, str(error).encode(), "text/plain")
            return
        self._send(HTTPStatus.OK, body, CONTENT_TYPE)

    def _picture(self, path: str) -> None:
        frame, evidence = _FRAME.fullmatch(path), _EVIDENCE.fullmatch(path)
        body, kind = None, "image/jpeg"
        if frame and int(frame[1]) < len(self.live.board.cameras):
            body = self.live.board.frame_jpeg(self.live.board.cameras[int(frame[1])])
        elif evidence:
            file = self.live.evidence / evidence[1]
            kind = _TYPES[file.suffix]
            try:
                body = file.read_bytes()
            except OSError:  # it has outlived its time
                body = None
        if body is None:
            self._send(HTTPStatus.NOT_FOUND, b"nothing here", "text/plain")
        else:
            self._send(HTTPStatus.OK, body, kind)

    def _events(self) -> None:
        if not self.live.viewers.acquire(blocking=False):
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, b"too many viewers", "text/plain")
            return
        try:
            self._head(HTTPStatus.OK, "text/event-stream")
            self.end_headers()
            version = -1
            if self.command == "HEAD":
                return
            is_over = False
            while not is_over:
                version = self.live.board.wait(version, _MOST_S)
                is_over = self.live.board.is_ended or self.live.is_closed.is_set()
                self.wfile.write(b"retry: 1000\ndata: " + self._facts() + b"\n\n")
                self.live.is_closed.wait(_LEAST_S)
        finally:
            self.live.viewers.release()

    def _facts(self) -> bytes:
        return json.dumps(self.live.board.facts(), ensure_ascii=False, default=str).encode()

    def _is_ours(self) -> bool:
        """Refuse names that another site leads here (DNS rebinding)."""
        if not self.live.is_local:  # under which names it is known is its owner's choice
            return True
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        return host is not None and is_local(host)

    def _head(self, status: HTTPStatus, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self._head(status, kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


_PLAIN = {"/state": _Handler._state, "/health": _Handler._health, "/metrics": _Handler._metrics}
