"""Each recorded form of a verdict is read, and nothing else is."""

import pytest

from llava_video.verdicts import read_preference, read_score


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("The better response: [first]", "first"),
        ("The better response: [second].", "second"),
        ("The better response: [1]", "first"),
        ("The better response: [2]", "second"),
        ("The better response: [A]", "first"),
        ("The better response: [B]", "second"),
        ("The better response: second", "second"),
        ("**The better response:** first.", "first"),
        ("Both name the dog.\nTHE BETTER RESPONSE:\n[Second]\nIt is longer.", "second"),
        ("Two responses are equally good", "tie"),
        ("Two responses are equally good.\nBoth name the dog.", "tie"),
    ],
)
def test_the_better_response(text: str, choice: str) -> None:
    assert read_preference(text) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("[[A>>B]]", "first"),
        ("My final verdict is: [[A>B]]", "first"),
        ("[[A=B]]", "tie"),
        ("[[B>A]].", "second"),
        ("[[ B >> A ]]", "second"),
    ],
)
def test_arena_style(text: str, choice: str) -> None:
    assert read_preference(text) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("8 6\nThe first one is more detailed.", "first"),
        ("6, 8.5\nThe second one is.", "second"),
        ("7 7", "tie"),
        ("10 1\n", "first"),
    ],
)
def test_two_numbers_on_the_first_line(text: str, choice: str) -> None:
    assert read_preference(text) == choice


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Final Score: 85", 85),
        ("It is wrong. Final Score: 0", 0),
        ("Final Score: 100.", 100),
        ("**Final Score**: 85/100", 85),
        ("Final score: [85]", 85),
        ("Final Score: 72.5 out of 100", 72.5),
        ("Final Score:\n**90**", 90),
        ("Final Score: 90\n2 of 3 dogs are named.", 90),
        ("Final Score: 90, ordinary", 90),
        ("Score: [90/100], and it is right", 90),
    ],
)
def test_final_score(text: str, score: float) -> None:
    assert read_score(text) == score


@pytest.mark.parametrize(("text", "score"), [("Score: [85]", 85), ("Score: [7], because", 7)])
def test_score_in_brackets(text: str, score: float) -> None:
    assert read_score(text) == score


def test_the_last_mention_of_a_form_counts() -> None:
    changed = "The better response: [first]. No, it invents a cat. The better response: [second]"
    assert read_preference(changed) == "second"
    assert read_preference("[[A>B]]? On second thoughts:\n[[B>A]]") == "second"
    assert read_score("Final Score: 90\nIt missed the dog.\nFinal Score: 40") == 40
    # The last one counts even where it cannot be read: an earlier one would be a guess.
    assert read_score("Final Score: 90\nFinal Score: 900") is None
    assert read_preference("The better response: [first]\nThe better response: [none]") == (
        "undecided"
    )


def test_forms_are_searched_in_order_and_may_not_be_taken_back() -> None:
    # What an arena-style note says before is overruled by the form that comes first in the order …
    assert read_preference("[[B>A]] was my draft.\nThe better response: [first]") == "first"
    assert read_preference("9 3\nThe better response: [second]") == "second"
    assert read_score("Score: [90] at first sight. Final Score: 80") == 80
    # … and one that stands behind it contradicts it.
    assert read_preference("The better response: [first]\n[[B>A]]") == "undecided"
    assert read_score("Final Score: 80. Score: [90]") is None
    assert read_preference("The better response: [first]\n[[A>>B]]") == "first"
    assert read_score("Final Score: 80. Score: [80]") == 80


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I prefer the second one.",
        "The first response is better.",
        "The better response: A detailed one would name the dog.",
        "The better response: first of all, neither is good.",
        "The better response: [first or second]",
        "The better response: [first] or [second]",
        "The better response: [third]",
        "The better response: [3]",
        "I would not say the better response: [first].",
        "It is not true that two responses are equally good.",
        "Two responses are equally good at colours, but not at counting.",
        "[[A>B>A]]",
        "[[A]]",
        "[A>B]",
        "Choose one of [[A>>B]], [[A>B]], [[A=B]], [[B>A]] or [[B>>A]]",
        "0 6\nOut of the range of 1 to 10.",
        "8 11",
        "800 600",
        "8 6 7\nThree numbers.",
        "The scores are 8 6",
        "8\n6",
        "La mejor respuesta: [primera]",
        "更好的回答：[第一]",
        "Beide Antworten sind gleich gut.",
        "８ ６\n",
    ],
)
def test_what_says_no_preference_is_undecided(text: str) -> None:
    assert read_preference(text) == "undecided"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "the score is not 90 but 9",
        "Score: 90",
        "Final Score: not 90 but 9",
        "This is not a Final Score: 90",
        "Final Score: N",
        "Final Score: 101",
        "Final Score: 850",
        "Final Score: -5",
        "Final Score: 8,500",
        "Final Score: 8.5/10",
        "Final Score: 8 out of 10",
        "Final Score: 80-90",
        "Final Score: 80 to 90",
        "Final Score: 80 or 90",
        "Final Score: 85a",
        "Final Score: 85, or 90",
        "**Final Score:** **85** or 90",
        "Final Score: 85% or 90%",
        "Final Score: 85 or higher",
        "Final Score: 85/100, 90/100",
        "Final Score: 8 5",
        "Final Score: 85, 90",
        "Final Score: [85] [90]",
        "Final Score: [85] to [90]",
        "Final Score: 1000000000000",
        "Final Score: ９０",
        "Score: [850]",
        "Score: [85 or 90]",
        "Score: [85",
        "Puntuación final: 90",
        "最终得分：90",
        "The better response: [first]",
        "8 6",
    ],
)
def test_what_says_no_score_is_none(text: str) -> None:
    assert read_score(text) is None


def test_the_scale_bounds_the_score() -> None:
    assert read_score("Final Score: 8/10", scale=10) == 8
    assert read_score("Final Score: 10", scale=10) == 10
    assert read_score("Final Score: 11", scale=10) is None
    assert read_score("Final Score: 8/100", scale=10) is None


def test_a_negation_further_away_is_of_something_else() -> None:
    assert read_preference("The second is not good. The better response: [first]") == "first"
    assert read_preference("It does not say so, thus the better response: [2]") == "second"
    assert read_score("It is not complete\nFinal Score: 40") == 40


@pytest.mark.parametrize("filler", [" ", "*", "9", "[[ "])
@pytest.mark.parametrize(
    "start",
    ["Final Score:", "Final Score: 8", "Score:", "Score: [", "the better response", "[[A>B]]", "8"],
)
def test_a_long_text_takes_no_longer_than_its_length(start: str, filler: str) -> None:
    """Of 1e6 characters, a pattern that tries every pair of places would make 1e12 steps."""
    text = start + filler * (10**6 // len(filler)) + "x"
    read_score(text)
    read_preference(text)


@pytest.mark.parametrize(
    "mention", ["Final Score:", "Final Score: 8 ", "Score:[", "the better response ", "[[A>B]]  "]
)
def test_many_mentions_take_no_longer_either(mention: str) -> None:
    text = mention * (10**6 // len(mention)) + "x"
    read_score(text)
    read_preference(text)
