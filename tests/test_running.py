"""Events become answers in input order; a damaged video is tried again without its lost frames."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from llava_video.api import LlavaVideo
from llava_video.engine.request import Answer, Event, Failed, Finished, Request, TextPiece
from llava_video.errors import ConfigError, DecodeError, SourceError
from llava_video.exchange import Exchange, open_exchange
from llava_video.model.prompt import Turn
from llava_video.options import settings_of
from llava_video.running import Stream, answer_each, answer_one, descriptions_in_order
from llava_video.values import Description

ANSWER = Answer(
    text="yes",
    token_ids=(1,),
    finish_reason="stop",
    text_tokens=1,
    visual_tokens=0,
    new_tokens=1,
)


class FakeExchange:
    """Counts its tries; the first `losses` of them lose frames."""

    def __init__(self, request_id: int = 0, losses: int = 0) -> None:
        self.request_id, self.losses, self.tries, self.closed = request_id, losses, 0, False

    def request(self, **_: object) -> Any:
        self.tries += 1
        return self

    def drop_lost_frames(self) -> bool:
        return self.losses > 0

    def description(self, answer: Answer) -> Any:
        return f"{answer.text} {self.request_id}"

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> "FakeExchange":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class FakeEngine:
    """Answers a window of requests backwards; a request fails until its losses are used up."""

    def __init__(self, window: int = 10) -> None:
        self.window, self.cancelled = window, False

    def run(self, requests: Iterable[Request]) -> Iterator[Event]:
        source = iter(requests)
        try:
            while drawn := cast("list[FakeExchange]", list(itertools.islice(source, self.window))):
                for exchange in reversed(drawn):
                    yield TextPiece(exchange.request_id, "ye")
                    yield TextPiece(exchange.request_id, "s")
                    if exchange.tries <= exchange.losses:
                        error = DecodeError(f"lost {exchange.tries}")
                        yield Failed(exchange.request_id, error)
                    else:
                        yield Finished(exchange.request_id, ANSWER)
        except GeneratorExit:
            self.cancelled = True
            raise


def _as_exchange(fake: FakeExchange) -> Exchange:
    return cast("Exchange", fake)


def _descriptions(exchanges: list[Any], **options: Any) -> list[Any]:
    return list(descriptions_in_order(FakeEngine(), exchanges, **options))


def test_answers_come_in_input_order_with_errors_in_their_place() -> None:
    exchanges = [FakeExchange(0), SourceError("gone"), FakeExchange(2), SourceError("gone too")]
    found = _descriptions(exchanges)
    assert [str(answer) for answer in found] == ["yes 0", "gone", "yes 2", "gone too"]
    assert isinstance(found[1], SourceError)
    assert exchanges[0].closed  # type: ignore[union-attr]  # not an error
    assert _descriptions([FakeExchange(5), FakeExchange(6)], first_id=5) == ["yes 5", "yes 6"]


def test_leaving_a_batch_early_cancels_it_and_closes_what_is_open() -> None:
    exchanges = [FakeExchange(idx) for idx in range(4)]
    engine = FakeEngine(window=2)
    answers = descriptions_in_order(engine, cast("Any", exchanges))
    assert next(answers) == cast("Any", "yes 0")
    cast("Any", answers).close()
    assert engine.cancelled
    assert all(exchange.closed for exchange in exchanges if exchange.tries)


def test_lost_frames_are_tried_once_more_and_only_once() -> None:
    once = FakeExchange(losses=1)
    events: list[Event] = []
    assert answer_one(FakeEngine(), _as_exchange(once), on_event=events.append) is ANSWER
    assert once.tries == 2
    assert not any(isinstance(event, Failed) for event in events)
    with pytest.raises(DecodeError, match="lost 2"):
        answer_one(FakeEngine(), _as_exchange(FakeExchange(losses=2)))
    assert _descriptions([FakeExchange(losses=1)]) == ["yes 0"]


def test_a_stream_ends_with_its_description_and_closes() -> None:
    exchange = FakeExchange()
    stream = Stream(FakeEngine(), _as_exchange(exchange))
    assert "".join(stream) == "yes"
    assert stream.description == cast("Any", "yes 0")
    assert exchange.closed


def test_a_stream_left_by_break_and_closed_is_cancelled() -> None:
    exchange, engine = FakeExchange(), FakeEngine()
    with Stream(engine, _as_exchange(exchange)) as stream:
        for _ in stream:
            break
    assert engine.cancelled
    assert exchange.closed
    with pytest.raises(ConfigError, match="closed before its end"):
        _ = stream.description


def test_a_stream_that_never_began_closes_its_visuals() -> None:
    exchange = FakeExchange()
    Stream(FakeEngine(), _as_exchange(exchange)).close()
    assert exchange.closed
    assert exchange.tries == 0


def test_answers_that_wait_for_a_slow_one_are_bounded() -> None:
    made: list[int] = []

    def exchanges() -> Iterator[Any]:
        for idx in range(300):
            made.append(idx)
            yield FakeExchange(idx)

    answers = descriptions_in_order(FakeEngine(window=1000), exchanges())
    assert next(answers) == cast("Any", "yes 0")  # told last: the fake answers backwards
    assert len(made) == 64
    assert [str(answer) for answer in answers] == [f"yes {idx}" for idx in range(1, 300)]


def _asked(model: LlavaVideo, video: Path, questions: list[str]) -> list[Description]:
    options: Any = {"num_frames": 4, "max_new_tokens": 6, "loop_guard": False}
    return model.ask_many(video, questions, **options)


def test_many_questions_share_what_they_can(
    tiny_model: LlavaVideo, mini_model: LlavaVideo, tiny_clip: Path
) -> None:
    """The first answer's cache, or, where a video is fused with the question, nothing."""
    questions = ["What is this?", "Why?", "Where and when?"]
    for model, shares in ((tiny_model, True), (mini_model, False)):
        answers = _asked(model, tiny_clip, questions)
        assert len(answers) == 3
        for answer, question in zip(answers, questions, strict=True):
            (alone,) = _asked(model, tiny_clip, [question])
            assert answer.text == alone.text
            assert len(answer.frames) == 4
            assert [ref.frame_idx for ref in answer.frames] == [r.frame_idx for r in alone.frames]
        reused = [answer.usage.reused_tokens > 0 for answer in answers[1:]]
        assert reused == [shares, shares]
    assert mini_model.engine.arena.used_tokens == 0  # type: ignore[attr-defined]  # the scheduler's


def test_an_answer_that_fails_stands_alone_and_the_next_one_looks(
    tiny_model: LlavaVideo, tiny_clip: Path
) -> None:
    """The first is no choice this engine can read, one in the middle leaves no room."""
    base: Any = {"num_frames": 4, "max_new_tokens": 6, "loop_guard": False}
    room = tiny_model.spec.geometry.context_tokens
    own: list[Any] = [
        {"response_format": ["a choice of more than six tokens", "b"]},
        {"response_format": ["yes", "no"]},
        {"max_new_tokens": room},
        {},
    ]
    asked = [((Turn("user", "Why?"),), settings_of({**base, **one})) for one in own]
    with open_exchange(tiny_model.spec, tiny_clip, "Why?", settings_of(base)) as shared:
        answers = list(answer_each(tiny_model.engine, shared, asked))
    assert [isinstance(answer, Exception) for answer in answers] == [True, False, True, False]
    chosen, free = cast("list[Description]", [answers[1], answers[3]])
    assert chosen.text in ("yes", "no")
    # All but the prompt's last token is there: the question is the same.
    assert free.usage.reused_tokens == chosen.plan.tokens - 1
    assert free.text == tiny_model.ask(tiny_clip, "Why?", **base).text
