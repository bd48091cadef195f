"""The engine over a server tells what the others tell, whatever the server does."""

import dataclasses
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from chat_server import MODEL, ChatServer, Handler, drop, serving, status, truncate

from llava_video.engine.remote import RemoteEngine
from llava_video.engine.request import Failed, Finished, Progress, Request, TextPiece, answer_of
from llava_video.errors import (
    BudgetError,
    CapacityError,
    ConfigError,
    ServerBusyError,
    ServerClosedError,
    ServerError,
    ServerRefusedError,
)
from llava_video.model.prompt import Turn
from llava_video.remote.address import Address
from llava_video.remote.client import ChatClient
from llava_video.remote.facts import ServerFacts
from llava_video.remote.settings import RemoteSettings

QUICK = RemoteSettings(retry_wait_s=0.01, max_retry_wait_s=0.05, retry_for_s=3.0, silence_s=5.0)
WHICH = "Which indices are shown?"


@pytest.fixture
def server(tiny) -> Iterator[ChatServer]:
    with serving(tiny.tokenizer) as running:
        yield running


@pytest.fixture
def connected(server: ChatServer, tiny):
    """Return a maker of engines over the server; all are closed at the end."""
    made: list[RemoteEngine] = []

    def make(settings: RemoteSettings = QUICK, **facts: Any) -> RemoteEngine:
        said = ServerFacts(base_url=server.url, model=MODEL, **{"kind": "vllm", **facts})
        client = ChatClient(Address(server.url, "A_KEY"), settings)
        made.append(RemoteEngine(client, said, settings, tiny.tokenizer, 384))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def asking(ask, video):
    """Return a maker of requests about frames: numbers, question, options."""

    def make(idxs: Any, question: str = WHICH, **options: Any) -> Request:
        part = idxs if not isinstance(idxs, list) else video(idxs)
        request = ask(part, question, **{"max_new_tokens": 200, **options})
        return dataclasses.replace(request, turns=(Turn("user", f"<image>\n{question}"),))

    return make


def test_answers_come_from_the_pixels(connected, asking, run_all, server: ChatServer) -> None:
    requests = [asking([idx, idx + 1], request_id=idx) for idx in range(0, 40, 2)]
    answers = run_all(connected(), requests)
    assert [answer.text for answer in answers] == [f"{idx}, {idx + 1}" for idx in range(0, 40, 2)]
    answer = answers[0]
    assert (answer.finish_reason, answer.new_tokens, answer.sequence) == ("stop", 7, None)
    assert answer.visual_tokens == 1000 - answer.text_tokens
    assert set(answer.timings) == {"wait", "vision", "prefill", "generate"}
    assert all(seconds >= 0 for seconds in answer.timings.values())


def test_typed_answers(connected, asking, server: ChatServer) -> None:
    for kind in ("vllm", "sglang", "other"):
        engine = connected(kind=kind)
        choice = answer_of(
            engine, asking([4, 9], "Is index 9 shown?", response_format=("Yes", "No"))
        )
        assert (choice.text, choice.parsed) == ("Yes", "Yes")
    schema = {"type": "object", "properties": {"count": {"type": "integer"}}}
    typed = answer_of(connected(), asking([4, 9], response_format=schema))
    assert typed.parsed == {"count": 2}


