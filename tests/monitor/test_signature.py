"""A signature is what its documentation says, and says who sent what when."""

import hashlib
import hmac

import pytest

from llava_video.monitor.signature import SIGNATURE, TIMESTAMP, is_signed, signed_headers

SECRET, BODY, NOW_S = b"key", b'{"id": 1}', 1_790_000_000.5


def test_it_is_the_hmac_of_time_and_body() -> None:
    wanted = hmac.new(b"key", b'1790000000.{"id": 1}', hashlib.sha256).hexdigest()
    assert signed_headers(SECRET, BODY, NOW_S) == {
        TIMESTAMP: "1790000000",
        SIGNATURE: f"sha256={wanted}",
    }


def test_what_was_signed_is_taken_in_time_and_in_any_case_of_headers() -> None:
    headers = signed_headers(SECRET, BODY, NOW_S)
    lower = {name.lower(): value for name, value in headers.items()}
    assert is_signed(SECRET, headers, BODY, NOW_S + 299)
    assert is_signed(SECRET, lower, BODY, NOW_S - 299)
    assert not is_signed(SECRET, headers, BODY, NOW_S + 301)
    assert not is_signed(SECRET, headers, BODY, NOW_S - 301)
    assert is_signed(SECRET, headers, BODY, NOW_S + 301, tolerance_s=400)


@pytest.mark.parametrize(
    "change",
    [
        {TIMESTAMP: "1790000001"}, {TIMESTAMP: ""}, {TIMESTAMP: "9" * 400}, {TIMESTAMP: "١"},
        {TIMESTAMP: "-1"}, {SIGNATURE: ""}, {SIGNATURE: "sha256="}, {SIGNATURE: "sha256=ü"},
    ],
)  # fmt: skip
def test_anything_else_is_refused(change: dict[str, str]) -> None:
    headers = signed_headers(SECRET, BODY, NOW_S)
    assert not is_signed(SECRET, {**headers, **change}, BODY, NOW_S)
    assert not is_signed(SECRET, {}, BODY, NOW_S)
    assert not is_signed(b"other", headers, BODY, NOW_S)
    assert not is_signed(SECRET, headers, BODY + b" ", NOW_S)
