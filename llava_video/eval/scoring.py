"""An answer and the right one → right or wrong. Pure functions of text.

    one of the choices    the same choice
    a number              the first number in the answer, off by no more than the tolerance
    yes or no             the answer begins with that word
    a text                equal after normalisation; `exact` says whether it was before, too

Normalisation: letters folded (NFKC, lower case), number words up to twelve as digits, "a", "an" and
"the" left out, punctuation as blanks but inside numbers, blanks as one. Synonyms are not equal:
what means the same is for a judge.
"""

import re
import unicodedata
from dataclasses import dataclass

from llava_video.eval.example import Example, Truth

_ARTICLES = frozenset({"a", "an", "the"})
_UP_TO_TWELVE = "zero one two three four five six seven eight nine ten eleven twelve"
_NUMBER_WORDS = {word: str(number) for number, word in enumerate(_UP_TO_TWELVE.split())}
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+(?:\.\d+)?|\.\d+)")
# Everything that is no letter, digit or blank, but commas between digits and points before them.
_PUNCTUATION = re.compile(r"(?<!\d),(?=\d)|[.,](?!\d)|[^\w\s.,]|_")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


@dataclass(frozen=True, slots=True)
class Score:
    """Whether an answer is right.

    Attributes:
        correct: None where the right answer is not known.
        exact: whether it is right as it stands, not only after normalisation; a number, whether it
            is that number, not only near it.
    """

    correct: bool | None
    exact: bool | None


def score(example: Example, given: str) -> Score:
    """Compare an answer with the right one.

    Args:
        example: has the right answer.
        given: the choice that was taken, or the text that was written.
    """
    if example.answer is None:
        return Score(None, None)
    if example.choices:
        same = given == example.answer
        return Score(same, same)
    truths = (example.answer, *example.other_answers)
    correct = any(is_same(truth, given, example.tolerance) for truth in truths)
    if isinstance(example.answer, float) or example.tolerance:
        return Score(correct, correct and any(is_same(truth, given) for truth in truths))
    exact = given.strip() in {str(truth) for truth in truths}
    return Score(correct, exact and correct)


def is_same(truth: Truth, given: str, tolerance: float = 0.0) -> bool:
    """Say whether a free answer is right.

    >>> is_same("a red ball", "Red ball.")
    True
    >>> is_same(3, "There are three of them")
    True
    >>> is_same(2.0, "at 2.6 s", tolerance=0.5)
    False
    """
    if isinstance(truth, bool):
        words = normalised(given).split()
        return words[:1] == ["yes" if truth else "no"]
    if isinstance(truth, int | float):
        number = first_number(given)
        # Decimals are not exact: 2.6 - 2.1 is a little above 0.5.
        return number is not None and abs(number - truth) <= tolerance + 1e-9
    return truth is not None and normalised(given) == normalised(truth)


def normalised(text: str) -> str:
    """Return a text as it is compared.

    >>> normalised("The  man's TWO dogs, 1,500 m away!")
    'man s 2 dogs 1500 m away'
    """
    folded = _THOUSANDS.sub("", unicodedata.normalize("NFKC", text).casefold())
    words = _PUNCTUATION.sub(" ", folded).split()
    return " ".join(_NUMBER_WORDS.get(word, word) for word in words if word not in _ARTICLES)


def first_number(text: str) -> float | None:
    """Return the first number in a text, written in digits or as a word up to twelve.

    >>> first_number("after 2.5s")
    2.5
    >>> first_number("never") is None
    True
    """
    folded = _THOUSANDS.sub("", unicodedata.normalize("NFKC", text).casefold())
    digits = re.sub(r"[a-z]+", lambda word: _NUMBER_WORDS.get(word[0], word[0]), folded)
    found = _NUMBER.search(digits)
    return float(found[0]) if found else None
