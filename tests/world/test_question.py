import pytest
from scene_maker import scene, thing

from llava_video.world.dice import Dice
from llava_video.world.question import ANSWERS, Asker, Question
from llava_video.world.settings import WorldSettings
from llava_video.world.witness import Witness


@pytest.fixture
def asker() -> Asker:
    return Asker(Witness(scene(thing()), WorldSettings()), Dice("asker"))


@pytest.mark.parametrize(
    ("said", "is_right"),
    [("red", True), (" Red. ", True), ("dark red", False), ("", False), ("blue", False)],
)
def test_words_are_judged(said: str, is_right: bool) -> None:
    assert Question("colour", "?", "red").is_right(said) is is_right


@pytest.mark.parametrize(
    ("said", "is_right"),
    [("2.5 s", True), ("3.0 s", True), ("2.0", True), ("3.1 s", False), ("1.9s", False),
     ("2.5 s.", True), ("soon", False), ("", False)],
)  # fmt: skip
def test_moments_may_be_half_a_second_off(said: str, is_right: bool) -> None:
    assert Question("when", "?", "2.5 s", (), 2.5).is_right(said) is is_right


def test_a_coin_decides_and_both_sides_must_be_there(asker: Asker) -> None:
    answers = [q.answer for _ in range(400) for q in asker.yes_no("does", ["a"], ["b", "c", "d"])]
    # By the lengths of the lists it would be one in four.
    assert 160 < answers.count("yes") < 240
    assert list(asker.yes_no("does", ["a"], [])) == []
    assert list(asker.yes_no("does", [], ["a"])) == []


def test_forms_that_have_both_answers_come_first(asker: Asker) -> None:
    forms = {"a": (["a+"], ["a-"]), "b": (["b+"], [])}
    texts = {q.text for _ in range(50) for q in asker.yes_no_by_form("does", forms)}
    assert texts == {"a+", "a-"}
    forms = {"a": (["a+"], []), "b": ([], ["b-"])}
    texts = {q.text for _ in range(50) for q in asker.yes_no_by_form("does", forms)}
    assert texts == {"a+", "b-"}


def test_answers_are_drawn_before_questions(asker: Asker) -> None:
    by_answer = {"0": ["x"] * 30, "1": ["y"]}
    answers = [q.answer for _ in range(400) for q in asker.evenly("count_alike", by_answer)]
    assert 160 < answers.count("1") < 240
    assert list(asker.evenly("count_alike", {})) == []


def test_kinds_with_choices_know_them() -> None:
    assert ANSWERS["does"] == ("yes", "no")
    assert len(ANSWERS["direction"]) == 8
    assert len(ANSWERS["place"]) == 9
