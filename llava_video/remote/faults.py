"""What went wrong between us and a server → a typed error, and whether the same may work later.

Messages quote what the server said, cut and without the key.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from llava_video.errors import (
    BudgetError,
    LlavaVideoError,
    ServerBusyError,
    ServerClosedError,
    ServerError,
    ServerRefusedError,
)
from llava_video.remote.address import Address

_MOST_CHARS: Final = 400
# A server's own fault may be the request's: a few tries tell.
_FEW_TRIES: Final = 3
_NO_ROOM: Final = (429, 503, 529)
_AWAY: Final = (408, 425, 502, 504)
_TOO_LONG: Final = re.compile(
    r"context[ _]length|context window|max_model_len|maximum model length"
    r"|longer than the (?:maximum )?model|too many tokens",
    re.IGNORECASE,
)
_HAS: Final = re.compile(
    r"(?:context[ _]length|context window|max_model_len|model length)\D{0,30}?(\d+)", re.IGNORECASE
)
_PICTURES: Final = re.compile(
    r"(?:image|video)\(?s?\)? may be provided|limit.mm.per.prompt", re.IGNORECASE
)


class Fault(Exception):
    """One failed try of one request.

    Args:
        error: what the request ends with if it is not tried again.
        may_pass: whether another try may succeed.
        after_s: not before so many seconds, as the server says.
        most_tries: how many tries of it are enough; None for as long as there is patience.
    """

    def __init__(
        self,
        error: LlavaVideoError,
        *,
        may_pass: bool = False,
        after_s: float = 0.0,
        most_tries: int | None = None,
    ) -> None:
        super().__init__(str(error))
        self.error, self.may_pass = error, may_pass
        self.after_s, self.most_tries = after_s, most_tries


def fault_of_status(
    status: int, text: str, address: Address, headers: Mapping[str, str] | None = None
) -> Fault:
    """Return what a status other than success says.

    Args:
        status: HTTP's.
        text: the body, or the beginning of it.
        address: the server's.
        headers: with lower-case names.
    """
    headers = headers or {}
    said, code = _said(text, address)
    who = address.base_url
    answered = f"{who} answered {status}{': ' + said if said else '.'}"
    if status in _NO_ROOM and code != "insufficient_quota":
        return Fault(
            ServerBusyError(answered, "fewer requests at once (max_running, in_flight), or wait."),
            may_pass=True,
            after_s=_after_s(headers.get("retry-after", "")),
        )
    if status in _AWAY:
        return Fault(
            ServerError(answered, "see the server's log."),
            may_pass=True,
            after_s=_after_s(headers.get("retry-after", "")),
        )
    if status >= 500:
        error = ServerError(answered, "see the server's log.")
        return Fault(error, may_pass=True, most_tries=_FEW_TRIES)
    if status in (401, 403):
        return Fault(_key_error(status, address))
    if status == 413 or (status in (400, 422) and _TOO_LONG.search(f"{said} {code}")):
        return Fault(_too_long(status, said, answered))
    is_closed = status == 402 or code == "insufficient_quota"
    refusal = ServerClosedError if is_closed else ServerRefusedError
    return Fault(refusal(answered, _hint_of(status, said, headers)))


def fault_of_stream(error: Any, address: Address) -> Fault:
    """Return what an error inside a stream says, where the status had been success already."""
    code = error.get("code") if isinstance(error, Mapping) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return fault_of_status(status, json.dumps({"error": error}), address)


def broken(message: str, address: Address, hint: str = "see the server's log.") -> Fault:
    """Return the fault of a connection that cannot be made, breaks, or falls silent.

    Args:
        message: what happened, to stand behind the address.
        address: the server's.
        hint: what to do.
    """
    error = ServerError(address.without_key(f"{address.base_url} {message}"), hint)
    return Fault(error, may_pass=True)


def nonsense(what: str, text: str, address: Address) -> Fault:
    """Return the fault of a reply that is none.

    Args:
        what: it is, "no JSON".
        text: the reply, or the beginning of it.
        address: the server's.
    """
    shown = _cut(address.without_key(text))
    error = ServerError(
        f"{address.base_url} answered {what}: {shown!r}.",
        "is base_url that of an OpenAI-compatible server, with its /v1?",
    )
    return Fault(error, may_pass=True, most_tries=_FEW_TRIES)


def _said(text: str, address: Address) -> tuple[str, str]:
    """Return the message and the code of an error's body, in whichever of the known forms."""
    try:
        body = json.loads(text)
    except ValueError:
        body = text
    inner = body.get("error", body) if isinstance(body, Mapping) else body
    message, code = inner, ""
    if isinstance(inner, Mapping):
        message = next((inner[k] for k in ("message", "detail", "msg") if inner.get(k)), inner)
        code = str(inner.get("code") or inner.get("type") or "")
    words = message if isinstance(message, str) else json.dumps(message)
    return _cut(address.without_key(words)), code


def _cut(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _MOST_CHARS else words[:_MOST_CHARS] + " …"


def _key_error(status: int, address: Address) -> ServerRefusedError:
    # 403 may be about one request, such as a picture that a filter refuses.
    refusal = ServerClosedError if status == 401 else ServerRefusedError
    # What the server says here may quote the key, or most of it.
    variable = address.key_variable
    if address.key:
        message = f"{address.base_url} does not accept the key in {variable} ({status})."
        return refusal(message, f"put a key of this server into {variable}.")
    message = f"{address.base_url} wants a key ({status}), and {variable} is not set."
    return refusal(message, f"export {variable}=... with a key of this server.")


def _too_long(status: int, said: str, answered: str) -> BudgetError:
    if status == 413:
        hint = "fewer frames (max_frames), picture='jpeg', or a smaller frame_px."
        return BudgetError(answered, hint)
    numbers = [int(number) for number in re.findall(r"\d+", said)]
    found = _HAS.search(said)
    have = int(found[1]) if found else 0
    need = max(numbers, default=0)
    hint = (
        "fewer frames (max_frames) or a shorter answer (max_new_tokens): the server cuts frames "
        "into tokens its own way."
    )
    return BudgetError(answered, hint, need if need > have else 0, have)


def _hint_of(status: int, said: str, headers: Mapping[str, str]) -> str:
    if _PICTURES.search(said):
        return (
            "let the server take more pictures in a prompt (vLLM: --limit-mm-per-prompt), fewer "
            "frames (max_frames), or sends='video'."
        )
    if status == 404:
        return "is base_url right, with its /v1, and is the model still served?"
    if 300 <= status < 400:
        return f"redirects are not followed: base_url of {headers.get('location', 'its target')}?"
    return "see what the server says; its log may say more."


def _after_s(written: str) -> float:
    """Read a Retry-After header: seconds, or a date."""
    try:
        return max(0.0, float(written))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(written)
    except ValueError:
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
