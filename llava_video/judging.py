r"""Answers about a video or a picture → a score with reasons, or which of them is better.

The prompts are LLaVA-Critic's, byte for byte as its model card has them: the slip in the first
sentence of the one for scores and the blank at its end, the square brackets around what is filled
in, and the line "ASSISTANT:" inside the user's turn. Any model may be asked; one that was not
trained to judge says so in the warnings. Every pair of answers is asked in both orders, and where
these disagree it is undecided. Knows no engine: it is given what asks the questions.
"""

import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final, Literal, Protocol

from llava_video.config import to_mapping
from llava_video.errors import ConfigError
from llava_video.model.prompt import template_of
from llava_video.model.spec import ModelSpec
from llava_video.model.tokenizer import IMAGE_MARK
from llava_video.values import Description
from llava_video.verdicts import Choice, read_preference, read_score

# What the model card generates at most.
CARD_NEW_TOKENS: Final = 4096

Outcome = Literal["decided", "tie", "undecided"]


class Ask(Protocol):
    """What asks several questions about one video."""

    def __call__(
        self, questions: Sequence[str], *, up_to_tokens: int | None = None
    ) -> list[Description]:
        """Return one description per question, in their order; see `asking.ask_shared`."""
        ...


_JUDGE = (
    "Given an image and a corresponding question, please serve as an unbiased and fair judge to "
    "evaluate the quality of {} provided by a Large Multimodal Model (LMM). "
)
_TASK = "with specific details. Your task is provided as follows:\n"
_SCORING = _JUDGE.format("answer answers") + "Score the response out of "
_COMPARING = (
    _JUDGE.format("the answers")
    + "Determine which answer is better and explain your reasoning "
    + _TASK
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a judge says of one answer.

    Attributes:
        score: 0 to `scale`; None when the judge's text holds none that is certain.
        scale: the best score.
        reasons: the judge's text.
        question: what had been asked.
        answer: what was judged.
        description: how the judge came to it: plan, frames, usage.
        warnings: what the reader should know before believing the score.
    """

    score: float | None
    scale: int
    reasons: str
    question: str
    answer: str
    description: Description
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return everything but the thumbnails as JSON text."""
        return _to_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a judge says of two answers in one order.

    Attributes:
        shown: indices of the answers, the one shown first before the other.
        choice: which of the two it prefers, "tie", or "undecided" when its text does not say.
        reasons: the judge's text.
        description: how the judge came to it.
    """

    shown: tuple[int, int]
    choice: Choice
    reasons: str
    description: Description

    @property
    def margin(self) -> int:
        """By how much the answer shown second beats the first: 1, 0 or -1.

        The forms of a verdict have strengths of different units, so none is counted.
        """
        return {"second": 1, "first": -1}.get(self.choice, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Which of several answers a judge prefers.

    Attributes:
        outcome: "decided" when one answer stands above all others, "tie" when the judge finds those
            that stand highest equally good, else "undecided".
        best: index of the answer that stands above all others; None unless "decided".
        worst: index of the one that stands below all others; None when there is no single one.
        scores: of every answer, how often it beat another less how often it was beaten, each pair
            counted in both orders; what is undecided counts nothing.
        question: what had been asked.
        answers: what was judged.
        comparisons: every ordered pair, (0, 1), (0, 2), …, (1, 0), ….
        warnings: pairs that are undecided, and what else the reader should know.
    """

    outcome: Outcome
    best: int | None
    worst: int | None
    scores: tuple[int, ...]
    question: str
    answers: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return everything but the thumbnails as JSON text."""
        return _to_json(self)


def scoring_prompt(question: str, answer: str, scale: int = 100) -> str:
    """Return the card's prompt for the score of one answer, without the visual's mark."""
    task = f"{_SCORING}{scale} and explain your reasoning {_TASK}"
    return f"{task}Question: [{question}]\nThe LMM response: [{answer}]\nASSISTANT:\n "


def comparing_prompt(question: str, first: str, second: str) -> str:
    """Return the card's prompt for the better one of two answers, without the visual's mark."""
    return (
        f"{_COMPARING}Question: [{question}]\nThe first response: [{first}]\n"
        f"The second response: [{second}]\nASSISTANT:\n"
    )


def judge_answer(spec: ModelSpec, ask: Ask, question: str, answer: str, scale: int) -> Verdict:
    """Ask for the score of one answer; see `LlavaVideo.judge`.

    Raises:
        ConfigError: the question is empty, something is no text, or the scale is not above 0.
    """
    _check_texts(question, [answer])
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 1:
        raise ConfigError(f"scale = {scale!r}.", "a whole number, at least 1.")
    asked = _harmless(spec, question), _harmless(spec, answer)
    prompt = scoring_prompt(*asked, scale)
    description = ask([prompt], up_to_tokens=CARD_NEW_TOKENS)[0]
    score = read_score(description.text, scale)
    unread = [] if score is not None else ["no score could be read in the judge's text."]
    return Verdict(
        score=score,
        scale=scale,
        reasons=description.text,
        question=question,
        answer=answer,
        description=description,
        warnings=_warnings(spec, unread, asked != (question, answer), [description]),
    )


def compare_answers(spec: ModelSpec, ask: Ask, question: str, answers: Sequence[str]) -> Preference:
    """Ask for the better one of every two answers; see `LlavaVideo.compare`.

    Raises:
        ConfigError: the question is empty, something is no text, or there are not two answers.
    """
    answers = [answers] if isinstance(answers, str) else list(answers)
    _check_texts(question, answers)
    if len(answers) < 2:
        found = "is only one answer" if answers else "are no answers"
        raise ConfigError(f"there {found} to compare.", "give two or more.")
    asked = [_harmless(spec, text) for text in (question, *answers)]
    shown = list(permutations(range(len(answers)), 2))
    prompts = [comparing_prompt(asked[0], asked[1 + i], asked[1 + j]) for i, j in shown]
    descriptions = ask(prompts, up_to_tokens=CARD_NEW_TOKENS)
    comparisons = tuple(
        Comparison(
            shown=pair,
            choice=read_preference(description.text),
            reasons=description.text,
            description=description,
        )
        for pair, description in zip(shown, descriptions, strict=True)
    )
    undecided = _undecided_pairs(comparisons)
    margins = {c.shown: 0 if frozenset(c.shown) in undecided else c.margin for c in comparisons}
    scores = tuple(rank(margins, len(answers)))
    outcome, best = _outcome(scores, margins, undecided)
    is_changed = asked != [question, *answers]
    return Preference(
        outcome=outcome,
        best=best,
        worst=_only(scores, min(scores)),
        scores=scores,
        question=question,
        answers=tuple(answers),
        comparisons=comparisons,
        warnings=_warnings(
            spec, list(undecided.values()), is_changed, [c.description for c in comparisons]
        ),
    )


def rank(margins: Mapping[tuple[int, int], int], num_answers: int) -> list[int]:
    """Return r of every answer: r_i = sum over k of a_ki - sum over l of a_il.

    Args:
        margins: a_ij of every ordered pair (i, j): by how much j, shown second, beats i.
        num_answers: K, so that there are K (K - 1) pairs.

    Source: LLaVA-Critic, arXiv 2410.02712, preference learning. Of two answers where the first one
    wins in both orders a_01 = -1 and a_10 = 1, so r = (2, -2).

    >>> rank({(0, 1): -1, (1, 0): 1}, 2)
    [2, -2]
    """
    scores = [0] * num_answers
    for (first, second), margin in margins.items():
        scores[second] += margin
        scores[first] -= margin
    return scores


def _undecided_pairs(comparisons: Sequence[Comparison]) -> dict[frozenset[int], str]:
    """Return the pairs whose two orders do not say the same, or say nothing, and why."""
    choices = {comparison.shown: comparison.choice for comparison in comparisons}
    undecided = {}
    for (i, j), choice in choices.items():
        both = choice, choices[j, i]
        if i > j or both in (("first", "second"), ("second", "first"), ("tie", "tie")):
            continue
        why = "the judge says otherwise when they change places"
        if "undecided" in both:
            why = "no verdict could be read in the judge's text"
        undecided[frozenset((i, j))] = f"answers {i + 1} and {j + 1} are undecided: {why}."
    return undecided


def _outcome(
    scores: Sequence[int],
    margins: Mapping[tuple[int, int], int],
    undecided: Container[frozenset[int]],
) -> tuple[Outcome, int | None]:
    best = _only(scores, max(scores))
    if best is not None:
        return "decided", best
    leaders = [idx for idx, score in enumerate(scores) if score == max(scores)]
    is_tie = all(
        margins[pair] == 0 and frozenset(pair) not in undecided for pair in permutations(leaders, 2)
    )
    return ("tie" if is_tie else "undecided"), None


def _only(scores: Sequence[int], wanted: int) -> int | None:
    return scores.index(wanted) if scores.count(wanted) == 1 else None


def _warnings(
    spec: ModelSpec, own: Sequence[str], is_changed: bool, descriptions: Sequence[Description]
) -> tuple[str, ...]:
    told = []
    if "critic" not in f"{spec.config.member} {spec.name}".lower():
        told.append(f"{spec.name} was not trained to judge; a LLaVA-Critic checkpoint was.")
    if is_changed:
        told.append(
            "marks, special tokens and the template's own strings in what is judged were broken up "
            "by a blank."
        )
    told += own
    for description in descriptions:
        told += description.warnings
        if description.finish_reason == "length":
            told.append(f"a judge's text was cut at {description.usage.new_tokens} tokens.")
    return tuple(dict.fromkeys(told))


def _harmless(spec: ModelSpec, text: str) -> str:
    """Break up what would end the judge's turn or claim a visual: answers are strangers' text."""
    template = template_of(spec.config.template)
    own = template.strings + template.tokens
    breaking = (IMAGE_MARK, *own, *spec.tokenizer.special_tokens_in(text))
    # Behind the first character of each, those that overlap included: "####" holds "###" twice.
    return re.sub(rf"(?={'|'.join(map(re.escape, breaking))})(.)", r"\1 ", text, flags=re.S)


def _check_texts(question: str, answers: Sequence[str]) -> None:
    for text in (question, *answers):
        if not isinstance(text, str):
            raise ConfigError(f"{text!r} is no text.", "the question and every answer are texts.")
    if not question.strip():
        raise ConfigError("the question is empty.", "give the question that was answered.")


def _to_json(result: Verdict | Preference) -> str:
    values = to_mapping(result)
    for holder in values.get("comparisons", [values]):
        del holder["description"]["thumbnails"], holder["description"]["thumbnail_times_s"]
    return json.dumps(values, indent=1, ensure_ascii=False)
