"""Messages → signed HTTP requests.

A 2xx status takes the message; anything else, a redirect too, is a refusal, and a sender whose body
goes where nobody configured it would be one. All of one delivery is under one deadline, however
slowly the other side drips. Knows no spool.
"""

import contextlib
import http.client
import time
import urllib.request
from collections.abc import Callable, Mapping

from llava_video.errors import LlavaVideoError, SinkError
from llava_video.monitor.message import Message
from llava_video.monitor.secret import filled
from llava_video.monitor.signature import MESSAGE_ID, signed_headers
from llava_video.monitor.sink_settings import SinkSettings
from llava_video.video.connections import CheckedHandler
from llava_video.video.settings import FetchSettings
from llava_video.video.spool import Deadline


class WebhookSink:
    """Posts messages to an address.

    Args:
        settings: where to, and how long it may take.
        environ: has the secret.
        clock: wall clock, s since 1970.

    Raises:
        ConfigError: the environment lacks a name, or the address there has a user.
    """

    def __init__(
        self,
        settings: SinkSettings,
        environ: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name, self._timeout_s, self._clock = settings.name, settings.timeout_s, clock
        self._address = filled(settings.address, environ)
        settings.refuse_user(self._address)
        self._secret = filled(settings.secret, environ).encode()
        # The address is its owner's own choice, so it may be in the owner's own network.
        self._fetch = FetchSettings(allow_private=True, timeout_s=settings.timeout_s)

    def send(self, message: Message, body: bytes) -> None:
        """Post one message; see `Sink.send`."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "llava_video",
            MESSAGE_ID: message.id,
            **signed_headers(self._secret, body, self._clock()),
        }
        opener = urllib.request.OpenerDirector()
        opener.add_handler(CheckedHandler(self._fetch, Deadline(self._timeout_s)))
        try:
            request = urllib.request.Request(
                self._address, data=body, headers=headers, method="POST"
            )
            response = opener.open(request)
            if response is None:
                raise ValueError("no scheme")
            with contextlib.closing(response):
                status = int(response.status)
        except (OSError, ValueError, http.client.HTTPException, LlavaVideoError) as cause:
            # Their texts quote the address, in which a token may stand.
            raise SinkError(f"sink {self._name!r} is not reached: {_reason(cause)}.") from None
        if not 200 <= status < 300:
            raise SinkError(f"sink {self._name!r} refused: HTTP status {status}.")

    def close(self) -> None:
        """Do nothing: every delivery has its own connection, under its own deadline."""


def _reason(cause: BaseException) -> str:
    inner = getattr(cause, "reason", None)
    if isinstance(inner, BaseException):
        cause = inner
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    words = getattr(cause, "strerror", None)
    return words if isinstance(words, str) and words else type(cause).__name__
