"""A small chat server for tests: speaks OpenAI's interface, sees pictures, misbehaves on demand.

Answers by the oracle, from the pixels of the pictures it was sent and the times in the text. What
it was asked stands in `bodies`; `faults` are spent one a request, `fault` is every request's.
"""

import base64
import io
import json
import re
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from llava_video.engine.oracle import OracleEngine
from llava_video.engine.request import Request, TextPart, VisualPart, answer_of
from llava_video.engine.settings import GenerationSettings
from llava_video.model.tokenizer import Tokenizer
from llava_video.values import Clip

MODEL = "served/model"
_TIMES = re.compile(r"located at ([\d.s,]+)\.Please")

Fault = Callable[["Handler"], bool]  # returns whether it has replied


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: "ChatServer"

    def log_message(self, *words: Any) -> None:
        """Say nothing."""

    def setup(self) -> None:
        super().setup()
        self.server.connections.append(self.connection)

    def do_GET(self) -> None:  # the name that http.server looks for
        self.server.headers.append(dict(self.headers))
        if not self._has_key():
            return
        if self.server.get_fault and self.server.get_fault(self):
            return
        if self.path == "/v1/models":
            self.reply({"object": "list", "data": self.server.models})
        elif self.path == "/version" and self.server.version:
            self.reply({"version": self.server.version})
        else:
            self.reply({"detail": "Not Found"}, status=404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.at_work():
            self.server.bodies.append(body)
            self.server.headers.append(dict(self.headers))
            fault = self.server.next_fault()
            if not self._has_key() or (fault and fault(self)):
                return
            self.server.answered += 1
            self.stream(self.server.say(body))

    def reply(self, value: Any, status: int = 200, **headers: str) -> None:
        """Send JSON, or text as it is."""
        is_text = isinstance(value, str)
        data = value.encode() if is_text else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "text/html" if is_text else "application/json")
        self.send_header("content-length", str(len(data)))
        for name, told in headers.items():
            self.send_header(name.replace("_", "-"), told)
        self.end_headers()
        self.wfile.write(data)

    def begin_stream(self) -> None:
        """Send the headers of a stream."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True

    def event(self, value: Any) -> None:
        """Send one event."""
        text = value if isinstance(value, str) else json.dumps(value)
        self.wfile.write(f"data: {text}\n\n".encode())
        self.wfile.flush()

    def stream(self, text: str, upto: int | None = None, reason: str = "stop") -> None:
        """Stream an answer, letters in pairs; or only its first pieces."""
        self.begin_stream()
        self.event(chunk({"role": "assistant", "content": ""}))
        pieces = [text[i : i + 2] for i in range(0, len(text), 2)]
        for number, piece in enumerate(pieces[:upto]):
            time.sleep(self.server.piece_s)
            logprobs = self.server.logprobs(piece, number) if self.server.logprobs else None
            self.event(chunk({"content": piece}, logprobs=logprobs))
        if upto is not None:
            return
        self.event(chunk({}, reason=reason))
        if self.server.usage:
            self.event({"choices": [], "usage": self.server.usage})
        self.event("[DONE]")

    def _has_key(self) -> bool:
        given = self.headers.get("authorization", "")
        if self.server.key and given != f"Bearer {self.server.key}":
            said = f"Incorrect API key provided: {given.removeprefix('Bearer ')}."
            self.reply({"error": {"message": said}}, status=401)
            return False
        return True


class ChatServer(ThreadingHTTPServer):
    """See the module."""

    daemon_threads = True
    request_queue_size = 128
    block_on_close = False

    def __init__(self, tokenizer: Tokenizer | None, port: int = 0, owner: str = "vllm") -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self._oracle = OracleEngine(tokenizer) if tokenizer else None
        self._tokenizer = tokenizer
        self.models = [{"id": MODEL, "object": "model", "owned_by": owner, "created": time.time()}]
        self.version, self.key = "", ""
        self.text: str | None = None  # said instead of the oracle's
        self.usage: dict[str, Any] | None = {"prompt_tokens": 1000, "completion_tokens": 7}
        self.piece_s = 0.0
        self.logprobs: Callable[[str, int], Any] | None = None
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.connections: list[socket.socket] = []
        self.faults: deque[Fault] = deque()
        self.fault: Fault | None = None
        self.get_fault: Fault | None = None
        self.answered = self.working = self.most_working = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def next_fault(self) -> Fault | None:
        with self._lock:
            return self.faults.popleft() if self.faults else self.fault

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Count who is at work at once."""
        with self._lock:
            self.working += 1
            self.most_working = max(self.most_working, self.working)
        try:
            yield
        finally:
            with self._lock:
                self.working -= 1

    def say(self, body: dict[str, Any]) -> str:
        """Return the answer to a body."""
        if self.text is not None:
            return self.text
        assert self._oracle is not None
        text, frames = content_of(body)
        asked, is_wrapped = generation_of(body)
        answer = answer_of(self._oracle, request_of(self._tokenizer, text, frames, asked))
        return json.dumps({"answer": answer.text}) if is_wrapped else answer.text

    def handle_error(self, *ignored: Any) -> None:
        """Say nothing of connections that broke."""

    def kill(self) -> None:
        """End as a killed process does: every connection is reset."""
        self.shutdown()
        self.server_close()
        for one in self.connections:
            try:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()


