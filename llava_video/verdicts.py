r"""A judge's answer → the verdict in it: a score, or which of two answers is better.

Pure functions of text. A verdict is read only where it stands in one of the forms that critics were
trained to write or that their users read; prose that leans one way is no verdict, and what cannot
be read is None or "undecided", never a guess. Knows no model and no prompt.

Forms of a preference, in the order they are searched:
    The better response: [first]         or second, 1, 2, A, B; brackets may be missing
    Two responses are equally good
    [[A>>B]]  [[A>B]]  [[A=B]]  [[B>A]]  [[B>>A]]
    8 6                                  the first line, two numbers of 1 to 10

Forms of a score, likewise:
    Final Score: 85
    Score: [85]

Of one form the last mention counts. The first form in the order and the last mention in the text
must say the same: a text that ends by taking back what it said is undecided. A mention that names
no single verdict ("[first or second]", a score beyond the scale) leaves it undecided too, and one
right behind a negation is none.
"""

import re
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

Choice = Literal["first", "second", "tie", "undecided"]

T = TypeVar("T")
# A pattern that finds every mention of a form, and what one of them says; None for nothing certain.
_Form = tuple[re.Pattern[str], Callable[[re.Match[str]], T | None]]

# Every repetition is bounded, so that the time of any text is a constant times its length.
_GAP, _BLANK = r"\s{0,20}", r"\s{1,20}"
_MARKS = r"[*_\s]{0,20}"  # emphasis of Markdown
_FIRST, _SECOND = ("first", "1", "a"), ("second", "2", "b")
_SIDE = rf"(?:{'|'.join((*_FIRST, *_SECOND))})"
_ARENA = r"\[\[[\sAB<>=]{0,20}\]\]"
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"

_BETTER_OR_EQUAL = re.compile(
    rf"the{_BLANK}better{_BLANK}response{_MARKS}:"
    rf"|\b(?P<equal>two{_BLANK}responses{_BLANK}are{_BLANK}equally{_BLANK}good)"
    rf"(?={_GAP}(?:[.!\])\"*_]|\n|\Z))",
    re.I,
)
# A word stands alone on its line or ends its sentence: "A detailed answer" names no side.
_NAMED = re.compile(
    rf"{_MARKS}(?:\[{_GAP}(?P<kept>{_SIDE}){_GAP}\](?!{_GAP}(?:[/|,]|or\b|and\b){_GAP}\[)"
    rf"|(?P<bare>{_SIDE})[*_]{{0,20}}(?:[.!](?![0-9A-Za-z])|{_GAP}(?:\n|\Z)))",
    re.I,
)
_ARENA_RUN = re.compile(rf"{_ARENA}(?:[\s,/|]{{0,20}}(?:(?:or|and){_GAP})?{_ARENA}){{0,20}}")
_PAIR = re.compile(rf"\A{_GAP}({_NUMBER})[ \t,]{{1,20}}({_NUMBER})[ \t]{{0,20}}(?:\n|\Z)")
_FINAL = re.compile(rf"final{_BLANK}score{_MARKS}:", re.I)
_BRACKETED = re.compile(rf"\bscore:{_GAP}(?=\[[^\n\]]{{0,80}}\])", re.I)
# "85", "85/100", "85 out of 100"; not "85 to 90", "85, or more", "8 5", "8,500" or "85a".
_OF = rf"(?:/|out{_BLANK}of\b){_GAP}"
_OTHER = (
    rf"[\s,;%*_\]]{{0,20}}(?:or\b|(?:[-–—~]|to\b|and\b|{_OF}){_GAP}\[?[0-9])"
    r"|[ \t,;%*_\]]{0,20}\[?[0-9]"
)
_GRADE = re.compile(
    rf"{_MARKS}(?:\[{_GAP})?(?P<grade>{_NUMBER})(?:{_GAP}\])?(?![.,]?[0-9]|[A-Za-z])"
    rf"(?:{_GAP}{_OF}(?P<of>{_NUMBER})(?![.,]?[0-9]))?(?!{_OTHER})",
    re.I,
)
_NEGATED = re.compile(
    r"(?:\b(?:not|never|cannot|neither|nor)\b|n['’]t\b)(?:[ \t]+\w+){0,3}[ \t\"'“‘*_]*\Z",
    re.I,
)
_NEGATION_CHARS = 80  # before a mention that are searched for a negation


def read_preference(text: str) -> Choice:
    """Return which answer a judge's text prefers.

    Returns:
        "first" or "second" as they were shown, "tie", or "undecided" when the text does not say in
        one of the forms, or says different things.

    >>> read_preference("Both name the dog. The better response: [second]")
    'second'
    >>> read_preference("I prefer the second one.")
    'undecided'
    """
    forms: tuple[_Form[Choice], ...] = (
        (_BETTER_OR_EQUAL, _side),
        (_ARENA_RUN, _arena_side),
        (_PAIR, _larger),
    )
    return _agreed(text, forms) or "undecided"


def read_score(text: str, scale: float = 100) -> float | None:
    """Return the score a judge's text gives.

    Args:
        text: the judge's answer.
        scale: the best score it was told of.

    Returns:
        0 to `scale`; None when the text gives none in one of the forms, gives different ones, or
        one beyond the scale or of another scale.

    >>> read_score("It names the dog. Final Score: 85")
    85.0
    >>> read_score("the score is not 90 but 9") is None
    True
    """

    def grade(mention: re.Match[str]) -> float | None:
        found = _GRADE.match(mention.string, mention.end())
        if not found or (found["of"] and float(found["of"]) != scale):
            return None
        score = float(found["grade"])
        return score if score <= scale else None

    return _agreed(text, ((_FINAL, grade), (_BRACKETED, grade)))


def _agreed(text: str, forms: Sequence[_Form[T]]) -> T | None:
    """Return what the first form says and the last mention too."""
    mentions: list[list[tuple[int, T | None]]] = []
    for pattern, read in forms:
        found = [
            (mention.start(), read(mention))
            for mention in pattern.finditer(text)
            if not _is_negated(text, mention.start())
        ]
        if found:
            mentions.append(found)
    if not mentions:
        return None
    by_order = mentions[0][-1][1]
    by_place = max((found[-1] for found in mentions), key=lambda mention: mention[0])[1]
    return by_order if by_order == by_place else None


def _is_negated(text: str, start: int) -> bool:
    return bool(_NEGATED.search(text[max(0, start - _NEGATION_CHARS) : start]))


def _side(mention: re.Match[str]) -> Choice | None:
    if mention["equal"]:
        return "tie"
    named = _NAMED.match(mention.string, mention.end())
    if not named:
        return None
    return "first" if (named["kept"] or named["bare"]).lower() in _FIRST else "second"


def _arena_side(run: re.Match[str]) -> Choice | None:
    # Several in a row are the list of what may be said, not what is said.
    names = {re.sub(r"\s", "", one) for one in re.findall(_ARENA, run[0])}
    sides: dict[str, Choice] = {
        "[[A>>B]]": "first",
        "[[A>B]]": "first",
        "[[A=B]]": "tie",
        "[[B>A]]": "second",
        "[[B>>A]]": "second",
    }
    return sides.get(names.pop()) if len(names) == 1 else None


def _larger(pair: re.Match[str]) -> Choice | None:
    first, second = float(pair[1]), float(pair[2])
    if not all(1 <= score <= 10 for score in (first, second)):
        return None
    if first == second:
        return "tie"
    return "first" if first > second else "second"
