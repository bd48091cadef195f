"""A webhook's body ↔ the signature that says who sent it, and when.

    X-Llava-Video-Timestamp: 1790000000              whole seconds since 1970
    X-Llava-Video-Signature: sha256=<hex>            HMAC-SHA256(secret, timestamp "." body)

Whoever receives one computes the same over the bytes of the body as they came, compares in constant
time, and refuses a time that is more than some minutes off: an old message cannot be played again.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

TIMESTAMP: Final = "X-Llava-Video-Timestamp"
SIGNATURE: Final = "X-Llava-Video-Signature"
MESSAGE_ID: Final = "X-Llava-Video-Id"


def signed_headers(secret: bytes, body: bytes, now_s: float) -> dict[str, str]:
    """Return the two headers of a signed body.

    Args:
        secret: shared with the receiver.
        body: as it is sent.
        now_s: wall clock, s since 1970.
    """
    timestamp = str(int(now_s))
    return {TIMESTAMP: timestamp, SIGNATURE: f"sha256={_digest(secret, timestamp, body)}"}


def is_signed(
    secret: bytes,
    headers: Mapping[str, str],
    body: bytes,
    now_s: float,
    *,
    tolerance_s: float = 300.0,
) -> bool:
    """Say whether a body came from who has the secret, and lately.

    Args:
        secret: shared with the sender.
        headers: of the request, in any case.
        body: as it came.
        now_s: wall clock, s since 1970.
        tolerance_s: how far clocks may differ.
    """
    given = {name.lower(): value for name, value in headers.items()}
    timestamp, signature = given.get(TIMESTAMP.lower(), ""), given.get(SIGNATURE.lower(), "")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        return False
    wanted = f"sha256={_digest(secret, timestamp, body)}"
    is_ours = hmac.compare_digest(wanted.encode(), signature.encode())
    return is_ours and abs(now_s - int(timestamp)) <= tolerance_s


def _digest(secret: bytes, timestamp: str, body: bytes) -> str:
    return hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
