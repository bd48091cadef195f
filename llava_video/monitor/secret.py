"""`${NAME}` in a rules file → what the environment says, when it is needed and never before.

Settings keep the names, so that nothing that prints them can tell a secret. An address with a
password written out is refused without repeating it.
"""

import re
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, Final

from llava_video.errors import ConfigError

NAME: Final = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_BEFORE_AT = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(.*)@", re.S)
_SECRETS: Final = ("secret", "password", "token")
_PORT_AND_PATH = re.compile(r"\d+/")


def filled(text: str, environ: Mapping[str, str]) -> str:
    """Return a text with its names replaced.

    In an address each is percent-encoded, so that a password may hold any character; a text that is
    one name alone becomes what stands there.

    Raises:
        ConfigError: a name is not set; the message has the name.
    """
    alone = NAME.fullmatch(text)
    is_address = "://" in text and alone is None

    def value(found: "re.Match[str]") -> str:
        if not environ.get(found[1]):
            raise ConfigError(
                f"the environment has no {found[1]}.", f"export {found[1]}=…, and start again."
            )
        plain = environ[found[1]]
        return urllib.parse.quote(plain, safe="") if is_address else plain

    return NAME.sub(value, text)


def names_in(text: str) -> list[str]:
    """Return the names of the environment that a text asks for."""
    return NAME.findall(text)


def refuse_written_out(values: Any, place: str = "") -> None:
    """Refuse passwords that stand in a file.

    Args:
        values: of the file, nested as it is.
        place: where they stand, for the message.

    Raises:
        ConfigError: the place of the first one, never the password.
    """
    for where, text in _values(values, place):
        name = where.rpartition(".")[2].partition("[")[0]
        if name in _SECRETS and text and not NAME.fullmatch(str(text)):
            raise ConfigError(f"{where} is written out.", f"{name}: ${{NAME}}, and export NAME.")
        if not isinstance(text, str):
            continue
        user = _BEFORE_AT.search(text)
        password = user[1].partition(":")[2] if user else ""
        if password and not NAME.fullmatch(password) and not _PORT_AND_PATH.match(password):
            raise ConfigError(
                f"{where} has a password written out.",
                "name it there: rtsp://user:${CAM_PASSWORD}@host/, and export CAM_PASSWORD.",
            )


def _values(values: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping):
        for name, inner in values.items():
            yield from _values(inner, f"{place}.{name}" if place else str(name))
    elif isinstance(values, list | tuple):
        for number, inner in enumerate(values):
            yield from _values(inner, f"{place}[{number}]")
    else:
        yield place, values
