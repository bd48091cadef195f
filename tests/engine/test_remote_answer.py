"""Chunks become the answer that was asked for, and say when they do not."""

import dataclasses
from typing import Any

import pytest
from chat_server import chunk

from llava_video.engine.remote_answer import RemoteAnswer
from llava_video.engine.request import Answer
from llava_video.errors import ServerError

USAGE = {"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 3}}


@pytest.fixture
def told(tiny, ask):
    """Return a function: pieces of a reply and options of the request → the answer."""

    def tell(
        *pieces: str | dict[str, Any], reason: str = "stop", wrapped: bool = False, **options: Any
    ) -> Answer:
        options = {"max_new_tokens": 500, **options}
        answer = RemoteAnswer(ask("What?", **options), tiny.tokenizer, is_wrapped=wrapped)
        shown = ""
        for piece in pieces:
            value = chunk({"content": piece}) if isinstance(piece, str) else piece
            shown += answer.read(value)
            if answer.is_over:
                break
        else:
            shown += answer.read(chunk({}, reason=reason))
        shown += answer.end()
        made = answer.answer({}, reused_tokens=0, cancelled=False)
        assert shown == made.text
        return made

    return tell


def test_pieces_join(told) -> None:
    answer = told(" a", " b", " ", USAGE)
    assert (answer.text, answer.finish_reason, answer.warnings) == ("a b", "stop", ())
    assert (answer.text_tokens, answer.visual_tokens, answer.new_tokens) == (5, 95, 3)
    assert bytes(answer.token_ids) == b"a b"


def test_without_usage_the_plans_tokens_stand(told) -> None:
    answer = told("ab")
    assert (answer.text_tokens, answer.visual_tokens, answer.new_tokens) == (5, 0, 2)
    assert "told no usage" in answer.warnings[0]


def test_what_the_server_had_in_its_cache(told) -> None:
    details = {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 7}}
    assert told("a", {"choices": [], "usage": details}).reused_tokens == 7
    assert told("a", {"choices": [], "usage": {"prompt_tokens_details": 3}}).reused_tokens == 0


@pytest.mark.parametrize(
    ("reason", "finish", "is_known"),
    [
        ("stop", "stop", True),
        ("length", "length", True),
        ("eos_token", "stop", True),
        ("content_filter", "stop", False),
        ("tool_calls", "stop", False),
    ],
)
def test_reasons(told, reason: str, finish: str, is_known: bool) -> None:
    answer = told("a", USAGE, reason=reason)
    assert answer.finish_reason == finish
    assert answer.warnings == (() if is_known else (f"the server ended the answer by {reason!r}.",))


def test_an_aborted_answer_is_none(told) -> None:
    with pytest.raises(ServerError, match="abort"):
        told("a", reason="abort")


def test_stop_strings_hold_whatever_the_server_does(told) -> None:
    answer = told("one E", "ND two", "three", stop=("END",))
    assert (answer.text, answer.finish_reason) == ("one", "stop")


def test_loops_are_stopped(told) -> None:
    answer = told(*["again and "] * 100, USAGE, loop_guard=True)
    assert answer.finish_reason == "loop"
    assert len(answer.text) < 200
    assert "repeated itself" in answer.warnings[0]
    assert told(*["again and "] * 100).finish_reason == "stop"


def test_an_answer_without_end_is_cut(told) -> None:
    answer = told(*["word after word "] * 10_000, max_new_tokens=10)
    assert answer.finish_reason == "length"
    assert len(answer.text) < 10 * 64 + 4096 + 20


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("said", ["Yes", " yes\n", "YES"])
def test_choices(told, wrapped: bool, said: str) -> None:
    text = f'{{"answer": "{said.strip()}"}}' if wrapped else said
    answer = told(text[:4], text[4:], wrapped=wrapped, response_format=("Yes", "No"))
    assert (answer.text, answer.parsed, answer.confidence) == ("Yes", "Yes", None)


@pytest.mark.parametrize("wrapped", [False, True])
def test_confidence(told, wrapped: bool) -> None:
    def listed(token: str, **shares: float) -> Any:
        top = [{"token": one, "logprob": value} for one, value in shares.items()]
        own = {"token": token, "logprob": shares[token], "top_logprobs": top}
        return chunk({"content": token}, logprobs={"content": [own]})

    opening = [listed('{"answer":"', **{'{"answer":"': 0.0})] if wrapped else []
    closing = ['"}'] if wrapped else []
    pieces = [*opening, listed("A", A=-1.0, B=-1.0, C=-30.0), *closing]
    answer = told(*pieces, wrapped=wrapped, response_format=("A", "B"))
    assert answer.parsed == "A"
    assert answer.confidence == pytest.approx(0.5)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("said", ["Perhaps", '{"answer": 3}', "[1]"])
def test_what_is_no_choice_is_said(told, wrapped: bool, said: str) -> None:
    answer = told(said, USAGE, wrapped=wrapped, response_format=("Yes", "No"))
    assert (answer.text, answer.parsed, answer.confidence) == (said, None, None)
    assert "not complete" in answer.warnings[0]


def test_schemas(told) -> None:
    schema = {"type": "object"}
    assert told('{"n"', ": 3}", response_format=schema).parsed == {"n": 3}
    cut = told('{"n"', USAGE, response_format=schema, reason="length")
    assert (cut.parsed, len(cut.warnings)) == (None, 1)
    fenced = told("```json\n{}\n```", USAGE, response_format=schema)
    assert (fenced.parsed, len(fenced.warnings)) == (None, 1)


def reply(answer: RemoteAnswer, *pieces: str) -> str:
    return "".join(answer.read(chunk({"content": piece})) for piece in pieces)


def test_another_try_goes_on_where_the_first_broke_off(tiny, ask) -> None:
    answer = RemoteAnswer(ask("What?"), tiny.tokenizer, is_wrapped=False)
    assert reply(answer, "one t", "wo") == "one two"
    answer.begin()
    assert reply(answer, "one", " ", "two thr", "ee") == " three"
    assert answer.end() == ""
    assert answer.answer({}, reused_tokens=0, cancelled=False).text == "one two three"


def test_another_try_that_says_something_else_is_no_answer(tiny, ask) -> None:
    answer = RemoteAnswer(ask("What?"), tiny.tokenizer, is_wrapped=False)
    assert reply(answer, "one two") == "one two"
    answer.begin()
    with pytest.raises(ServerError, match="began another one"):
        reply(answer, "one", " too")


def test_a_shorter_second_try_is_no_answer(tiny, ask) -> None:
    answer = RemoteAnswer(ask("What?"), tiny.tokenizer, is_wrapped=False)
    reply(answer, "one two")
    answer.begin()
    reply(answer, "one")
    with pytest.raises(ServerError, match="began another one"):
        answer.end()


def test_chunks_of_strange_forms_change_nothing(told) -> None:
    strange = [{"choices": []}, {"choices": [3]}, {"choices": [{"delta": None}], "usage": 3}]
    assert told(*strange, "a", chunk({"content": None}), chunk({"content": 3})).text == "a"


def test_a_cancelled_answer_says_so(tiny, ask) -> None:
    request = dataclasses.replace(ask("What?", response_format=("a", "b")))
    answer = RemoteAnswer(request, tiny.tokenizer, is_wrapped=False).answer(
        {}, reused_tokens=0, cancelled=True
    )
    assert (answer.finish_reason, answer.parsed) == ("cancelled", None)