@contextmanager
def serving(tokenizer: Tokenizer | None = None, **more: Any) -> Iterator[ChatServer]:
    """Run a server beside the test."""
    server = ChatServer(tokenizer, **more)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.kill()


def chunk(delta: dict[str, Any], *, reason: str | None = None, logprobs: Any = None) -> Any:
    """Return one chunk of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": logprobs}
    return {"object": "chat.completion.chunk", "choices": [choice]}


def content_of(body: dict[str, Any]) -> tuple[str, list[np.ndarray]]:
    """Return the text and the pictures of a body, decoded."""
    texts, frames = [], []
    for message in body["messages"]:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            if part["type"] == "text":
                texts.append(part["text"])
            elif part["type"] == "image_url":
                frames.append(picture_of(part["image_url"]["url"].partition(",")[2]))
            else:
                data = part["video_url"]["url"].removeprefix("data:video/jpeg;base64,")
                frames += [picture_of(one) for one in data.split(",")]
    return "\n".join(texts), frames


def picture_of(data: str) -> np.ndarray:
    """Return the (H, W, 3) uint8 picture of base64 text."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def generation_of(body: dict[str, Any]) -> tuple[GenerationSettings, bool]:
    """Return what a body asks of the answer, and whether a choice is wanted inside of JSON."""
    choices = body.get("structured_outputs", {}).get("choice") or body.get("guided_choice")
    if "regex" in body:
        choices = [re.sub(r"\\(.)", r"\1", one) for one in body["regex"][1:-1].split("|")]
    asked = body.get("response_format")
    schema = asked["json_schema"]["schema"] if asked else None
    enum = ((schema or {}).get("properties") or {}).get("answer", {}).get("enum")
    format_ = tuple(choices or enum or ()) or schema
    longest = body.get("max_tokens") or body["max_completion_tokens"]
    generation = GenerationSettings(max_new_tokens=longest, response_format=format_)
    return generation, bool(enum)


def request_of(
    tokenizer: Tokenizer | None, text: str, frames: list[np.ndarray], asked: GenerationSettings
) -> Request:
    """Return what the oracle is asked."""
    assert tokenizer is not None
    found = _TIMES.search(text)
    listed = [float(one.rstrip("s")) for one in found[1].split(",")] if found else []
    times_s = listed if len(listed) == len(frames) else [0.0] * len(frames)

    def clips() -> Iterator[Clip]:
        for idx, (frame, time_s) in enumerate(zip(frames, times_s, strict=True)):
            yield Clip(frame[None], np.array([time_s]), np.array([idx]))

    parts: list[Any] = [TextPart(tuple(tokenizer.encode(text)))]
    if frames:
        plan: Any = SimpleNamespace(num_frames=len(frames), num_tokens=1)
        parts.append(VisualPart(plan=plan, clips=clips, key="frames"))
    return Request(parts=tuple(parts), generation=asked)


def status(code: int, value: Any = None, **headers: str) -> Fault:
    """Return a fault that replies a status."""

    def fault(handler: Handler) -> bool:
        handler.reply({"error": {"message": "no"}} if value is None else value, code, **headers)
        return True

    return fault


def drop(handler: Handler) -> bool:
    """Close the connection without a word."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)
    return True


def truncate(after: int) -> Fault:
    """Return a fault that breaks the right answer off after so many pieces."""

    def fault(handler: Handler) -> bool:
        handler.stream(handler.server.say(handler.server.bodies[-1]), upto=after)
        return True

    return fault


def silent(seconds: float) -> Fault:
    """Return a fault that says nothing for a while, and then goes."""

    def fault(handler: Handler) -> bool:
        handler.begin_stream()
        time.sleep(seconds)
        return True

    return fault