def test_no_more_are_at_the_server_than_it_is_to_be_given(
    connected, asking, run_all, server: ChatServer
) -> None:
    server.piece_s = 0.01
    engine = connected(dataclasses.replace(QUICK, max_running=3))
    many = [[asking([idx], request_id=idx) for idx in range(part, part + 6)] for part in (0, 6, 12)]
    texts: list[list[str]] = [[], [], []]

    def run(part: int) -> None:
        texts[part] = [answer.text for answer in run_all(engine, many[part])]

    threads = [threading.Thread(target=run, args=(part,)) for part in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [[str(idx) for idx in range(part, part + 6)] for part in (0, 6, 12)]
    assert server.most_working == 3


def test_requests_are_drawn_when_there_is_a_place(
    connected, asking, video, server: ChatServer
) -> None:
    drawn = []

    def requests() -> Iterator[Request]:
        for idx in range(9):
            drawn.append(idx)
            yield asking([idx], request_id=idx)

    server.piece_s = 0.05
    engine = connected(dataclasses.replace(QUICK, max_running=2))
    for event in engine.run(requests()):
        if isinstance(event, Finished):
            break
    assert len(drawn) <= 4  # two at once, and as many as have ended since


def test_a_run_that_nobody_reads_on_holds_no_place(connected, asking, server: ChatServer) -> None:
    engine = connected(dataclasses.replace(QUICK, max_running=1))
    paused = engine.run([asking([1], request_id=1), asking([2], request_id=2)])
    while not isinstance(next(paused), TextPiece):
        pass
    assert answer_of(engine, asking([3])).text == "3"
    assert [e.answer.text for e in paused if isinstance(e, Finished)] == ["1", "2"]


def test_a_second_question_decodes_nothing(connected, asking, video, server: ChatServer) -> None:
    engine, part = connected(), video([3, 9])
    first, second = (answer_of(engine, asking(part, words)) for words in (WHICH, "how many frames"))
    assert (first.text, second.text, part.clips.opened) == ("3, 9", "2", 1)
    assert first.reused_tokens < part.plan.num_tokens <= second.reused_tokens


def test_one_bad_request_does_not_end_the_others(
    connected, asking, video, run_all, server: ChatServer
) -> None:
    broken = asking(video([7, 8], fail_at=8), request_id=1)
    stretched = dataclasses.replace(asking([5], request_id=2), position_scale=2.0)
    good, decoding, asked = run_all(connected(), [asking([3], request_id=0), broken, stretched])
    assert good.text == "3"
    assert isinstance(decoding, RuntimeError)
    assert isinstance(asked, ConfigError)


def test_storms_pass(connected, asking, run_all, server: ChatServer) -> None:
    server.faults += [status(429, retry_after="0")] * 20 + [drop, truncate(1), status(503)] * 3
    answers = run_all(connected(), [asking([idx], request_id=idx) for idx in range(10)])
    assert [answer.text for answer in answers] == [str(idx) for idx in range(10)]


def test_a_break_in_the_midst_is_not_told_twice(connected, asking, server: ChatServer) -> None:
    server.faults += [truncate(3), drop, truncate(5)]
    events = list(connected().run([asking([100, 101, 102])]))
    pieces = [event.text for event in events if isinstance(event, TextPiece)]
    assert "".join(pieces) == events[-1].answer.text == "100, 101, 102"
    assert len(server.bodies) == 4


@pytest.mark.parametrize(
    ("fault", "cls"),
    [
        (status(401), ServerClosedError),
        (status(404), ServerRefusedError),
        (status(413), BudgetError),
        (status(400, {"message": "maximum context length is 10 tokens, not 20"}), BudgetError),
        (status(500), ServerError),
    ],
)
def test_errors_are_the_requests(
    connected, asking, server: ChatServer, fault: Any, cls: type[Exception]
) -> None:
    server.fault = fault
    (failed,) = [event for event in connected().run([asking([1])]) if isinstance(event, Failed)]
    assert type(failed.error) is cls
    server.fault = None
    assert answer_of(connected(), asking([1])).text == "1"


def test_no_patience(connected, asking, server: ChatServer) -> None:
    server.fault = status(429)
    with pytest.raises(ServerBusyError):
        answer_of(connected(dataclasses.replace(QUICK, retry_for_s=0.0)), asking([1]))


def test_too_large_a_request_is_not_sent(connected, asking, server: ChatServer) -> None:
    engine = connected(dataclasses.replace(QUICK, max_body_bytes=2000))
    with pytest.raises(BudgetError, match="a request may have 2000"):
        answer_of(engine, asking(list(range(50))))
    assert server.bodies == []


def endless(gone: threading.Event) -> Any:
    def fault(handler: Handler) -> bool:
        handler.begin_stream()
        try:
            while True:
                handler.event({"choices": [{"delta": {"content": "more "}}]})
                time.sleep(0.01)
        except OSError:
            gone.set()
        return True

    return fault


def test_cancelling_keeps_what_was_said_and_closes_the_connection(
    connected, asking, server: ChatServer
) -> None:
    gone, wanted = threading.Event(), [True]
    server.fault = endless(gone)
    request = asking([1], max_new_tokens=100_000, cancelled=lambda: not wanted[0])
    for event in connected().run([request]):
        if isinstance(event, TextPiece):
            wanted.clear()
            wanted.append(False)
    assert isinstance(event, Finished)
    assert event.answer.finish_reason == "cancelled"
    assert event.answer.text.startswith("more")
    assert gone.wait(5)


def test_cancelling_before_frames_are_read_sends_nothing(
    connected, asking, server: ChatServer
) -> None:
    answer = answer_of(connected(), asking([1, 2, 3], cancelled=lambda: True))
    assert (answer.finish_reason, answer.text, server.bodies) == ("cancelled", "", [])


def test_a_run_that_is_left_closes_its_connections(connected, asking, server: ChatServer) -> None:
    gone = threading.Event()
    server.fault = endless(gone)
    engine = connected(dataclasses.replace(QUICK, max_running=1))
    run = engine.run([asking([1], max_new_tokens=100_000)])
    while not isinstance(next(run), TextPiece):
        pass
    run.close()
    assert gone.wait(5)
    server.fault = None
    assert answer_of(engine, asking([2])).text == "2"  # its place is free


def test_closing_ends_who_waits(connected, asking, server: ChatServer) -> None:
    server.fault = endless(threading.Event())
    engine = connected()
    ended: list[Any] = []

    def run() -> None:
        ended.extend(engine.run([asking([1], max_new_tokens=100_000)]))

    thread = threading.Thread(target=run)
    thread.start()
    while not server.bodies:
        time.sleep(0.01)
    engine.close()
    thread.join(5)
    assert isinstance(ended[-1].error, CapacityError)


def test_progress_is_told(connected, asking) -> None:
    events = list(connected().run([asking([1, 2, 3])]))
    told = [(e.stage, e.done, e.total) for e in events if isinstance(e, Progress)]
    assert told[:2] == [("vision", 2, 3), ("vision", 3, 3)]
    assert [stage for stage, _, _ in told[2:4]] == ["prefill", "generate"]


def test_a_loop_ends_at_the_server_too(connected, asking, server: ChatServer) -> None:
    gone = threading.Event()
    server.fault = endless(gone)
    answer = answer_of(connected(), asking([1], max_new_tokens=100_000, loop_guard=True))
    assert answer.finish_reason == "loop"
    assert gone.wait(5)
