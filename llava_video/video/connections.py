"""A judged address → an HTTP connection to it that does not outlast its download's deadline.

The name that was asked for stays the one in the Host header and on the certificate. The system's
look-up of a name has time limits of its own and is not under the deadline. Knows no redirect and no
limit but time.
"""

import contextlib
import http.client
import socket
import ssl
import urllib.request
from collections.abc import Callable
from functools import partial
from typing import Any

from llava_video.video.hosts import resolve
from llava_video.video.settings import FetchSettings
from llava_video.video.spool import Deadline


class TimedSocket(socket.socket):
    """A socket of which no read outlasts the deadline, however slowly bytes drip."""

    deadline: Deadline | None = None

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Read as `socket.socket` does."""
        if self.deadline is not None:
            self.settimeout(self.deadline.wait_s())
        return super().recv_into(*args, **kwargs)


def connect(host: str, port: int, deadline: Deadline, *, allow_private: bool) -> TimedSocket:
    """Connect to the first address of a host that answers; no other than those judged.

    Raises:
        SourceError: an address is not public. OSError: none answers, or the name is not known.
    """
    problem: OSError = ConnectionError(f"{host} has no address")
    for family, kind, protocol, _, place in resolve(host, port, allow_private=allow_private):
        connection = None
        try:
            connection = TimedSocket(family, kind, protocol)
            connection.deadline = deadline
            connection.settimeout(deadline.wait_s())
            connection.connect(place)
            return connection
        except OSError as error:  # TimeoutError is one
            problem = error
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.close()
    raise problem


class _Connection(http.client.HTTPConnection):
    """A connection to an address that was judged; after the look-up all is under the deadline."""

    def __init__(
        self, host: str, *, allow_private: bool, deadline: Deadline, **kwargs: Any
    ) -> None:
        super().__init__(host, **kwargs)
        self._allow_private, self._deadline = allow_private, deadline

    def connect(self) -> None:
        """Connect, through the proxy's tunnel where there is one."""
        self.sock: socket.socket = connect(
            self.host, self.port, self._deadline, allow_private=self._allow_private
        )
        if self._tunnel_host:
            self._tunnel()

    _tunnel_host: str | None
    _tunnel: Callable[[], None]


class _TlsSocket(TimedSocket, ssl.SSLSocket):
    """The same, encrypted."""


class _TlsConnection(_Connection):
    """The same, encrypted; the certificate has to be the name's, whatever the address."""

    default_port = http.client.HTTPS_PORT

    def connect(self) -> None:
        """Connect, and check the certificate."""
        super().connect()
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        context.sslsocket_class = _TlsSocket
        name = self._tunnel_host or self.host
        self.sock.settimeout(self._deadline.wait_s())  # the handshake's, after the connection's
        encrypted = context.wrap_socket(self.sock, server_hostname=name)
        if isinstance(encrypted, _TlsSocket):
            encrypted.deadline = self._deadline
        self.sock = encrypted


class CheckedHandler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Open http and https by our connections."""

    def __init__(self, settings: FetchSettings, deadline: Deadline) -> None:
        super().__init__()
        self._allow_private, self._deadline = settings.allow_private, deadline

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Open without encryption."""
        return self.do_open(self._kind(_Connection), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Open with encryption."""
        return self.do_open(self._kind(_TlsConnection), req)

    def _kind(self, kind: type[_Connection]) -> Any:
        return partial(kind, allow_private=self._allow_private, deadline=self._deadline)
