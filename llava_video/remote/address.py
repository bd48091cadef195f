"""A base URL as typed, and the environment → the address and the key; a key is never in a URL.

The only place that reads the key. Whatever is shown of either goes through `without_key`.
"""

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from llava_video.errors import ConfigError

# Shorter ones would blot out words of messages, and are no secrets.
_LEAST_SECRET = 6


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and how it lets us in.

    Attributes:
        base_url: what paths are appended to, "http://localhost:8000/v1"; without credentials.
        key_variable: the environment variable of the key.
        key: the key; "" for none.
    """

    base_url: str
    key_variable: str
    key: str = field(default="", repr=False)

    @property
    def root_url(self) -> str:
        """The server itself, where what is no part of OpenAI's interface stands."""
        return self.base_url.removesuffix("/v1")

    def without_key(self, text: str) -> str:
        """Return a text without the key."""
        return text.replace(self.key, "[key]") if len(self.key) >= _LEAST_SECRET else text


def read_address(base_url: str, key_variable: str) -> Address:
    """Check a base URL and take the key from the environment.

    Raises:
        ConfigError: it is no http(s) URL, or holds credentials; or the key cannot be sent.
    """
    hint = "a URL such as 'http://localhost:8000/v1'."
    try:
        parts = urlsplit(base_url.strip())
        port = parts.port
    except ValueError as cause:
        raise ConfigError("base_url is no URL.", hint) from cause
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        # Not shown: what is in it may be a secret.
        raise ConfigError(
            "base_url holds credentials, a query or a fragment.",
            f"leave them out, and put the key into the environment variable {key_variable}.",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"base_url = {base_url!r}.", hint)
    key = os.environ.get(key_variable, "").strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"the key in {key_variable} has characters that no header can hold.",
            f"export {key_variable}=... anew.",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = host if port is None else f"{host}:{port}"
    return Address(f"{parts.scheme}://{place}{parts.path.rstrip('/')}", key_variable, key)
