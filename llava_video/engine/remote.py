"""A server over HTTP, behind the interface of the scheduler: requests → events.

Frames are decoded and encoded by whoever runs the engine, a request at a time; the server works all
that are with it. The server makes prompts, tiles and tokens its own way: what it says it used is
the answer's usage. Knows what is sent and what comes back; nothing of connections.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Final

from llava_video.engine.remote_answer import RemoteAnswer
from llava_video.engine.remote_messages import chat_body, wraps_choices
from llava_video.engine.remote_pictures import Pictures
from llava_video.engine.request import (
    Event,
    Failed,
    Finished,
    Progress,
    Request,
    TextPiece,
    VisualPart,
)
from llava_video.errors import BudgetError
from llava_video.model.tokenizer import Tokenizer
from llava_video.remote.client import Began, Broken, ChatClient, Chunk, Ended, Reply
from llava_video.remote.facts import ServerFacts
from llava_video.remote.settings import RemoteSettings

_PATH: Final = "/chat/completions"
# How often it is looked whether somebody wants no more of an answer, s.
_LOOK_S: Final = 0.05


@dataclass(slots=True)
class _Call:
    """One request on its way.

    Attributes:
        request: what is asked.
        answer: what came so far.
        began_s: when a place was asked for.
        marks_s: when there was one, when it was sent, and when its first piece came.
        reused_tokens: prompt tokens up to the end of visuals that were not decoded again.
        cancel: closes its connection.
    """

    request: Request
    answer: RemoteAnswer
    began_s: float
    marks_s: list[float] = field(default_factory=list)
    reused_tokens: int = 0
    cancel: Callable[[], None] = lambda: None

    def timings(self) -> dict[str, float]:
        """Return seconds per stage."""
        marks_s = [self.began_s, *self.marks_s]
        marks_s += [time.perf_counter()] * (5 - len(marks_s))
        names = ("wait", "vision", "prefill", "generate")
        return {name: marks_s[i + 1] - marks_s[i] for i, name in enumerate(names)}


Inbox = SimpleQueue[tuple[int, Reply]]


class RemoteEngine:
    """Answers by a chat server; an `Engine`. Any number of threads may run it.

    Keeps no cache of its own: `Answer.sequence` is None.

    Args:
        client: the server's connections; closed by `close`.
        facts: what the server says of itself and the model.
        settings: how frames are sent, and how many requests at once.
        tokenizer: of the model that plans; counts what the server does not.
        tile_px: side of what that model sees, px.
    """

    def __init__(
        self,
        client: ChatClient,
        facts: ServerFacts,
        settings: RemoteSettings,
        tokenizer: Tokenizer,
        tile_px: int,
    ) -> None:
        self._client, self._facts, self._settings = client, facts, settings
        self._tokenizer = tokenizer
        self._pictures = Pictures(settings, tile_px)
        self._places = threading.Semaphore(settings.max_running)

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        """Answer requests, as many at once as the server is to be given.

        One is drawn when there is a place for it, and its frames are read before the next is.
        """
        waiting = iter(requests)
        calls: dict[int, _Call] = {}
        inbox: Inbox = SimpleQueue()
        try:
            while True:
                asked_s, is_idle = time.perf_counter(), True
                # Whoever has nothing under way waits; others have answers to take meanwhile.
                if self._places.acquire(blocking=not calls):
                    request = self._draw(waiting)
                    if request is None:
                        break
                    yield from self._begin(request, asked_s, calls, inbox)
                    is_idle = False
                yield from self._take(calls, inbox, may_wait=is_idle)
            while calls:
                yield from self._take(calls, inbox, may_wait=True)
        finally:
            for call in calls.values():
                call.cancel()

    def close(self) -> None:
        """Break all answers off, and close the connections."""
        self._client.close()

    def _draw(self, waiting: Iterator[Request]) -> Request | None:
        """Return the next request; its place is given back where there is none."""
        request = None
        try:
            request = next(waiting, None)
        finally:
            if request is None:
                self._places.release()
        return request

    def _begin(
        self, request: Request, asked_s: float, calls: dict[int, _Call], inbox: Inbox
    ) -> Iterator[Event]:
        """Read a request's frames and send it."""
        answer = RemoteAnswer(request, self._tokenizer, is_wrapped=wraps_choices(self._facts))
        call = _Call(request, answer, asked_s, [time.perf_counter()])
        is_sent = False
        try:
            pictures = yield from self._look(call)
            call.marks_s.append(time.perf_counter())
            if pictures is None:
                yield self._finished(call, cancelled=True)
            else:
                call.cancel = self._send(request, pictures, inbox)
                calls[request.request_id] = call
                is_sent = True
        except Exception as error:  # noqa: BLE001 - one bad request must not end the others
            yield Failed(request.request_id, error)
        finally:
            if not is_sent:
                self._places.release()

    def _look(self, call: _Call) -> Generator[Event, None, list[tuple[str, ...]] | None]:
        """Return the pictures of a request's visuals; None when it was cancelled meanwhile."""
        request = call.request
        num_frames = sum(visual.plan.num_frames for visual in request.visuals)
        kept = [self._pictures.kept(visual) for visual in request.visuals]
        if kept and all(one is not None for one in kept):
            call.reused_tokens = _tokens_to_last_visual(request)
            return [one for one in kept if one is not None]
        found: list[tuple[str, ...]] = []
        num_done, num_bytes = 0, 0
        for visual in request.visuals:
            pictures: list[str] = []
            for some in self._pictures.encode(visual):
                if request.cancelled():
                    return None
                pictures += some
                num_done, num_bytes = num_done + len(some), num_bytes + sum(map(len, some))
                self._check_bytes(num_bytes, num_done)
                yield Progress(request.request_id, "vision", num_done, num_frames)
            found.append(tuple(pictures))
            self._pictures.keep(visual, found[-1])
        return None if request.cancelled() else found

    def _check_bytes(self, num_bytes: int, num_frames: int) -> None:
        most = self._settings.max_body_bytes
        if num_bytes > most:
            raise BudgetError(
                f"{num_frames} frames are {num_bytes} bytes already, a request may have {most}.",
                "fewer frames (max_frames), picture='jpeg', a smaller frame_px, or a larger "
                "max_body_bytes.",
            )

    def _send(
        self, request: Request, pictures: list[tuple[str, ...]], inbox: Inbox
    ) -> Callable[[], None]:
        body = chat_body(request, pictures, self._facts, self._settings)
        request_id, held = request.request_id, [self._places]

        def tell(reply: Reply) -> None:
            # Not when somebody takes the answer, which may be long after; and once, for an answer
            # that has ended may be cancelled as well.
            if isinstance(reply, Ended | Broken):
                with contextlib.suppress(IndexError):
                    held.pop().release()
            inbox.put((request_id, reply))

        return self._client.post(_PATH, json.dumps(body).encode(), tell)

    def _take(self, calls: dict[int, _Call], inbox: Inbox, *, may_wait: bool) -> Iterator[Event]:
        """Take what has come, perhaps after waiting a moment for the first; tell what it gives."""
        timeout_s = _LOOK_S if may_wait else 0.0
        while calls:
            try:
                request_id, reply = inbox.get(timeout_s > 0, timeout_s or None)
            except Empty:
                break
            timeout_s = 0.0
            if request_id in calls:
                yield from self._on(reply, calls[request_id], calls)
        for call in [call for call in calls.values() if call.request.cancelled()]:
            yield from self._end(call, calls, cancelled=True)

    def _on(self, reply: Reply, call: _Call, calls: dict[int, _Call]) -> Iterator[Event]:
        request_id = call.request.request_id
        try:
            if isinstance(reply, Began):
                call.answer.begin()
            elif isinstance(reply, Chunk):
                yield from self._read(reply, call)
                if call.answer.is_over:
                    yield from self._end(call, calls)
            elif isinstance(reply, Ended):
                yield from self._end(call, calls)
            else:
                raise reply.error
        except Exception as error:  # noqa: BLE001 - one bad reply must not end the others
            call.cancel()
            calls.pop(request_id, None)
            yield Failed(request_id, error)

    def _read(self, chunk: Chunk, call: _Call) -> Iterator[Event]:
        request = call.request
        if len(call.marks_s) == 2:
            call.marks_s.append(time.perf_counter())
            num_tokens = request.text_tokens + request.visual_tokens
            yield Progress(request.request_id, "prefill", num_tokens, num_tokens)
        piece = call.answer.read(chunk.value)
        if piece:
            yield TextPiece(request.request_id, piece)
            most = request.generation.max_new_tokens
            done = min(call.answer.num_tokens, most)
            yield Progress(request.request_id, "generate", done, most)

    def _end(
        self, call: _Call, calls: dict[int, _Call], *, cancelled: bool = False
    ) -> Iterator[Event]:
        call.cancel()
        rest = call.answer.end(cancelled=cancelled)
        if rest:
            yield TextPiece(call.request.request_id, rest)
        del calls[call.request.request_id]
        yield self._finished(call, cancelled=cancelled)

    def _finished(self, call: _Call, *, cancelled: bool) -> Finished:
        answer = call.answer.answer(
            call.timings(), reused_tokens=call.reused_tokens, cancelled=cancelled
        )
        return Finished(call.request.request_id, answer)


def _tokens_to_last_visual(request: Request) -> int:
    """Count prompt tokens up to the end of the last visual."""
    counts = [part.num_tokens for part in request.parts]
    stops = [idx for idx, part in enumerate(request.parts) if isinstance(part, VisualPart)]
    return sum(counts[: stops[-1] + 1])
