"""A broker takes messages one by one, and what it does not acknowledge was not taken."""

import socket
import time
from collections.abc import Iterator

import pytest
from monitor_cases import message_of
from mqtt_broker import Broker, brokering

from llava_video import backends
from llava_video.errors import BackendMissingError, ConfigError, SinkError
from llava_video.monitor.mqtt import MqttSink
from llava_video.monitor.sink_settings import SinkSettings

needs_paho = pytest.mark.skipif(
    backends.version("paho") is None, reason="paho-mqtt (the extra `monitor`) is not installed"
)


@pytest.fixture
def broker() -> Iterator[Broker]:
    with brokering() as running:
        yield running


def sink_of(address: str, **more: object) -> MqttSink:
    settings = SinkSettings(name="house", kind="mqtt", address=address, topic="cams/1", **more)
    return MqttSink(settings, {"PW": "s3cret"})


def to(broker: Broker, **more: object) -> MqttSink:
    return sink_of(f"mqtt://127.0.0.1:{broker.port}", **more)


@needs_paho
def test_messages_are_published_in_order_on_one_connection(broker: Broker) -> None:
    sink = to(broker, user="me", secret="${PW}")
    for number in (1, 2, 3):
        sink.send(message_of(number), message_of(number).body.encode())
    sink.close()
    assert broker.taken == [("cams/1", message_of(n).body.encode()) for n in (1, 2, 3)]
    assert broker.users == [("me", "s3cret")]


@needs_paho
def test_a_connection_that_was_cut_is_made_again(broker: Broker) -> None:
    sink = to(broker, timeout_s=5.0)
    sink.send(message_of(1), b"1")
    broker.drop()
    for _ in range(3):  # the first may be refused, until the cut is noticed
        try:
            sink.send(message_of(2), b"2")
            break
        except SinkError:
            time.sleep(0.05)
    sink.close()
    assert broker.taken[0] == ("cams/1", b"1")
    assert broker.taken[-1] == ("cams/1", b"2")


@needs_paho
def test_what_is_not_acknowledged_was_not_taken(broker: Broker) -> None:
    broker.is_mute = True
    sink = to(broker, timeout_s=0.5)
    with pytest.raises(SinkError, match="sink 'house' is not reached: no acknowledgement"):
        sink.send(message_of(1), b"1")
    broker.is_mute = False
    sink.send(message_of(2), b"2")
    sink.close()
    assert broker.taken == [("cams/1", b"2")]


@needs_paho
def test_a_broker_that_refuses_is_told_without_the_password(broker: Broker) -> None:
    broker.refuses = 5
    sink = to(broker, user="me", secret="${PW}")
    with pytest.raises(SinkError, match="the broker says Not authorized") as caught:
        sink.send(message_of(1), b"1")
    assert "s3cret" not in str(caught.value)
    broker.refuses = 0
    sink.send(message_of(1), b"1")
    sink.close()
    assert len(broker.taken) == 1


@needs_paho
def test_a_broker_that_is_not_there_is_told() -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        sink = sink_of(f"mqtt://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(SinkError, match="Connection refused"):
            sink.send(message_of(1), b"1")


@needs_paho
@pytest.mark.parametrize("address", ["mqtt://", "mqtt://h:port"])
def test_an_address_without_a_host_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="has no host"):
        sink_of(address)


def test_without_its_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "version", lambda name: None)
    monkeypatch.setattr(backends, "_checked", {})
    with pytest.raises(BackendMissingError, match=r"llava_video\[monitor\]"):
        sink_of("mqtt://h")
