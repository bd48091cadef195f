"""A webhook is signed, takes only a 2xx for taken, and never outlasts its time."""

import json
import socket
import time

import pytest
from monitor_cases import message_of, receiving

from llava_video.errors import ConfigError, SinkError
from llava_video.monitor.signature import MESSAGE_ID, is_signed
from llava_video.monitor.sink_settings import SinkSettings
from llava_video.monitor.webhook import WebhookSink

NOW_S = 1_790_000_000.0


def hook(address: str, timeout_s: float = 20.0) -> WebhookSink:
    settings = SinkSettings(
        name="hook", kind="webhook", address="${URL}", secret="${KEY}", timeout_s=timeout_s
    )
    return WebhookSink(settings, {"URL": address, "KEY": "s3cret"}, clock=lambda: NOW_S)


def test_a_message_is_posted_with_its_id_and_a_signature_that_can_be_checked() -> None:
    message = message_of(1, description="Grün \N{GRINNING FACE}")
    with receiving([204]) as receiver:
        hook(receiver.address).send(message, message.body.encode())
    ((headers, body),) = receiver.taken
    assert json.loads(body) == message.facts
    assert headers[MESSAGE_ID] == message.id
    assert headers["Content-Type"] == "application/json"
    assert is_signed(b"s3cret", headers, body, NOW_S)
    assert not is_signed(b"other", headers, body, NOW_S)


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 429, 500, 503])
def test_any_other_status_is_a_refusal_and_no_redirect_is_followed(status: int) -> None:
    with receiving([status, 200]) as receiver:
        with pytest.raises(SinkError, match=f"sink 'hook' refused: HTTP status {status}"):
            hook(receiver.address).send(message_of(1), b"{}")
        assert receiver.num_asked == 1


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_one_that_never_ends_is_left_in_time(how: str) -> None:
    with receiving([how]) as receiver:
        started_s = time.monotonic()
        with pytest.raises(SinkError, match="no answer in time"):
            hook(receiver.address, timeout_s=0.4).send(message_of(1), b"{}")
        assert time.monotonic() - started_s < 10


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:{port}/tok3n", "tok3n", "http://[tok3n", "http://127.0.0.1:tok3n/",
     "http://tok3n with blanks/"],
)  # fmt: skip
def test_an_address_that_does_not_answer_is_not_told(address: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(SinkError, match="sink 'hook' is not reached") as caught:
        hook(address.format(port=port), timeout_s=5.0).send(message_of(1), b"{}")
    assert "tok3n" not in f"{caught.value!r} {caught.value.__cause__}"


def test_an_address_with_a_user_is_refused_before_a_resolver_is_asked() -> None:
    with pytest.raises(ConfigError, match="the address of sink 'hook' has a user") as caught:
        hook("http://u:tok3n@127.0.0.1/")
    assert "tok3n" not in f"{caught.value!r} {caught.value.__cause__}"
    with receiving() as receiver:  # of a path it is a part like any other
        hook(f"{receiver.address}/@me").send(message_of(1), b"{}")
        assert receiver.num_asked == 1


def test_what_is_no_http_is_a_refusal() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        import threading

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(SinkError, match="BadStatusLine"):
            hook(f"http://127.0.0.1:{server.getsockname()[1]}/").send(message_of(1), b"{}")
        thread.join()
