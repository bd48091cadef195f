"""A broker of a few lines: MQTT 3.1.1, who connects and publishes with quality of service 1."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

CONNECT, PUBLISH, PINGREQ, DISCONNECT = 1, 3, 12, 14


class Broker:
    """Takes what is published.

    Attributes:
        taken: (topic, payload) of each message that was acknowledged.
        users: (user, password) of each connection.
        refuses: code that connections are answered with; 0 takes them.
        is_mute: whether messages are not acknowledged.
    """

    def __init__(self) -> None:
        self.taken: list[tuple[str, bytes]] = []
        self.users: list[tuple[str, str]] = []
        self.refuses = 0
        self.is_mute = False
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.connections: list[socket.socket] = []

    def serve(self) -> None:
        """Take connections until the server is closed."""
        with suppress(OSError):
            while True:
                connection, _ = self.server.accept()
                self.connections.append(connection)
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def drop(self) -> None:
        """Cut every connection."""
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self.connections = []

    def _talk(self, connection: socket.socket) -> None:
        with suppress(OSError, EOFError):
            file = connection.makefile("rb")
            while True:
                kind, flags, body = _packet(file)
                if kind == CONNECT:
                    self.users.append(_user(body))
                    connection.sendall(bytes([0x20, 2, 0, self.refuses]))
                elif kind == PUBLISH:
                    length = struct.unpack(">H", body[:2])[0]
                    topic, rest = body[2 : 2 + length].decode(), body[2 + length :]
                    assert flags >> 1 & 3 == 1
                    if not self.is_mute:
                        self.taken.append((topic, rest[2:]))
                        connection.sendall(b"\x40\x02" + rest[:2])
                elif kind == PINGREQ:
                    connection.sendall(b"\xd0\x00")
                elif kind == DISCONNECT:
                    return


def _packet(file: BinaryIO) -> tuple[int, int, bytes]:
    head = file.read(1)
    if not head:
        raise EOFError
    length = shift = 0
    while True:
        (byte,) = file.read(1)
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return head[0] >> 4, head[0] & 15, file.read(length)


def _user(body: bytes) -> tuple[str, str]:
    flags, rest = body[7], body[10:]
    texts = []
    while rest:
        (length,) = struct.unpack(">H", rest[:2])
        texts.append(rest[2 : 2 + length].decode())
        rest = rest[2 + length :]
    texts = texts[1:]  # the client's id
    return (texts[0] if flags & 128 else "", texts[1] if flags & 64 else "")


@contextmanager
def brokering() -> Iterator[Broker]:
    """Run a broker while the block runs."""
    broker = Broker()
    thread = threading.Thread(target=broker.serve, daemon=True)
    thread.start()
    try:
        yield broker
    finally:
        broker.server.close()
        broker.drop()
