"""Exchanges → answers: one at a time, in a stream, or many at once in input order.

The only place that reads an engine's events on the user's side. Knows no video, model or template.
"""

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from llava_video.engine.request import Answer, Engine, Event, Failed, Finished, Request, TextPiece
from llava_video.errors import ConfigError, DecodeError, LlavaVideoError
from llava_video.exchange import Exchange
from llava_video.model.prompt import Turn
from llava_video.options import Settings, settings_of
from llava_video.values import Description

if TYPE_CHECKING:
    from llava_video.engine.sequence import Sequence as KvSequence

OnEvent = Callable[[Event], None]

# Requests of one batch under way, or waiting for an earlier one to be told. The engine runs fewer
# at once; a larger window only keeps it busy for longer beside one slow request.
_WINDOW = 64


def events_of(
    engine: Engine,
    exchanges: Iterable[Exchange],
    *,
    reuse: "KvSequence | None" = None,
    keep: bool = False,
) -> Iterator[Event]:
    """Run exchanges; a damaged video is tried once more with the frames that decode.

    A request that is tried again has no `Failed` event of its first try.
    """
    drawn: dict[int, Exchange] = {}

    def requests() -> Iterator[Request]:
        for exchange in exchanges:
            drawn[exchange.request_id] = exchange
            yield exchange.request(reuse=reuse, keep=keep)

    for event in engine.run(requests()):
        if isinstance(event, Failed) and isinstance(event.error, DecodeError):
            exchange = drawn[event.request_id]
            if exchange.drop_lost_frames():
                yield from engine.run([exchange.request(reuse=reuse, keep=keep)])
                continue
        if isinstance(event, Finished | Failed):
            del drawn[event.request_id]
        yield event


def answer_one(
    engine: Engine,
    exchange: Exchange,
    *,
    reuse: "KvSequence | None" = None,
    keep: bool = False,
    on_event: OnEvent | None = None,
) -> Answer:
    """Run one exchange to its answer.

    Raises:
        LlavaVideoError: the request's own error.
    """
    answer = _outcome_of(engine, exchange, reuse=reuse, keep=keep, on_event=on_event)
    if isinstance(answer, Exception):
        raise answer
    return answer


def answer_many(
    engine: Engine,
    shared: Exchange,
    conversations: Sequence[Sequence[Turn]],
    settings: Settings,
    on_event: OnEvent | None = None,
) -> list[Description]:
    """Ask several things of the same visuals under one set of options, as `answer_each` does.

    Raises:
        LlavaVideoError: a request's own error; the first one ends the call.
    """
    asked = [(turns, settings) for turns in conversations]
    return [checked(answer) for answer in answer_each(engine, shared, asked, on_event)]


def answer_each(
    engine: Engine,
    shared: Exchange,
    asked: Iterable[tuple[Sequence[Turn], Settings]],
    on_event: OnEvent | None = None,
) -> Iterator[Description | Exception]:
    """Ask several things of the same visuals; yield descriptions, or errors in their place.

    The first answer's cache serves the others. Where a plan has no prefix that can be shared, each
    sees the visuals anew, one after another: a decoder serves one request at a time.

    Args:
        engine: runs them.
        shared: the visuals, opened and planned for the longest of the conversations.
        asked: what is asked, each with its own settings of the answer.
        on_event: called with every event.
    """
    exchanges = enumerate(_followed(shared, asked))
    is_shared = shared.plan.reusable_prefix
    kept: KvSequence | None = None
    num_told = 0
    try:
        for request_id, exchange in exchanges:
            num_told = request_id + 1
            if isinstance(exchange, Exception):
                yield exchange
                continue
            answer = _outcome_of(engine, exchange, keep=is_shared, on_event=on_event)
            if isinstance(answer, Exception):
                yield answer
                continue
            kept = answer.sequence
            shared.take_frames_of(exchange)
            yield exchange.description(answer)
            if is_shared:
                break
        others = (exchange for _, exchange in exchanges)
        yield from descriptions_in_order(
            engine, others, first_id=num_told, reuse=kept, on_event=on_event
        )
    finally:
        if kept is not None:
            kept.release()


def _followed(
    shared: Exchange, asked: Iterable[tuple[Sequence[Turn], Settings]]
) -> Iterator[Exchange | Exception]:
    """Make an exchange of everything that is asked; an error stands for one without room."""
    for request_id, (turns, settings) in enumerate(asked):
        try:
            yield shared.follow(turns, settings, request_id)
        except LlavaVideoError as error:
            yield error


def _outcome_of(
    engine: Engine,
    exchange: Exchange,
    *,
    reuse: "KvSequence | None" = None,
    keep: bool,
    on_event: OnEvent | None,
) -> Answer | Exception:
    """Run one exchange to its answer, or to the error in its place."""
    for event in events_of(engine, [exchange], reuse=reuse, keep=keep):
        if on_event:
            on_event(event)
        if isinstance(event, Finished):
            return event.answer
        if isinstance(event, Failed):
            return event.error
    raise AssertionError("an engine ended without finishing its request")


