"""Exchanges → answers: one at a time, in a stream, or many at once in input order.

The only place that reads an engine's events on the user's side. Knows no video, model or template.
"""

from collections.abc import Callable, Iterable, Iterator

from llava_video.engine.request import Answer, Engine, Event, Failed, Finished, Request, TextPiece
from llava_video.engine.sequence import Sequence as KvSequence
from llava_video.errors import DecodeError, LlavaVideoError
from llava_video.exchange import Exchange
from llava_video.values import Description

OnEvent = Callable[[Event], None]


def events_of(
    engine: Engine,
    exchange: Exchange,
    *,
    reuse: KvSequence | None = None,
    keep: bool = False,
) -> Iterator[Event]:
    """Run one exchange; a damaged video is tried once more with the frames that decode."""
    for event in engine.run([exchange.request(reuse=reuse, keep=keep)]):
        if _lost_frames(event) and exchange.drop_lost_frames():
            yield from engine.run([exchange.request(reuse=reuse, keep=keep)])
            return
        yield event


def answer_one(
    engine: Engine,
    exchange: Exchange,
    *,
    reuse: KvSequence | None = None,
    keep: bool = False,
    on_event: OnEvent | None = None,
) -> Answer:
    """Run one exchange to its answer.

    Raises:
        LlavaVideoError: the request's own error.
    """
    for event in events_of(engine, exchange, reuse=reuse, keep=keep):
        if on_event:
            on_event(event)
        if isinstance(event, Finished):
            return event.answer
        if isinstance(event, Failed):
            raise event.error
    raise AssertionError("an engine ended without finishing its request")


def answers_in_order(
    engine: Engine,
    exchanges: Iterable[Exchange | Exception],
    *,
    reuse: KvSequence | None = None,
    on_event: OnEvent | None = None,
) -> Iterator[tuple[Exchange | None, Answer | Exception]]:
    """Run many exchanges at once; yield (exchange, answer or its error) in input order.

    Args:
        engine: runs them; it draws a new one from `exchanges` only when it has room.
        exchanges: with request ids 0, 1, 2, …; an exception stands for one that could not be made.
        reuse: a kept sequence whose prefix they share.
        on_event: called with every event.
    """
    drawn: dict[int, Exchange | None] = {}
    ended: dict[int, Answer | Exception] = {}

    def requests() -> Iterator[Request]:
        for idx, exchange in enumerate(exchanges):
            if isinstance(exchange, Exception):
                drawn[idx], ended[idx] = None, exchange
            else:
                drawn[idx] = exchange
                yield exchange.request(reuse=reuse)

    next_idx = 0
    for event in engine.run(requests()):
        if on_event:
            on_event(event)
        if isinstance(event, Finished):
            ended[event.request_id] = event.answer
        elif isinstance(event, Failed):
            ended[event.request_id] = _second_try(engine, drawn[event.request_id], event)
        while next_idx in ended:
            yield drawn.pop(next_idx), ended.pop(next_idx)
            next_idx += 1
    while next_idx in ended:  # exchanges at the end that could not be made
        yield drawn.pop(next_idx), ended.pop(next_idx)
        next_idx += 1


class Stream:
    """Pieces of an answer as they come; `description` is there once they have ended.

    Iterate it for the text; leaving the loop early cancels the request and frees its memory.
    """

    def __init__(self, engine: Engine, exchange: Exchange, on_event: OnEvent | None = None) -> None:
        self._exchange = exchange
        self._description: Description | None = None
        self._pieces = self._run(engine, on_event)

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    @property
    def description(self) -> Description:
        """The whole answer; reads the rest of the stream first.

        Raises:
            DecodeError: when the stream was left before its end.
        """
        for _ in self._pieces:
            pass
        if self._description is None:
            raise DecodeError("the stream was left before its end.", "iterate it to the end first.")
        return self._description

    def _run(self, engine: Engine, on_event: OnEvent | None) -> Iterator[str]:
        try:
            for event in events_of(engine, self._exchange):
                if on_event:
                    on_event(event)
                if isinstance(event, TextPiece):
                    yield event.text
                elif isinstance(event, Finished):
                    self._description = self._exchange.description(event.answer)
                elif isinstance(event, Failed):
                    raise event.error
        finally:
            self._exchange.close()


def _lost_frames(event: Event) -> bool:
    return isinstance(event, Failed) and isinstance(event.error, DecodeError)


def _second_try(engine: Engine, exchange: Exchange | None, failed: Failed) -> Answer | Exception:
    if exchange is None or not _lost_frames(failed) or not exchange.drop_lost_frames():
        return failed.error
    try:
        return answer_one(engine, exchange)
    except LlavaVideoError as error:
        return error
