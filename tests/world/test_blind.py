import pytest

from llava_video.world.blind import blind_answer, blind_scores, majority_answers
from llava_video.world.question import Question


def colour(answer: str) -> Question:
    return Question("colour", "?", answer)


def order(choices: tuple[str, str], which: int) -> Question:
    return Question("order", "?", choices[which], choices)


def test_the_majority_of_each_kind() -> None:
    asked = [colour("red"), colour("blue"), colour("blue"), Question("does", "?", "no")]
    scores = blind_scores(asked)
    assert {kind: (s.answer, s.num_right, s.num_questions) for kind, s in scores.items()} == {
        "colour": ("blue", 2, 3),
        "does": ("no", 1, 1),
    }
    assert scores["colour"].accuracy == pytest.approx(2 / 3)


def test_of_equals_the_first_in_the_alphabet() -> None:
    assert majority_answers([colour("red"), colour("blue")]) == {"colour": "blue"}


def test_choices_of_a_question_count_by_their_place() -> None:
    known = [order(("a", "b"), 1), order(("c", "d"), 1), order(("e", "f"), 0)]
    majority = majority_answers(known)
    assert majority == {"order": "#1"}
    # By words every answer would be the only one of its kind.
    assert blind_answer(order(("x", "y"), 0), majority) == "y"
    assert blind_scores(known)["order"].num_right == 2


def test_majorities_may_come_from_elsewhere() -> None:
    scores = blind_scores([colour("red"), colour("blue")], known=[colour("red")])
    assert scores["colour"].num_right == 1
    assert blind_scores([colour("red")], known=[])["colour"].num_right == 0


def test_moments_near_an_answer_count_for_it() -> None:
    whens = [Question("when", "?", f"{t:.1f} s", (), t) for t in (2.0, 2.5, 3.0, 5.0, 5.0)]
    score = blind_scores(whens)["when"]
    # 5.0 is the most frequent word, 2.5 the most frequent right answer.
    assert (score.answer, score.num_right) == ("2.5 s", 3)
