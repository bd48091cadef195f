"""Messages → a file, a command or the terminal; and which class serves which kind of sink.

A sink takes one message at a time and either has it when `send` returns, or raises. Errors name
the sink and never an address or a secret. Knows no spool.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, Protocol, TextIO

from llava_video.errors import SinkError
from llava_video.monitor.instructions import printable
from llava_video.monitor.message import Message
from llava_video.monitor.mqtt import MqttSink
from llava_video.monitor.sink_settings import SinkSettings
from llava_video.monitor.webhook import WebhookSink

_LINE_START = b'{"id": '
_MOST_WORDS = 200


class Sink(Protocol):
    """What takes messages."""

    def send(self, message: Message, body: bytes) -> None:
        """Take one message.

        Args:
            message: what it is.
            body: its JSON, pictures included where they are wanted.

        Raises:
            SinkError: it was not taken.
        """
        ...

    def close(self) -> None:
        """Let go of what is held; a `send` that waits ends soon."""
        ...


def open_sink(
    settings: SinkSettings,
    environ: Mapping[str, str],
    *,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.time,
) -> Sink:
    """Make a sink; nothing is reached before its first message.

    Args:
        settings: where to.
        environ: has its secrets.
        stream: of a terminal; None for standard output.
        clock: wall clock, s since 1970, for signatures.

    Raises:
        ConfigError: the environment lacks a name.
        BackendMissingError: a broker without its package.
    """
    if settings.kind == "webhook":
        return WebhookSink(settings, environ, clock=clock)
    if settings.kind == "mqtt":
        return MqttSink(settings, environ)
    if settings.kind == "jsonl":
        return JsonlSink(settings.name, Path(settings.path))
    if settings.kind == "command":
        return CommandSink(settings.name, settings.command, settings.timeout_s)
    return TerminalSink(settings.name, sys.stdout if stream is None else stream)


class JsonlSink:
    """Adds a line to a file, flushed to the disk.

    A line that was cut short when the process was killed is taken away; the line that was written
    last is not written again.

    Args:
        name: for messages.
        path: the file; made when it is not there.
    """

    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path = name, path
        self._last_id: str | None = None
        self._is_mended = False

    def send(self, message: Message, body: bytes) -> None:
        """Add a line; see `Sink.send`."""
        try:
            # Unbuffered: what did not fit may not come after all, with the end of the file.
            how = "r+b" if self._path.exists() else "x+b"
            with self._path.open(how, buffering=0) as file:
                if not self._is_mended:
                    self._last_id = _mend(file)
                if message.id != self._last_id:
                    self._is_mended = False  # until the line is whole, and on the disk
                    _add(file, body + b"\n")
                os.fsync(file.fileno())
        except OSError as cause:
            raise SinkError(
                f"sink {self._name!r} cannot write: {cause.strerror}.", "make room, or the folder."
            ) from cause
        self._is_mended = True
        self._last_id = message.id

    def close(self) -> None:
        """Do nothing: the file is open only while a line is written."""


class CommandSink:
    """Runs a program with the message on its standard input; it has it when it ends with 0.

    Args:
        name: for messages.
        command: program and arguments; no shell reads them.
        timeout_s: after which it is killed, with what it started.
    """

    def __init__(self, name: str, command: tuple[str, ...], timeout_s: float) -> None:
        self._name, self._command, self._timeout_s = name, command, timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    def send(self, message: Message, body: bytes) -> None:
        """Run the program; see `Sink.send`."""
        environ = {**os.environ, "LLAVA_VIDEO_ALERT_ID": message.alert_id}
        # A file and no pipe: what it leaves running may hold its end for ever.
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    env=environ,
                    start_new_session=True,
                )
            except (OSError, ValueError) as cause:
                reason = getattr(cause, "strerror", None) or "not a command"
                raise SinkError(
                    f"sink {self._name!r} cannot start its command: {reason}.", "check its path."
                ) from cause
            self._process = process
            with process:
                self._wait(process, body)
            if process.returncode != 0:
                words = _last_words(said)
                raise SinkError(
                    f"sink {self._name!r}: the command ended with {process.returncode}. "
                    f"{words}".strip()
                )

    def _wait(self, process: "subprocess.Popen[bytes]", body: bytes) -> None:
        try:
            process.communicate(body, timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            _kill(process)
            raise SinkError(
                f"sink {self._name!r}: the command took more than {self._timeout_s:g} s.",
                "a larger timeout_s, or a command that goes on by itself.",
            ) from None

    def close(self) -> None:
        """Kill what runs."""
        if self._process is not None and self._process.poll() is None:
            _kill(self._process)


class TerminalSink:
    """Writes one line for people; what strangers wrote cannot steer the terminal.

    Args:
        name: for messages.
        stream: where to.
    """

    def __init__(self, name: str, stream: TextIO) -> None:
        self._name, self._stream = name, stream

    def send(self, message: Message, body: bytes) -> None:
        """Write a line; see `Sink.send`."""
        try:
            self._stream.write(f"{_line(message)}\n")
            self._stream.flush()
        except (OSError, ValueError) as cause:  # ValueError: it is closed
            raise SinkError(f"sink {self._name!r} cannot write to the terminal.") from cause

    def close(self) -> None:
        """Do nothing: the stream is its owner's."""


def _line(message: Message) -> str:
    facts = message.facts
    head = f"{facts['at']} {message.severity.upper()} {message.kind} {message.alert_id[:8]}"
    more = [f"{facts['camera']}: {facts['rule']}"]
    if message.kind == "update":
        more.append(facts["description"] or facts.get("problem", ""))
    else:
        sure = facts.get("confidence")
        answer = json.dumps(facts.get("answer"), ensure_ascii=False)
        more.append(answer if sure is None else f"{answer} ({sure:.0%})")
    more += facts.get("warnings", [])
    return printable(" | ".join([head, *more]))


def _add(file: Any, line: bytes) -> None:
    """Add a line; where it does not fit, half of it is taken away, now or by `_mend`."""
    end = file.seek(0, os.SEEK_END)
    left = memoryview(line)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(end)
        raise


def _mend(file: Any) -> str | None:
    """Take half a line of ours off the end; return the id of the last whole line."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - 2**20)
    file.seek(start)
    tail = file.read(size - start)
    whole, newline, rest = tail.rpartition(b"\n")
    if rest:
        if _LINE_START.startswith(rest[: len(_LINE_START)]):
            file.truncate(start + len(whole) + len(newline))
        else:  # somebody else's last line, without an end
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
    with contextlib.suppress(ValueError, AttributeError):
        found = json.loads(whole.rpartition(b"\n")[2]).get("id")
        return found if isinstance(found, str) else None
    return None


def _last_words(said: IO[bytes]) -> str:
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - 4 * _MOST_WORDS))
    return printable(said.read(4 * _MOST_WORDS).decode("utf-8", "replace"))[-_MOST_WORDS:]


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
