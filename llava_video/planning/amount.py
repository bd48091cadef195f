"""An amount of memory as people write it → bytes, and back.

Knows no device and no model.
"""

import math
import re

from llava_video.errors import ConfigError

_UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([KMGT]i?B|B)?\s*", re.IGNORECASE)
_HINT = "write it with its unit, like '24GiB' or '16 GB', or give bytes."


def parse_bytes(amount: str | int | None, name: str = "memory") -> int | None:
    """Return an amount in bytes; None stays None.

    Args:
        amount: a number with a unit ("24GiB", "21.5 GiB", "16GB", "512mib"), or bytes.
        name: what users call it, for messages.

    Raises:
        ConfigError: it is neither, or not above 0.

    >>> parse_bytes("21.5 GiB"), parse_bytes("16GB"), parse_bytes(1024)
    (23085449216, 16000000000, 1024)
    """
    if amount is None:
        return None
    if isinstance(amount, str):
        found = _AMOUNT.fullmatch(amount)
        if not found:
            raise ConfigError(f"{name} = {amount!r}.", _HINT)
        num_bytes = int(float(found[1]) * _UNITS[(found[2] or "B").upper()])
    elif isinstance(amount, int) and not isinstance(amount, bool):
        num_bytes = amount
    else:
        raise ConfigError(f"{name} = {amount!r}.", _HINT)
    if num_bytes < 1:
        raise ConfigError(f"{name} = {amount!r} is no memory at all.", _HINT)
    return num_bytes


def amount_words(num_bytes: int) -> str:
    """Return an amount that `parse_bytes` reads, no less than these bytes, to a tenth of its unit.

    >>> amount_words(7 * 2**30 + 1), amount_words(300)
    ('7.1GiB', '300B')
    """
    power = max(0, min(4, (num_bytes.bit_length() - 1) // 10))
    if power == 0:
        return f"{num_bytes}B"
    unit = ("KiB", "MiB", "GiB", "TiB")[power - 1]
    return f"{math.ceil(num_bytes * 10 / 2 ** (10 * power)) / 10:g}{unit}"
