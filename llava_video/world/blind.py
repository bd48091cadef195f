"""Questions → how often the majority answer of each kind is right, said by one who sees nothing.

Whatever a model reaches is read beside this.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from llava_video.world.question import TOLERANCE_S, Question


@dataclass(frozen=True, slots=True)
class BlindScore:
    """How often the blind answer to one kind of question is right.

    Attributes:
        num_questions: how many were asked.
        num_right: of them.
        answer: what was answered; "#0" is the first of the choices that a question names.
    """

    num_questions: int
    num_right: int
    answer: str

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.num_right / self.num_questions


def majority_answers(questions: Iterable[Question]) -> dict[str, str]:
    """Return the answer of each kind that is right most often; of equals, the first one.

    Where a question names its own choices (`order`), what counts is which of them it is: "#0".
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: dict[str, float] = {}
    for question in questions:
        counts[question.kind][_key(question)] += 1
        if question.seconds is not None:
            seconds[question.answer] = question.seconds
    best: dict[str, str] = {}
    for kind, found in counts.items():
        rights = {
            answer: sum(n for other, n in found.items() if _counts_as(other, answer, seconds))
            for answer in found
        }
        best[kind] = min(rights, key=lambda answer: (-rights[answer], answer))
    return best


def blind_answer(question: Question, majority: dict[str, str]) -> str:
    """Answer a question unseen: the majority answer of its kind, "" of an unknown kind."""
    answer = majority.get(question.kind, "")
    return question.choices[int(answer[1:])] if _names_choices(question) and answer else answer


def blind_scores(
    asked: Iterable[Question], known: Iterable[Question] | None = None
) -> dict[str, BlindScore]:
    """Score the blind answers by kind.

    Args:
        asked: the questions.
        known: where the majorities are taken from, such as the questions of training; None takes
            those asked, which is the best that can be done blindly.

    Returns:
        kind → score, of the kinds that are asked.
    """
    asked = list(asked)
    majority = majority_answers(asked if known is None else known)
    numbers: Counter[str] = Counter()
    rights: Counter[str] = Counter()
    for question in asked:
        numbers[question.kind] += 1
        rights[question.kind] += question.is_right(blind_answer(question, majority))
    return {
        kind: BlindScore(numbers[kind], rights[kind], majority.get(kind, ""))
        for kind in sorted(numbers)
    }


def _counts_as(truth: str, answer: str, seconds: dict[str, float]) -> bool:
    """Say whether an answer is right where the truth is another: moments near it are."""
    if truth in seconds and answer in seconds:
        return abs(seconds[truth] - seconds[answer]) <= TOLERANCE_S
    return truth == answer


def _names_choices(question: Question) -> bool:
    return question.kind == "order" and bool(question.choices)


def _key(question: Question) -> str:
    if _names_choices(question):
        return f"#{question.choices.index(question.answer)}"
    return question.answer
