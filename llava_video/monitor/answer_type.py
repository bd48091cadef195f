"""What kind of answer a rule wants → how the engine is held to it, and the value read back.

An answer is decoded under a constraint, or chosen among a few, so it always parses. Only what is
chosen among a few has a confidence. Knows no model.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from llava_video.backends import require
from llava_video.config import check, setting
from llava_video.errors import ConfigError
from llava_video.monitor.instructions import printable

Kind = Literal["yes_no", "choice", "number", "text", "json"]

YES_NO: Final = ("yes", "no")
# So many whole numbers are scored as choices, which gives them a confidence.
MOST_SCORED: Final = 33
_TEXT_SPARE_TOKENS = 16
_NUMBER_TOKENS = 32
_JSON_TOKENS = 1024
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerType:
    """What may be answered."""

    type: Kind = setting(
        "yes_no", "yes_no, choice (one of `choices`), number, text, or json (by `schema`)."
    )
    choices: tuple[str, ...] = setting((), "The answers of a choice, all different.")
    at_least: float | None = setting(
        None, "Least number. Whole numbers between two close limits have a confidence."
    )
    at_most: float | None = setting(None, "Greatest number.")
    whole: bool = setting(True, "Whether a number is a whole one.")
    max_characters: int = setting(200, "Longest text.", unit="characters", at_least=1, at_most=2000)
    schema: Mapping[str, Any] | None = setting(None, "The JSON schema of a json answer.")

    def __post_init__(self) -> None:
        check(self)
        self._check_choices()
        if (self.schema is not None) != (self.type == "json"):
            raise ConfigError(
                f"an answer of type {self.type!r} {'has a' if self.schema else 'has no'} schema.",
                "a schema belongs to type: json, which needs one.",
            )
        self._check_limits()
        if self.schema is not None:
            _check_schema(self.schema)

    def _check_choices(self) -> None:
        if bool(self.choices) != (self.type == "choice"):
            raise ConfigError(
                f"an answer of type {self.type!r} has {len(self.choices)} choices.",
                "choices belong to type: choice, which needs them.",
            )
        plain = [plain_text(choice) for choice in self.choices]
        if self.choices and (len(self.choices) < 2 or len(set(plain)) < len(plain) or "" in plain):
            raise ConfigError(
                f"choices = {list(self.choices)!r}.", "two or more, all different, none empty."
            )

    def _check_limits(self) -> None:
        if self.type != "number" and (self.at_least, self.at_most) != (None, None):
            raise ConfigError(
                f"an answer of type {self.type!r} has limits.", "limits belong to type: number."
            )
        if not all(x is None or math.isfinite(x) for x in (self.at_least, self.at_most)):
            raise ConfigError(
                f"at_least = {self.at_least}, at_most = {self.at_most}.",
                "finite numbers, or leave them out.",
            )
        low, high = self.limits
        if low > high:
            raise ConfigError(
                f"at_least = {self.at_least}, at_most = {self.at_most}.",
                "the least is not above the greatest.",
            )
        if self.whole and any(x is not None and x % 1 for x in (self.at_least, self.at_most)):
            raise ConfigError(
                f"at_least = {self.at_least}, at_most = {self.at_most} of whole numbers.",
                "whole limits, or whole: false.",
            )

    @property
    def limits(self) -> tuple[float, float]:
        """Least and greatest number; infinite where there is none."""
        low = float("-inf") if self.at_least is None else self.at_least
        return low, float("inf") if self.at_most is None else self.at_most

    @property
    def has_confidence(self) -> bool:
        """Whether answers come with the probability of what was chosen."""
        return isinstance(self.response_format, list)

    @property
    def response_format(self) -> "list[str] | dict[str, Any]":
        """What the engine holds the answer to: a list of choices, or a JSON schema."""
        if self.type == "yes_no":
            return list(YES_NO)
        if self.type == "choice":
            return list(self.choices)
        if self.type == "text":
            return {"type": "string", "maxLength": self.max_characters}
        if self.type == "json":
            return dict(self.schema or {})
        low, high = self.limits
        if self.whole and high - low < MOST_SCORED:
            return [str(number) for number in range(int(low), int(high) + 1)]
        schema: dict[str, Any] = {"type": "integer" if self.whole else "number"}
        if self.at_least is not None:
            schema["minimum"] = int(low) if self.whole else low
        if self.at_most is not None:
            schema["maximum"] = int(high) if self.whole else high
        return schema

    @property
    def max_new_tokens(self) -> int:
        """How long the engine may write: long enough for every answer that is allowed."""
        if self.type == "text":  # a character may take as many tokens as it has bytes
            return 4 * self.max_characters + _TEXT_SPARE_TOKENS
        return _JSON_TOKENS if self.type == "json" else _NUMBER_TOKENS

    def value_of(self, parsed: Any) -> Any:
        """Return the answer as conditions read it.

        Args:
            parsed: of the engine's answer.

        Raises:
            ValueError: it is none of the answers allowed; an engine elsewhere may give such.
        """
        if self.type == "number":
            number = _number(parsed, whole=self.whole)
            low, high = self.limits
            if not low <= number <= high:
                raise ValueError(f"{number} is outside {low} to {high}")
            return number
        if self.type == "json":
            return _whole(parsed)
        if not isinstance(parsed, str):
            raise ValueError(f"{type(parsed).__name__} instead of text")
        if self.type == "text":
            return _whole(parsed[: self.max_characters])
        allowed = YES_NO if self.type == "yes_no" else self.choices
        for choice in allowed:
            if plain_text(choice) == plain_text(parsed):
                return choice
        raise ValueError(f"{parsed[:60]!r} is none of {list(allowed)}")


def _check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse a schema that no answer could be held to."""
    matcher = require("llguidance").LLMatcher
    try:
        text = json.dumps(dict(schema))
    except (TypeError, ValueError) as cause:
        raise ConfigError(f"the schema is no JSON: {cause}.", "plain JSON values.") from cause
    problem = matcher.validate_grammar(matcher.grammar_from_json_schema(text))
    if problem:
        raise ConfigError(
            f"the schema cannot be followed: {printable(problem)}.",
            "leave out the keyword it names, or ask for less.",
        )


def plain_text(text: str) -> str:
    """Return a text as it is compared: in one case, with single blanks.

    >>> plain_text("  Keep   LEFT ")
    'keep left'
    """
    return _BLANKS.sub(" ", text).strip().casefold()


def _whole(value: Any) -> Any:
    """Return a value all of whose text can be written down.

    JSON may name one half of a character that is two in UTF-16, and such text has no bytes: it
    could be neither stored nor sent, and would end the watch there.

    Raises:
        ValueError: there is such a half.
    """
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as cause:
        raise ValueError(f"half a character, {cause.object[cause.start]!r}") from cause
    return value


def _number(parsed: Any, *, whole: bool) -> int | float:
    if isinstance(parsed, bool) or not isinstance(parsed, int | float | str):
        raise ValueError(f"{type(parsed).__name__} instead of a number")
    number = float(parsed)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(f"{parsed!r} is no number")
    if whole and number % 1:
        raise ValueError(f"{parsed!r} is not whole")
    return int(number) if whole else number
