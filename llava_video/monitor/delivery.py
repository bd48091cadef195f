"""The spool → sinks, each in a thread of its own: in order, again until taken.

What one sink does holds up no other. A message that was taken is marked before the next one is
sent; where the mark fails, only the mark is tried again. Knows no kind of sink.
"""

import base64
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from llava_video.errors import LlavaVideoError
from llava_video.monitor.message import Message
from llava_video.monitor.sink_settings import SinkSettings
from llava_video.monitor.sinks import Sink, open_sink
from llava_video.monitor.spool import Spool
from llava_video.waits import growing_wait_s

_MOST_PICTURE_BYTES: Final = 4 * 2**20
_PICTURES: Final = ("snapshot", "sheet")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CourierStatus:
    """How one sink does.

    Attributes:
        sink: its name.
        delivered: messages it took since the start.
        tries: refusals of the message that is next, in a row.
        problem: of the last one; "" when it took the last message.
        waits_s: until the next try, s; 0 when none is waited for.
    """

    sink: str
    delivered: int = 0
    tries: int = 0
    problem: str = ""
    waits_s: float = 0.0


class Courier:
    """Delivers to one sink, in a thread of its own.

    Args:
        spool: holds the messages.
        sink: takes them.
        settings: its name and waits.
        evidence: folder of the pictures.
        dice: shares of a wait, 0 to 1, that make many senders come at different times.
    """

    def __init__(
        self,
        spool: Spool,
        sink: Sink,
        settings: SinkSettings,
        evidence: Path,
        *,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._spool, self._sink, self._settings = spool, sink, settings
        self._evidence, self._dice = evidence, dice
        self._news, self._stop = threading.Event(), threading.Event()
        self._taken_seq = 0  # of the last message taken, whether marked or not
        self._status = CourierStatus(sink=settings.name)
        self._next_try_s = 0.0
        self._thread = threading.Thread(target=self._run, name=f"sink {settings.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there may be a new message."""
        self._news.set()

    @property
    def status(self) -> CourierStatus:
        """How it does now."""
        status = self._status
        left_s = max(0.0, self._next_try_s - time.monotonic()) if status.tries else 0.0
        return CourierStatus(
            sink=status.sink, delivered=status.delivered, tries=status.tries,
            problem=status.problem, waits_s=left_s,
        )  # fmt: skip

    def stop(self) -> None:
        """Ask it to end after the message under way."""
        self._stop.set()
        self._news.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for its end; return whether it came. A thread that hangs ends with the process."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._sink.close()
            self._thread.join(0.2)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._news.clear()
            try:
                is_more = self._deliver_next()
            except Exception as error:  # noqa: BLE001 - a sink's thread lives as long as the watch
                self._refused(error)
                self._pause()
                continue
            if not is_more:
                self._news.wait()
        self._sink.close()

    def _deliver_next(self) -> bool:
        """Deliver one message; return whether there was one."""
        message = self._spool.head(self._settings.name)
        if message is None:
            return False
        if message.seq != self._taken_seq:
            self._sink.send(message, self._body(message))
            self._taken_seq = message.seq
        self._spool.delivered(self._settings.name, message.seq)
        self._status = CourierStatus(sink=self._status.sink, delivered=self._status.delivered + 1)
        return True

    def _refused(self, error: Exception) -> None:
        tries = self._status.tries + 1
        known = isinstance(error, LlavaVideoError)
        problem = str(error) if known else f"{type(error).__name__} in sink {self._status.sink!r}"
        if problem != self._status.problem:
            if known:
                _log.warning("%s", problem)
            else:
                _log.error("%s", problem, exc_info=error)
        self._status = CourierStatus(
            sink=self._status.sink, delivered=self._status.delivered, tries=tries, problem=problem
        )

    def _pause(self) -> None:
        """Wait before the next try; news end no wait, the end of the watch does."""
        settings = self._settings
        wait_s = growing_wait_s(
            self._status.tries, settings.first_wait_s, settings.most_wait_s, self._dice()
        )
        self._next_try_s = time.monotonic() + wait_s
        self._stop.wait(wait_s)

    def _body(self, message: Message) -> bytes:
        body = message.body.encode()
        return with_pictures(message, self._evidence) if self._settings.pictures else body


class Couriers:
    """One courier for each sink of a watch; a context manager that starts and stops them.

    Args:
        spool: holds the messages.
        sinks: where to.
        environ: has their secrets.
        evidence: folder of the pictures.
        stream: of terminals; None for standard output.

    Raises:
        ConfigError: the environment lacks a name.
        BackendMissingError: a broker without its package.
    """

    def __init__(
        self,
        spool: Spool,
        sinks: tuple[SinkSettings, ...],
        environ: Mapping[str, str],
        evidence: Path,
        *,
        stream: TextIO | None = None,
    ) -> None:
        opened = [(open_sink(one, environ, stream=stream), one) for one in sinks]
        self._couriers = [Courier(spool, sink, one, evidence) for sink, one in opened]

    def __enter__(self) -> "Couriers":
        for courier in self._couriers:
            courier.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def wake(self) -> None:
        """Say that there may be new messages."""
        for courier in self._couriers:
            courier.wake()

    @property
    def statuses(self) -> list[CourierStatus]:
        """How each sink does."""
        return [courier.status for courier in self._couriers]

    def close(self, timeout_s: float = 5.0) -> list[str]:
        """Stop them all, waiting for messages under way.

        Returns:
            Names of sinks that hang; what they have not taken stays in the spool.
        """
        for courier in self._couriers:
            courier.stop()
        end_s = time.monotonic() + timeout_s
        return [
            courier.status.sink
            for courier in self._couriers
            if not courier.join(max(0.0, end_s - time.monotonic()))
        ]


def with_pictures(message: Message, evidence: Path) -> bytes:
    """Return a message's body with its pictures as base64 beside their names.

    What was removed meanwhile says so; what is too large is left to who can read the disk.

    Args:
        message: whose.
        evidence: folder of the pictures.
    """
    facts = message.facts
    for one in facts.get("files", []):
        if one["kind"] not in _PICTURES or one["bytes"] > _MOST_PICTURE_BYTES:
            continue
        try:
            one["base64"] = base64.b64encode((evidence / one["name"]).read_bytes()).decode()
        except OSError:
            one["lost"] = True
    return json.dumps(facts, ensure_ascii=False).encode()