def descriptions_in_order(
    engine: Engine,
    exchanges: Iterable[Exchange | Exception],
    *,
    first_id: int = 0,
    reuse: "KvSequence | None" = None,
    on_event: OnEvent | None = None,
) -> Iterator[Description | Exception]:
    """Run many exchanges at once; yield descriptions, or errors in their place, in input order.

    An exchange is closed as soon as it has ended, and all are when the iterator is closed. Answers
    that wait for an earlier one are bounded: no more than a window of requests is under way.

    Args:
        engine: runs them; it draws a new one from `exchanges` only when it has room.
        exchanges: with request ids first_id, first_id + 1, …; an exception stands for one that
            could not be made.
        first_id: the first request's id.
        reuse: a kept sequence whose prefix they share.
        on_event: called with every event.
    """
    open_ones: dict[int, Exchange] = {}
    ended: dict[int, Description | Exception] = {}

    numbered = enumerate(exchanges, first_id)

    def made() -> Iterator[Exchange]:
        for request_id, exchange in itertools.islice(numbered, _WINDOW):
            if isinstance(exchange, Exception):
                ended[request_id] = exchange
            else:
                open_ones[request_id] = exchange
                yield exchange

    told, told_before = [first_id], None
    try:
        while told_before != told[0]:
            told_before = told[0]
            for event in events_of(engine, made(), reuse=reuse):
                if on_event:
                    on_event(event)
                if isinstance(event, Finished | Failed):
                    with open_ones.pop(event.request_id) as exchange:
                        ended[event.request_id] = _outcome(exchange, event)
                yield from _next(ended, told)
            yield from _next(ended, told)  # the last of a window, when they could not be made
    finally:
        for exchange in open_ones.values():
            exchange.close()


def answers_in_order(
    engine: Engine,
    exchanges: Iterable[Exchange | Exception],
    on_error: Literal["raise", "return"],
    on_event: OnEvent | None = None,
) -> Iterator[Description | LlavaVideoError]:
    """As `descriptions_in_order`; an error is raised, or one of ours stands in its place."""
    for answer in descriptions_in_order(engine, exchanges, on_event=on_event):
        if isinstance(answer, LlavaVideoError) and on_error == "return":
            yield answer
        else:
            yield checked(answer)


def exchanges_of(
    requests: Iterable[Any], shared: Mapping[str, Any], open_: Callable[..., Exchange]
) -> Iterator[Exchange | Exception]:
    """Open requests one by one, as they are drawn; an error stands for one that cannot be.

    Args:
        requests: videos, or mappings {"video": …, "prompt": …, option: …}.
        shared: prompt and options of those that bring none.
        open_: (video, prompt, settings, request_id=…) → an exchange.
    """
    for idx, request in enumerate(requests):
        own = request if isinstance(request, Mapping) else {"video": request}
        asked = {**shared, **own}
        video, words = asked.pop("video", None), asked.pop("prompt")
        try:
            settings = settings_of(asked)
            yield open_(video, words, settings, request_id=idx)
        except LlavaVideoError as error:
            yield error


def _next(
    ended: dict[int, Description | Exception], told: list[int]
) -> Iterator[Description | Exception]:
    """Yield what has ended and is next; `told` holds the id of the next one."""
    while told[0] in ended:
        yield ended.pop(told[0])
        told[0] += 1


def _outcome(exchange: Exchange, event: Finished | Failed) -> Description | Exception:
    return event.error if isinstance(event, Failed) else exchange.description(event.answer)


def checked(answer: Description | Exception) -> Description:
    """Return a description, or raise the error that stands in its place."""
    if isinstance(answer, Exception):
        raise answer
    return answer


class Stream:
    """Pieces of an answer as they come; `description` is there once they have ended.

    Iterate it for the text. A stream that is left before its end is cancelled by `close`, by the
    end of its `with` block, or when nothing refers to it any more.
    """

    def __init__(self, engine: Engine, exchange: Exchange, on_event: OnEvent | None = None) -> None:
        self._exchange = exchange
        self._description: Description | None = None
        self._pieces = self._run(engine, on_event)

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def description(self) -> Description:
        """The whole answer; reads the rest of the stream first.

        Raises:
            ConfigError: when the stream was closed before its end.
        """
        for _ in self._pieces:
            pass
        if self._description is None:
            raise ConfigError("the stream was closed before its end.", "read it to the end first.")
        return self._description

    def close(self) -> None:
        """Cancel what is left, free its memory and close the visuals."""
        self._pieces.close()
        self._exchange.close()  # a stream that never began has not done it

    def _run(self, engine: Engine, on_event: OnEvent | None) -> Generator[str, None, None]:
        with self._exchange:
            for event in events_of(engine, [self._exchange]):
                if on_event:
                    on_event(event)
                if isinstance(event, TextPiece):
                    yield event.text
                elif isinstance(event, Finished):
                    self._description = self._exchange.description(event.answer)
                elif isinstance(event, Failed):
                    raise event.error
