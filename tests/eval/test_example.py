"""Letters, digests and the rows that cannot be used."""

from pathlib import Path

import pytest

from llava_video.errors import ConfigError, SourceError
from llava_video.eval.example import (
    Example,
    digest_of,
    examples_of,
    known_letter,
    letter_at,
    letter_of,
    lettered,
    letters,
)
from llava_video.eval.media import Footage
from llava_video.tables import Row

ROW = Row("t, row 2", {"q": "?"})
CHOICES = ("cat", "dog", "cow")


def test_letters() -> None:
    assert letters(CHOICES) == ("A", "B", "C")
    assert lettered(CHOICES) == "A. cat\nB. dog\nC. cow"
    assert lettered(("x",), "({letter}) {text}") == "(A) x"
    assert letter_of(ROW, "dog", CHOICES) == "B"
    assert letter_at(ROW, 2, CHOICES) == "C"
    assert known_letter(ROW, "(b).", CHOICES) == "B"


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda: letter_of(ROW, "horse", CHOICES), "'horse' is 0 of the choices"),
        (lambda: letter_of(ROW, "cat", ("cat", "cat")), "'cat' is 2 of the choices"),
        (lambda: letter_at(ROW, 3, CHOICES), "number 3 of 3"),
        (lambda: letter_at(ROW, -1, CHOICES), "number -1 of 3"),
        (lambda: known_letter(ROW, "D", CHOICES), "'D' of 3"),
    ],
)
def test_an_answer_that_is_no_choice_is_refused(read, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read()
    assert "t, row 2" in caught.value.message


def test_a_row_that_cannot_be_used_hides_no_other() -> None:
    rows = [Row("r1", {"q": "a"}), Row("r2", {}), Row("r3", {}, "torn."), Row("r4", {"q": "b"})]
    made = list(examples_of(rows, lambda row: Example(id=row.text("q"), cluster="v")))
    assert [example.id for example in made] == ["a", "r2", "r3", "b"]
    assert [example.fault is None for example in made] == [True, False, False, True]
    assert isinstance(made[2].trouble, ConfigError)


def test_the_digest_is_of_what_is_asked_and_not_of_where_it_lies() -> None:
    base = {"id": "1", "cluster": "v", "prompt": "What?", "answer": "x"}
    here = Example(**base, footage=Footage(path=Path("/a/v.mp4")))
    there = Example(**base, footage=Footage(path=Path("/b/v.mp4")), groups={"type": "t"})
    assert here.digest == there.digest
    others = [
        Example(**base, footage=Footage(path=Path("/a/v.mp4"), start_s=1.0)),
        Example(**base | {"prompt": "What ?"}),
        Example(**base | {"answer": "y"}),
        Example(**base, choices=("x", "y")),
        Example(**base, other_answers=("z",)),
        Example(**base, tolerance=0.1),
    ]
    assert len({here.digest, *(other.digest for other in others)}) == 7
    assert digest_of([1, "a"]) != digest_of(["1", "a"])


def test_nothing_to_show_is_trouble() -> None:
    lost = SourceError("gone.", "")
    footage = Footage(path=Path("v"), missing=lost)
    assert Example(id="1", cluster="v", footage=footage).trouble is lost
    assert Example(id="1", cluster="v").trouble is None
