"""Events become answers in input order; a damaged video is tried again without its lost frames."""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import pytest

from llava_video.engine.request import Answer, Event, Failed, Finished, Request, TextPiece
from llava_video.errors import DecodeError, SourceError
from llava_video.exchange import Exchange
from llava_video.running import Stream, answer_one, answers_in_order

ANSWER = Answer(
    text="yes",
    token_ids=(1,),
    finish_reason="stop",
    text_tokens=1,
    visual_tokens=0,
    new_tokens=1,
)


class FakeExchange:
    """Counts its tries; `losses` of them lose frames."""

    def __init__(self, idx: int = 0, losses: int = 0) -> None:
        self.idx, self.losses, self.tries, self.closed = idx, losses, 0, False

    def request(self, **_: object) -> Any:
        self.tries += 1
        return self

    def drop_lost_frames(self) -> bool:
        return self.losses > 0

    def description(self, answer: Answer) -> Any:
        return answer.text

    def close(self) -> None:
        self.closed = True


class FakeEngine:
    """Answers a window of requests backwards; a request fails until its losses are used up."""

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        drawn = cast("list[FakeExchange]", list(requests))
        for exchange in reversed(drawn):
            yield TextPiece(exchange.idx, "ye")
            yield TextPiece(exchange.idx, "s")
            if exchange.tries <= exchange.losses:
                yield Failed(exchange.idx, DecodeError(f"lost {exchange.tries}"))
            else:
                yield Finished(exchange.idx, ANSWER)


def _as_exchange(fake: FakeExchange) -> Exchange:
    return cast("Exchange", fake)


def test_answers_come_in_input_order_with_errors_in_their_place() -> None:
    exchanges = [FakeExchange(0), SourceError("gone"), FakeExchange(2), SourceError("gone too")]
    found = list(answers_in_order(FakeEngine(), cast("Any", exchanges)))
    assert [str(answer) for _, answer in found if isinstance(answer, Exception)] == [
        "gone",
        "gone too",
    ]
    assert [exchange is None for exchange, _ in found] == [False, True, False, True]
    assert found[2][1] is ANSWER


def test_lost_frames_are_tried_once_more_and_only_once() -> None:
    once = FakeExchange(losses=1)
    assert answer_one(FakeEngine(), _as_exchange(once)) is ANSWER
    assert once.tries == 2
    twice = FakeExchange(losses=2)
    with pytest.raises(DecodeError, match="lost 2"):
        answer_one(FakeEngine(), _as_exchange(twice))
    in_batch = list(answers_in_order(FakeEngine(), [_as_exchange(FakeExchange(losses=1))]))
    assert in_batch[0][1] is ANSWER


def test_a_stream_ends_with_its_description_and_closes() -> None:
    exchange = FakeExchange()
    stream = Stream(FakeEngine(), _as_exchange(exchange))
    assert "".join(stream) == "yes"
    assert stream.description == cast("Any", "yes")
    assert exchange.closed


def test_a_stream_left_early_has_no_description() -> None:
    exchange = FakeExchange()
    stream = Stream(FakeEngine(), _as_exchange(exchange))
    pieces = iter(stream)
    next(pieces)
    cast("Any", pieces).close()
    assert exchange.closed
    with pytest.raises(DecodeError, match="left before its end"):
        _ = stream.description
