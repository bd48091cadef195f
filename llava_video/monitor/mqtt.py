"""Messages → a topic of an MQTT broker, each acknowledged (quality of service 1).

One connection is kept; after a failure the next message makes a new one. Knows no spool.
"""

import contextlib
import importlib
import ssl
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

from llava_video.backends import require
from llava_video.errors import ConfigError, SinkError
from llava_video.monitor.message import Message
from llava_video.monitor.secret import filled
from llava_video.monitor.sink_settings import SinkSettings

_PORTS = {"mqtt": 1883, "mqtts": 8883}


class MqttSink:
    """Publishes messages.

    Args:
        settings: broker, topic and user.
        environ: has the password.

    Raises:
        BackendMissingError: without paho-mqtt.
        ConfigError: the environment lacks a name, or the address has no host.
    """

    def __init__(self, settings: SinkSettings, environ: Mapping[str, str]) -> None:
        require("paho")
        self._paho = importlib.import_module("paho.mqtt.client")
        self._name, self._topic = settings.name, settings.topic
        self._timeout_s = settings.timeout_s
        try:
            parts = urllib.parse.urlsplit(filled(settings.address, environ))
            self._host, port = parts.hostname or "", parts.port
        except ValueError:
            self._host, port = "", None
        if not self._host:
            raise ConfigError(f"the address of sink {self._name!r} has no host.", "mqtt://host")
        self._is_secure = parts.scheme == "mqtts"
        self._port = port or _PORTS.get(parts.scheme, 1883)
        self._user = filled(settings.user, environ) or None
        self._password = filled(settings.secret, environ) or None
        self._client: Any = None

    def send(self, message: Message, body: bytes) -> None:
        """Publish one message and wait until the broker has it; see `Sink.send`."""
        try:
            client = self._connected()
            told = client.publish(self._topic, body, qos=1)
            told.wait_for_publish(self._timeout_s)
            if not told.is_published():
                raise TimeoutError("no acknowledgement in time")
        except (OSError, ValueError, RuntimeError) as cause:
            self.close()
            reason = getattr(cause, "strerror", None) or cause
            raise SinkError(f"sink {self._name!r} is not reached: {reason}.") from cause

    def close(self) -> None:
        """Leave the broker."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                client.disconnect()
            client.loop_stop()

    def _connected(self) -> Any:
        """Return a client whose broker has accepted it."""
        if self._client is not None and self._client.is_connected():
            return self._client
        self.close()
        client = self._paho.Client(self._paho.CallbackAPIVersion.VERSION2)
        client.connect_timeout = self._timeout_s
        if self._user is not None:
            client.username_pw_set(self._user, self._password)
        if self._is_secure:
            client.tls_set_context(ssl.create_default_context())
        answers: list[Any] = []
        client.on_connect = lambda _client, _data, _flags, reason, _facts: answers.append(reason)
        client.connect(self._host, self._port)
        self._client = client
        client.loop_start()
        _wait_until(lambda: bool(answers), self._timeout_s)
        if not answers:
            raise TimeoutError("the broker does not answer")
        if answers[0].is_failure:
            raise ConnectionRefusedError(f"the broker says {answers[0]}")
        return client


def _wait_until(holds: Callable[[], bool], timeout_s: float) -> None:
    end_s = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < end_s:
        time.sleep(0.01)
