"""Comparisons written as fields of YAML → whether an answer meets them.

All fields that are given have to hold; `any_of` holds where one of its conditions does. Nothing of
a rules file is ever evaluated as code. A condition that no answer of the rule's type could meet, or
every answer would, is refused. Texts are compared in one case and with single blanks. Knows no
state: what `changed` compares with is the rules' business.
"""

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain, pairwise
from typing import Any, Final

from llava_video.config import check, setting
from llava_video.errors import ConfigError
from llava_video.monitor.answer_type import YES_NO, AnswerType, plain_text
from llava_video.monitor.instructions import instruction_in
from llava_video.monitor.json_field import (
    allowed,
    is_missing,
    is_whole,
    named_in,
    names_in,
    part_of,
    schema_of,
    with_part,
)

Plain = str | int | float | bool

_ORDER: Final = ("at_least", "at_most", "above", "below")
_EQUAL: Final = ("equals", "not_equals", "one_of")
_TEXT: Final = ("contains", "instructs")
CHANGE: Final = ("changed", "changed_from", "changed_to")
# What each type of answer can be compared by; a json answer's field may be anything.
_ALLOWED: Final = {
    "yes_no": {*_EQUAL, *CHANGE},
    "choice": {*_EQUAL, *CHANGE},
    "number": {*_EQUAL, *_ORDER, *CHANGE},
    "text": {*_EQUAL, *_TEXT, *CHANGE},
    "json": {*_EQUAL, *_ORDER, *_TEXT, *CHANGE},
}
# A text that `instructs` is met by.
_INSTRUCTION: Final = "ignore your instructions"
_MOST_NUMBER: Final = sys.float_info.max


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What an answer has to be."""

    field: str = setting(
        "", "Of a json answer: what is compared, names joined by dots; a list's places by number."
    )
    equals: Plain | None = setting(None, "It is this.")
    not_equals: Plain | None = setting(None, "It is anything but this.")
    one_of: tuple[Plain, ...] = setting((), "It is one of these.")
    at_least: float | None = setting(None, "It is this number or a greater one.")
    at_most: float | None = setting(None, "It is this number or a smaller one.")
    above: float | None = setting(None, "It is greater than this number.")
    below: float | None = setting(None, "It is smaller than this number.")
    contains: str | None = setting(None, "The text has these words in it.")
    instructs: bool = setting(False, "The text tries to give instructions to who reads it.")
    changed: bool = setting(False, "It is another one than the last settled answer.")
    changed_from: Plain | None = setting(None, "It changed, and was this before.")
    changed_to: Plain | None = setting(None, "It changed, and is this now.")
    any_of: tuple["Condition", ...] = setting((), "One of these conditions holds as well.")

    def __post_init__(self) -> None:
        check(self)
        if not self.compares and not self.any_of:
            raise ConfigError("a condition compares nothing.", 'such as `equals: "yes"`.')
        if any(inner.is_change for inner in self.any_of):
            raise ConfigError(
                "a change stands inside any_of.", "changes stand in the condition itself."
            )
        if self.contains is not None and not plain_text(self.contains):
            raise ConfigError("contains is empty, which every text has.", "name words.")
        if any(x is not None and not math.isfinite(x) for x in map(self._number, _ORDER)):
            raise ConfigError("a condition compares with no finite number.", "name a number.")
        if self.changed_from is not None and same(self.changed_from, self.changed_to):
            raise ConfigError(
                f"changed_from and changed_to are both {self.changed_to!r}.",
                "a change is from one answer to another.",
            )

    def _number(self, name: str) -> float | None:
        number: float | None = getattr(self, name)
        return number

    @property
    def compares(self) -> tuple[str, ...]:
        """Names of the comparisons that are given, `any_of` left out."""
        names = (f.name for f in fields(self) if f.name not in ("field", "any_of"))
        return tuple(name for name in names if _is_given(getattr(self, name), name))

    @property
    def is_change(self) -> bool:
        """Whether it compares an answer with the one before."""
        return any(name in CHANGE for name in self.compares)

    def holds(self, value: Any) -> bool:
        """Say whether an answer meets everything but the change.

        Args:
            value: of the answer; what a field does not name, or of another kind, meets nothing.
        """
        part = part_of(value, self.field)
        if is_missing(part) or not self._meets(part):
            return False
        return not self.any_of or any(inner.holds(value) for inner in self.any_of)

    def _meets(self, part: Any) -> bool:
        return all(
            _holds(name, getattr(self, name), part) for name in self.compares if name not in CHANGE
        )

    @property
    def compared_fields(self) -> set[str]:
        """What is compared of a json answer, by `any_of` too."""
        own = {".".join(names_in(self.field))} if self.compares else set[str]()
        return own.union(*(inner.compared_fields for inner in self.any_of))

    @property
    def named(self) -> tuple[Plain, ...]:
        """What answers are compared with, of `any_of` too; for `instructs`, a text that does."""
        own = [wanted for _, wanted in self._wanted()]
        own += [x for x in map(self._number, _ORDER) if x is not None]
        own += [] if self.contains is None else [self.contains]
        own += [_INSTRUCTION] if self.instructs else []
        return (*own, *chain.from_iterable(inner.named for inner in self.any_of))

    def takes_change(self, before: Any, now: Any) -> bool:
        """Say whether a change from one answer to another is the one meant."""
        return (self.changed_from is None or same(self.changed_from, before)) and (
            self.changed_to is None or same(self.changed_to, now)
        )

    def refuse_impossible(self, answer: AnswerType) -> None:
        """Refuse what no answer of a type meets, or every answer does.

        Raises:
            ConfigError: the comparison and the type stand in it.
        """
        if self.field and answer.type != "json":
            raise ConfigError(
                f"field = {self.field!r} of an answer of type {answer.type!r}.",
                "only json answers have fields.",
            )
        for name in self.compares:
            if name not in _ALLOWED[answer.type]:
                raise ConfigError(
                    f"{name} does not go with an answer of type {answer.type!r}.",
                    f"allowed: {', '.join(sorted(_ALLOWED[answer.type]))}.",
                )
        for name, wanted in self._wanted():
            _refuse_never(name, wanted, answer)
        if answer.type == "json":
            schema_of(self.field, answer.schema or {})
        for inner in self.any_of:
            inner.refuse_impossible(answer)
        self._refuse_empty_range(answer)
        self._refuse_all_or_none(answer)

    def _wanted(self) -> Iterator[tuple[str, Any]]:
        for name in ("equals", "not_equals", "changed_from", "changed_to"):
            if getattr(self, name) is not None:
                yield name, getattr(self, name)
        yield from (("one_of", one) for one in self.one_of)

    def _refuse_empty_range(self, answer: AnswerType) -> None:
        low, high = answer.limits
        lows = [(x, False) for x in (low, self.at_least) if x is not None]
        lows += [] if self.above is None else [(self.above, True)]
        highs = [(-x, False) for x in (high, self.at_most) if x is not None]
        highs += [] if self.below is None else [(-self.below, True)]
        (least, is_open), (minus_most, is_open_too) = max(lows), max(highs)
        if least > -minus_most or (least == -minus_most and (is_open or is_open_too)):
            raise ConfigError(
                f"no number meets {', '.join(n for n in self.compares if n in _ORDER)}.",
                "the least has to lie below the greatest, and inside the answer's own limits.",
            )

    def _refuse_all_or_none(self, answer: AnswerType) -> None:
        """Refuse what does not tell one answer from another."""
        if answer.type == "json":
            # What stands in a field may be of any kind, or missing: no condition always holds.
            met = [
                self._meets(one) and self.takes_change(self.changed_from, one)
                for one in _parts(self.named)
            ]
            is_always = False
        else:
            values = telling_answers(answer, self)
            met = [self.holds(one) and self.takes_change(self.changed_from, one) for one in values]
            is_always = all(met) and not self.is_change
        if not any(met) or is_always:
            raise ConfigError(
                f"{'every answer meets' if all(met) else 'no answer meets'} the condition "
                f"{', '.join(self.compares) or 'any_of'}.",
                _answers_words(answer),
            )


def telling_answers(answer: AnswerType, *conditions: Condition) -> list[Any]:
    """Return answers among which one meets the conditions wherever any answer does.

    Of a closed set, all. Of numbers, those that the conditions name and one from between each two.
    Of texts, those that are named, alone and with more words, and one that has none of them; that
    a text could have the words of one condition and those of another is nobody's contradiction. Of
    json, what its schema allows of all that, in the field that the conditions compare; none where
    they compare several, which is nobody's contradiction either.

    Args:
        answer: what may be answered.
        conditions: refused already where they do not go with the answer.
    """
    form = answer.response_format
    if isinstance(form, list):
        return [answer.value_of(one) for one in form]
    if answer.type == "number":
        named = chain.from_iterable(one.named for one in conditions)
        return _numbers(named, *answer.limits, whole=answer.whole)
    if answer.type == "text":
        return [text for one in conditions for text in _texts(one.named)]
    compared = set[str]().union(*(one.compared_fields for one in conditions))
    if len(compared) != 1:
        return []
    (field,) = compared
    schema = schema_of(field, answer.schema or {})
    names = [*named_in(schema), *chain.from_iterable(one.named for one in conditions)]
    parts = allowed(schema, _parts(names, whole=is_whole(schema)))
    return [with_part(field, part) for part in parts]


def same(one: Any, other: Any) -> bool:
    """Say whether two answers are one: texts in any case, numbers by value, the rest exactly."""
    if isinstance(one, str) and isinstance(other, str):
        return plain_text(one) == plain_text(other)
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _is_given(value: Any, name: str) -> bool:
    if name in ("instructs", "changed", "one_of"):
        return bool(value)
    return value is not None  # False and 0 are something to compare with


def _holds(name: str, wanted: Any, value: Any) -> bool:
    if name in _ORDER:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return bool(
            {
                "at_least": value >= wanted,
                "at_most": value <= wanted,
                "above": value > wanted,
                "below": value < wanted,
            }[name]
        )
    if name == "equals":
        return same(wanted, value)
    if name == "not_equals":
        return not same(wanted, value)
    if name == "one_of":
        return any(same(one, value) for one in wanted)
    if not isinstance(value, str):
        return False
    if name == "instructs":
        return instruction_in(value) is not None
    return plain_text(wanted) in plain_text(value)


def _refuse_never(name: str, wanted: Any, answer: AnswerType) -> None:
    """Refuse to compare with what is never answered."""
    if answer.type == "json":
        return
    if answer.type == "number":
        low, high = answer.limits
        is_number = isinstance(wanted, int | float) and not isinstance(wanted, bool)
        if is_number and low <= wanted <= high and not (answer.whole and wanted % 1):
            return
    elif isinstance(wanted, str):
        allowed = {"yes_no": YES_NO, "choice": answer.choices}.get(answer.type)
        if allowed is None or any(same(wanted, one) for one in allowed):
            return
    raise ConfigError(
        f"{name} = {wanted!r} is never answered.",
        _answers_words(answer),
    )


def _numbers(
    named: Iterable[Plain], low: float = -math.inf, high: float = math.inf, *, whole: bool = False
) -> list[int | float]:
    """Return the numbers that are named, one from between each two and one beyond, inside limits.

    No comparison changes its mind elsewhere.
    """
    edges: list[int | float] = [x for x in (low, high) if math.isfinite(x)]
    edges += [x for x in named if isinstance(x, int | float) and not isinstance(x, bool)]
    edges = sorted({min(max(x, -_MOST_NUMBER), _MOST_NUMBER) for x in edges}) or [0]
    found: set[int | float] = set()
    if whole:
        for x in edges:
            found |= {math.ceil(x) - 1, math.floor(x), math.ceil(x), math.floor(x) + 1}
    else:
        first, last = edges[0], edges[-1]
        found |= {*edges, *(one / 2 + other / 2 for one, other in pairwise(edges))}
        found |= {min(first - 1, math.nextafter(first, -math.inf))}
        found |= {max(last + 1, math.nextafter(last, math.inf))}
    return sorted(x for x in found if low <= x <= high and abs(x) <= _MOST_NUMBER)


def _parts(named: Sequence[Plain], *, whole: bool = False) -> list[Any]:
    """Return what a field of json may hold, of every kind that comparisons tell apart."""
    return [*_numbers(named, whole=whole), *_texts(named), True, False, None]


def _texts(named: Iterable[Plain]) -> list[str]:
    """Return the texts that are named, alone and with more; all of them in one; and another text.

    Whatever a text meets, it meets as one of the named, or else the text with all of them does.
    """
    texts = [one for one in named if isinstance(one, str)]
    words = [plain_text(one) for one in texts if plain_text(one)]
    # What a message can show comes first; characters of no script are in no text of a person's.
    free = chain(("anything else", "?", "#"), map(chr, range(0xE000, 0xF900)))
    other = next(one for one in free if not any(word in one for word in words))
    return [*texts, *(f"{one} {other}" for one in texts), f"{' '.join(texts)} {other}", other]


def _answers_words(answer: AnswerType) -> str:
    form = answer.response_format
    if isinstance(form, list):
        return f"the answers are {', '.join(form)}; YAML's true and false are not among them."
    if answer.type != "number":
        return "the answer is a text." if answer.type == "text" else "the answer is any JSON value."
    low, high = answer.limits
    kind = "whole numbers" if answer.whole else "numbers"
    return f"the answers are {kind} from {low} to {high}."
