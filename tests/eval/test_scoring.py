"""Right is right in every form an answer takes, and nothing else is."""

import pytest

from llava_video.eval.example import Example
from llava_video.eval.scoring import first_number, is_same, normalised, score


def example(**facts) -> Example:
    return Example(id="1", cluster="v", **facts)


def test_of_choices_only_the_same_one_is_right() -> None:
    asked = example(choices=("A", "B"), answer="B")
    assert score(asked, "B").correct is True
    assert score(asked, "b").correct is False
    assert score(asked, "A").correct is False


def test_what_nobody_knows_is_not_scored() -> None:
    assert score(example(choices=("A", "B")), "A").correct is None
    assert score(example(), "anything").exact is None


def test_exact_and_normalised_are_told_apart() -> None:
    asked = example(answer="red ball", other_answers=("crimson ball",))
    assert (score(asked, "red ball").correct, score(asked, "red ball").exact) == (True, True)
    assert (score(asked, "A red ball.").correct, score(asked, "A red ball.").exact) == (True, False)
    assert score(asked, "Crimson ball").correct is True
    assert score(asked, "red balls").correct is False


def test_exact_of_a_number_is_that_number() -> None:
    """Not the same letters: "2.5 s" says 2.5, and "2.0 s" is only near it."""
    when = example(answer=2.5, tolerance=0.5)
    assert (score(when, "2.5 s").correct, score(when, "2.5 s").exact) == (True, True)
    assert (score(when, "2.0 s").correct, score(when, "2.0 s").exact) == (True, False)
    assert (score(when, "9 s").correct, score(when, "9 s").exact) == (False, False)


@pytest.mark.parametrize(
    ("truth", "given", "right"),
    [
        (True, "Yes, it is.", True),
        (True, "yes", True),
        (True, "No", False),
        (True, "I would say yes", False),
        (False, "no.", True),
        (False, "nothing", False),
        (3, "3", True),
        (3, "There are three.", True),
        (3, "13", False),
        (3, "3.2", False),
        (3, "none", False),
        (-2, "it is -2 degrees", True),
        (1500, "1,500", True),
        ("yes", "Yes", True),
        ("2", "two", True),
        ("play the guitar", "play guitar", True),
        ("guitar", "the guitars", False),
        ("", "a", True),  # nothing but an article says nothing
        ("1.5", "15", False),
        ("ＡＢ", "ab", True),
    ],
)
def test_free_answers(truth, given: str, right: bool) -> None:
    assert is_same(truth, given) is right


@pytest.mark.parametrize(
    ("truth", "given", "right"),
    [
        (1.6, "2.1 s", True),  # 2.1 - 1.6 is a little above 0.5 in binary
        (1.6, "at 2.1s", True),
        (2.1, "1.6", True),
        (1.6, "2.11", False),
        (2.1, "1.59", False),
        (0.0, "never", False),
    ],
)
def test_a_time_may_be_half_a_second_off(truth: float, given: str, right: bool) -> None:
    assert is_same(truth, given, tolerance=0.5) is right


def test_normalisation_keeps_what_tells_answers_apart() -> None:
    assert normalised("1.5 m") == "1.5 m"
    assert normalised(".5") == ".5" != normalised("5")
    assert normalised("well-known") == "well known"
    assert normalised("the theatre") == "theatre"
    assert normalised("don't") != normalised("do")


def test_the_first_number_counts() -> None:
    assert first_number("from 3 to 5") == 3.0
    assert first_number("v2 of 7") == 7.0  # a part of a name is no number
    assert first_number("someone saw ten") == 10.0
    assert first_number("") is None
