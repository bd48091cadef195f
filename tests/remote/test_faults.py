"""What a server says of a failure → the class, the words and whether to come back."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from llava_video.errors import (
    BudgetError,
    LlavaVideoError,
    ServerBusyError,
    ServerClosedError,
    ServerError,
    ServerRefusedError,
)
from llava_video.remote.address import Address
from llava_video.remote.faults import broken, fault_of_status, fault_of_stream, nonsense

KEY = "sk-open-sesame"
ADDRESS = Address("http://host/v1", "A_KEY", KEY)


def said(message: str, **more: object) -> str:
    return json.dumps({"error": {"message": message, **more}})


@pytest.mark.parametrize(
    ("status", "body", "cls", "may_pass"),
    [
        (429, said("slow down"), ServerBusyError, True),
        (503, "loading", ServerBusyError, True),
        (429, said("pay first", code="insufficient_quota"), ServerClosedError, False),
        (408, "", ServerError, True),
        (502, "<html>bad gateway</html>", ServerError, True),
        (504, "", ServerError, True),
        (500, said("CUDA"), ServerError, True),
        (401, said(f"wrong key {KEY}"), ServerClosedError, False),
        (403, "", ServerRefusedError, False),
        (404, said("The model `x` does not exist."), ServerRefusedError, False),
        (402, said("no credit"), ServerClosedError, False),
        (400, said("unknown parameter"), ServerRefusedError, False),
        (307, "", ServerRefusedError, False),
        (413, "", BudgetError, False),
    ],
)
def test_classes(status: int, body: str, cls: type[LlavaVideoError], may_pass: bool) -> None:
    fault = fault_of_status(status, body, ADDRESS)
    assert (type(fault.error), fault.may_pass) == (cls, may_pass)
    assert str(status) in fault.error.message
    assert fault.error.hint


def test_a_servers_own_fault_is_tried_a_few_times() -> None:
    assert fault_of_status(500, "", ADDRESS).most_tries == 3
    assert fault_of_status(503, "", ADDRESS).most_tries is None


@pytest.mark.parametrize(
    ("message", "need", "have"),
    [
        ("This model's maximum context length is 4096 tokens. However, you requested 5000 tokens "
         "(4500 in the messages, 500 in the completion).", 5000, 4096),
        ("The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
         5000, 4096),
        ("The input (5000 tokens) is longer than the model's context length (4096 tokens).",
         5000, 4096),
    ],
)  # fmt: skip
def test_too_long_a_prompt_has_the_numbers(message: str, need: int, have: int) -> None:
    error = fault_of_status(400, said(message), ADDRESS).error
    assert isinstance(error, BudgetError)
    assert (error.need_tokens, error.have_tokens) == (need, have)
    assert "max_frames" in error.hint


def test_too_many_pictures_say_what_to_do() -> None:
    error = fault_of_status(400, said("At most 1 image(s) may be provided."), ADDRESS).error
    assert "--limit-mm-per-prompt" in error.hint


def test_a_missing_and_a_wrong_key_are_told_apart() -> None:
    wrong = fault_of_status(401, "", ADDRESS).error
    missing = fault_of_status(401, "", Address("http://host/v1", "A_KEY")).error
    assert "does not accept the key in A_KEY" in wrong.message
    assert "A_KEY is not set" in missing.message
    assert "export A_KEY" in missing.hint


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_no_message_has_the_key(status: int) -> None:
    error = fault_of_status(status, said(f"you sent {KEY}, which is"), ADDRESS).error
    assert KEY not in str(error)
    assert KEY not in str(nonsense("no JSON", f"hello {KEY}", ADDRESS).error)
    assert KEY not in str(broken(f"said {KEY}", ADDRESS).error)


def test_long_messages_are_cut() -> None:
    assert len(fault_of_status(400, said("data:" + "A" * 10**6), ADDRESS).error.message) < 600
    assert len(nonsense("no JSON", "<p>" * 10**6, ADDRESS).error.message) < 600


@pytest.mark.parametrize("form", [{"detail": "no"}, {"message": "no"}, {"error": "no"}, "no"])
def test_every_form_of_an_error_is_read(form: object) -> None:
    assert ": no" in fault_of_status(400, json.dumps(form), ADDRESS).error.message


@pytest.mark.parametrize(
    ("written", "after_s"), [("7", 7.0), ("1.5", 1.5), ("-3", 0.0), ("soon", 0.0), ("", 0.0)]
)
def test_retry_after(written: str, after_s: float) -> None:
    assert fault_of_status(429, "", ADDRESS, {"retry-after": written}).after_s == after_s


def test_retry_after_a_date() -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < fault_of_status(503, "", ADDRESS, {"retry-after": at}).after_s <= 30


def test_an_error_inside_a_stream_has_its_own_status() -> None:
    busy = fault_of_stream({"message": "full", "code": 429}, ADDRESS)
    assert isinstance(busy.error, ServerBusyError)
    unknown = fault_of_stream("what?", ADDRESS)
    assert (type(unknown.error), unknown.most_tries) == (ServerError, 3)
