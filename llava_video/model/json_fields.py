"""A JSON object → typed values, with an error that names the file, the key and what was found.

Knows no model: only how to read a number, a word, a flag or a list out of untrusted JSON.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava_video.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class JsonFields:
    """One JSON object and the place it came from; a key set to null counts as missing.

    Attributes:
        values: the object.
        place: where it stands, for error messages ("config.json", "config.json text_config").
    """

    values: Mapping[str, Any]
    place: str

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self.values.get(key) is not None

    def integer(
        self, key: str, default: int | None = None, *, at_least: int = 1, at_most: int = 2**40
    ) -> int:
        """Read a whole number.

        Raises:
            CheckpointError: when it is missing without a default, no whole number, too small or
                too large.
        """
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
            raise self.wrong(key, value, f"a whole number of at least {at_least}")
        if value > at_most:
            raise self.wrong(key, value, f"at most {at_most}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Read a positive number.

        Raises:
            CheckpointError: when it is missing without a default or no positive number.
        """
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise self.wrong(key, value, "a positive number")
        return float(value)

    def text(self, key: str, default: str | None = None) -> str:
        """Read a word.

        Raises:
            CheckpointError: when it is missing without a default or no text.
        """
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, value, "a text")
        return value

    def one_of(self, key: str, default: str, allowed: Collection[str]) -> str:
        """Read one of a few words.

        Raises:
            CheckpointError: when it is another one.
        """
        found, words = self.text(key, default), " or ".join(map(repr, allowed))
        if found not in allowed:
            raise CheckpointError(
                f"{self.place} has {key} = {found!r}, expected {words}.",
                f"write one of these in {self.place}.",
            )
        return found

    def flag(self, key: str, default: bool) -> bool:
        """Read true or false.

        Raises:
            CheckpointError: when it is neither.
        """
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, value, "true or false")
        return value

    def ids(self, key: str) -> tuple[int, ...]:
        """Read token ids: one, a list, or none when the key is missing.

        Raises:
            CheckpointError: when an id is no whole number.
        """
        value = self.values.get(key)
        found = () if value is None else value if isinstance(value, list) else (value,)
        if not all(isinstance(one, int) and not isinstance(one, bool) for one in found):
            raise self.wrong(key, value, "token ids")
        return tuple(found)

    def texts(self, key: str) -> tuple[str, ...]:
        """Read a list of words; none when the key is missing.

        Raises:
            CheckpointError: when it is no list of texts.
        """
        found = self._value(key, [])
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise self.wrong(key, found, "a list of names")
        return tuple(found)

    def inner(self, key: str) -> "JsonFields":
        """Read a nested object; an empty one when the key is missing.

        Raises:
            CheckpointError: when it is no object.
        """
        value = self._value(key, {})
        if not isinstance(value, Mapping):
            raise self.wrong(key, value, "an object")
        return JsonFields(value, f"{self.place} {key}")

    def wrong(self, key: str, value: object, expected: str) -> CheckpointError:
        """Build the error of one bad value."""
        return CheckpointError(
            f"{self.place} has {key} = {value!r}, expected {expected}.",
            "check that the file belongs to a checkpoint of the LLaVA family.",
        )

    def _value(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None and default is None:
            raise self.wrong(key, None, "a value")
        return default if value is None else value


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        CheckpointError: when it cannot be read, is not JSON, or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        hint = "download the checkpoint again, or point to its folder."
        raise CheckpointError(f"cannot read {path}: {cause}.", hint) from cause
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}, not a JSON object.")
    return values
