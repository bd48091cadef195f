"""Replies come whole or as an error, whatever the server does; cancelling closes the connection."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import pytest
from chat_server import ChatServer, Handler, drop, serving, silent, status, truncate

from llava_video.errors import (
    CapacityError,
    ServerBusyError,
    ServerError,
    ServerRefusedError,
)
from llava_video.remote.address import Address
from llava_video.remote.client import Began, Broken, ChatClient, Chunk, Ended, Reply
from llava_video.remote.settings import RemoteSettings

KEY = "sk-open-sesame"
QUICK = RemoteSettings(
    retry_wait_s=0.01, max_retry_wait_s=0.05, retry_for_s=2.0, silence_s=0.3, connect_s=5.0
)
ONCE = RemoteSettings(retry_for_s=0.0, silence_s=0.3, connect_s=5.0)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving() as running:
        running.text = "one two three"
        yield running


class Told:
    """What a client told of one request."""

    def __init__(self, url: str, settings: RemoteSettings = QUICK, key: str = "") -> None:
        self.client = ChatClient(Address(url, "A_KEY", key), settings)
        self.replies: list[Reply] = []
        self._ends: SimpleQueue[Reply] = SimpleQueue()
        self.cancel: Callable[[], None] = lambda: None

    def tell(self, reply: Reply) -> None:
        self.replies.append(reply)
        if isinstance(reply, Ended | Broken):
            self._ends.put(reply)

    def post(self) -> "Told":
        self.cancel = self.client.post("/chat/completions", b'{"model": "m"}', self.tell)
        return self

    def end(self) -> Reply:
        reply = self._ends.get(timeout=10)
        self.client.close()
        return reply

    @property
    def error(self) -> Exception:
        reply = self.end()
        assert isinstance(reply, Broken)
        return reply.error

    @property
    def text(self) -> str:
        """What the last try said."""
        begins = [i for i, reply in enumerate(self.replies) if isinstance(reply, Began)]
        chunks = [
            reply.value
            for reply in self.replies[max(begins, default=0) :]
            if isinstance(reply, Chunk)
        ]
        every = [choice for value in chunks for choice in value["choices"]]
        choices = [one for one in every if "content" in one.get("delta", one.get("message"))]
        return "".join(c.get("delta", c.get("message"))["content"] or "" for c in choices)

    @property
    def num_tries(self) -> int:
        return sum(isinstance(reply, Began) for reply in self.replies)


def test_an_answer_comes_in_chunks(server: ChatServer) -> None:
    told = Told(server.url, key=KEY).post()
    assert told.end() == Ended()
    assert (told.text, told.num_tries) == ("one two three", 1)
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_a_server_that_does_not_stream_is_read(server: ChatServer) -> None:
    whole = {"choices": [{"message": {"content": "all"}, "finish_reason": "stop"}]}
    server.fault = status(200, whole)
    told = Told(server.url).post()
    assert (told.end(), told.text) == (Ended(), "all")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(status(429, retry_after="0"), id="429"),
        pytest.param(status(503), id="503"),
        pytest.param(status(500), id="500"),
        pytest.param(status(502, "<html>bad gateway</html>"), id="502"),
        pytest.param(drop, id="drop"),
        pytest.param(truncate(2), id="truncated"),
        pytest.param(status(200, "<html>welcome</html>"), id="html"),
        pytest.param(status(200, {"hello": 1}), id="no completion"),
    ],
)
def test_what_may_pass_is_tried_again(server: ChatServer, fault: Any) -> None:
    server.faults.append(fault)
    # However busy the machine: what is tried again is the fault, not silence.
    told = Told(server.url, replace(QUICK, silence_s=10.0, connect_s=10.0)).post()
    assert told.end() == Ended()
    assert (told.text, told.num_tries) == ("one two three", 2)


def test_silence_is_tried_again(server: ChatServer) -> None:
    server.faults.append(silent(1.5))
    told = Told(server.url, replace(QUICK, silence_s=1.0)).post()
    assert told.end() == Ended()
    assert (told.text, told.num_tries) == ("one two three", 2)


def in_stream(value: Any) -> Callable[[Handler], bool]:
    def fault(handler: Handler) -> bool:
        handler.begin_stream()
        handler.event(value)
        return True

    return fault


@pytest.mark.parametrize(
    ("fault", "cls", "words"),
    [
        (status(429), ServerBusyError, "429"),
        (status(500), ServerError, "500"),
        (drop, ServerError, "broke the connection off"),
        (truncate(2), ServerError, "broke its answer off"),
        (silent(1.0), ServerError, "was silent for 0.3 s"),
        (status(200, "<html>welcome</html>"), ServerError, "no JSON: '<html>welcome</html>'"),
        (status(200, [1]), ServerError, "no completion"),
        (in_stream("{broken"), ServerError, "no JSON"),
        (in_stream({"choices": 3}), ServerError, "no completion"),
        (in_stream({"error": {"message": "full", "code": 503}}), ServerBusyError, "full"),
        (status(400), ServerRefusedError, "400"),
        (status(307, location="http://other/v1"), ServerRefusedError, "307"),
    ],
)
def test_errors_are_typed(server: ChatServer, fault: Any, cls: type[Exception], words: str) -> None:
    server.fault = fault
    told = Told(server.url, ONCE).post()
    error = told.error
    assert type(error) is cls
    assert words in str(error)
    assert told.num_tries == 1


def test_what_a_server_refuses_is_not_asked_again(server: ChatServer) -> None:
    server.fault = status(400)
    told = Told(server.url).post()
    assert isinstance(told.error, ServerRefusedError)
    assert told.num_tries == 1


def test_a_servers_own_fault_is_not_asked_for_ever(server: ChatServer) -> None:
    server.fault = status(500)
    told = Told(server.url).post()
    assert isinstance(told.error, ServerError)
    assert told.num_tries == 3


def test_patience_ends(server: ChatServer) -> None:
    server.fault = status(503)
    began_s = time.monotonic()
    told = Told(server.url, RemoteSettings(retry_wait_s=0.05, retry_for_s=0.5)).post()
    assert isinstance(told.error, ServerBusyError)
    assert 2 < told.num_tries < 20
    assert time.monotonic() - began_s < 5


def test_nobody_there(server: ChatServer) -> None:
    url = server.url
    server.kill()
    told = Told(url, ONCE).post()
    error = told.error
    assert "cannot be reached" in str(error)
    assert "is it running" in str(error)
    client = ChatClient(Address(url, "A_KEY"), ONCE)
    with pytest.raises(ServerError, match="cannot be reached"):
        client.get(url + "/models")
    client.close()


def test_an_address_that_takes_no_connection() -> None:
    # TEST-NET-1: packets to it go nowhere, or come back as unreachable.
    told = Told("http://192.0.2.1:9/v1", ONCE).post()
    assert isinstance(told.error, ServerError)


def test_a_server_that_starts_again_is_found(server: ChatServer) -> None:
    port = server.server_port
    server.piece_s = 0.1
    told = Told(server.url).post()
    while not told.text:
        time.sleep(0.01)
    server.kill()
    time.sleep(0.2)
    with serving(port=port) as again:
        again.text = "one two three"
        assert told.end() == Ended()
    assert told.text == "one two three"
    assert told.num_tries > 1


def test_cancelling_closes_the_connection(server: ChatServer) -> None:
    gone = threading.Event()

    def fault(handler: Handler) -> bool:
        handler.begin_stream()
        handler.connection.settimeout(5)
        if not handler.connection.recv(1):  # only closing ends it
            gone.set()
        return True

    server.fault = fault
    told = Told(server.url, RemoteSettings()).post()
    while not server.bodies:
        time.sleep(0.01)
    told.cancel()
    assert isinstance(told.error, CapacityError)
    assert gone.wait(5)


def test_cancelling_ends_a_wait_for_the_next_try(server: ChatServer) -> None:
    server.fault = status(503, retry_after="30")
    told = Told(server.url, RemoteSettings()).post()
    while not server.bodies:
        time.sleep(0.01)
    began_s = time.monotonic()
    told.cancel()
    assert isinstance(told.error, CapacityError)
    assert time.monotonic() - began_s < 5


def test_closing_breaks_everything_off(server: ChatServer) -> None:
    server.fault = silent(1.0)
    told = Told(server.url, RemoteSettings()).post()
    while not server.bodies:
        time.sleep(0.01)
    told.client.close()
    assert isinstance(told.error, CapacityError)
    with pytest.raises(CapacityError):
        told.post()


def test_an_endless_event_is_no_answer(server: ChatServer) -> None:
    def fault(handler: Handler) -> bool:
        handler.begin_stream()
        for _ in range(20):
            handler.wfile.write(b"data: " + b"a" * 2**20 if _ == 0 else b"a" * 2**20)
        return True

    server.fault = fault
    assert isinstance(Told(server.url, ONCE).post().error, ServerError)


def test_an_endless_body_is_no_answer(server: ChatServer) -> None:
    server.fault = status(200, "a" * (2**24 + 1))
    assert "more than 16777216 bytes" in str(Told(server.url, ONCE).post().error)


def test_no_log_has_the_key(server: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    server.faults += [status(503), drop]
    with caplog.at_level(logging.DEBUG):
        told = Told(server.url, key=KEY).post()
        assert told.end() == Ended()
    assert caplog.text
    assert KEY not in caplog.text
    server.key = "another"
    said = str(Told(server.url, key=KEY).post().error)
    assert "does not accept the key in A_KEY" in said
    assert KEY not in said
