"""One question with its answer and the form the answer has: the value that askers return."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from llava_video.world.dice import Dice
from llava_video.world.scene import Event
from llava_video.world.vocabulary import COLOURS, DIRECTIONS, PLACES, SHAPES, SIZES
from llava_video.world.witness import Witness

YES_NO: Final = ("yes", "no")
SIDES: Final = ("left", "right", "top", "bottom")
ACTIONS: Final = (
    "enters", "leaves", "moves", "grows", "shrinks", "changes colour", "hides", "nothing",
)  # fmt: skip

# kind → the closed set of its answers; () where they are open or differ by question.
ANSWERS: Final[dict[str, tuple[str, ...]]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "place": tuple(place for row in PLACES for place in row),
    "count": ("1", "2", "3", "4"),
    "count_alike": ("0", "1", "2", "3", "4"),
    "count_now": ("0", "1", "2", "3", "4"),
    "direction": tuple(DIRECTIONS),
    "side": SIDES,
    "action": ACTIONS,
    "which": (),
    "hits": (),
    "order": (),
    "when": (),
    "sign": (),
    "is_there": YES_NO,
    "is_there_now": YES_NO,
    "does": YES_NO,
    "did_change": YES_NO,
    "did_number": YES_NO,
    "did_anything": YES_NO,
    "moves_to": YES_NO,
    "before": YES_NO,
    "beside": YES_NO,
    "is_sign": YES_NO,
    "sign_says": YES_NO,
}
TOLERANCE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its one right answer.

    Attributes:
        kind: one of `ANSWERS`.
        text: what is asked.
        answer: what is right, word for word.
        choices: the answers of which one is right; () where anything may be said.
        seconds: the number in the answer, of "when"; s. None otherwise.
    """

    kind: str
    text: str
    answer: str
    choices: tuple[str, ...] = ()
    seconds: float | None = None

    def is_right(self, answer: str) -> bool:
        """Judge an answer: the same words; of a time, at most half a second off.

        Case, blanks at the ends and a full stop do not count.
        """
        said = answer.strip().rstrip(".").strip().lower()
        if self.seconds is None:
            return said == self.answer.lower()
        try:
            return abs(float(said.removesuffix("s").strip()) - self.seconds) <= TOLERANCE_S + 1e-9
        except ValueError:
            return False


class Asker:
    """What askers share: what is certain, and draws.

    Args:
        witness: what is certain.
        dice: where choices and wordings come from.
    """

    def __init__(self, witness: Witness, dice: Dice) -> None:
        self.witness, self.dice = witness, dice
        self.scene = witness.scene
        self.things = witness.scene.things

    def make(self, kind: str, texts: Sequence[str], answer: str) -> Question:
        """Word a question in one of several ways."""
        return Question(kind, self.dice.pick(texts), answer, ANSWERS[kind])

    def yes_no(self, kind: str, yes: Sequence[str], no: Sequence[str]) -> Iterator[Question]:
        """Ask one of two lists, by the toss of a coin.

        Nothing is asked unless both could be: then each answer is right half of the time, whatever
        the scenes are like.
        """
        if yes and no:
            is_yes = self.dice.chance(0.5)
            text = self.dice.pick(yes if is_yes else no)
            yield Question(kind, text, "yes" if is_yes else "no", YES_NO)

    def yes_no_by_form(
        self, kind: str, forms: dict[str, tuple[list[str], list[str]]]
    ) -> Iterator[Question]:
        """Ask one of several forms of a question that each could have both answers.

        Where none can, a right claim of one form stands against a wrong one of another.

        Args:
            kind: of the question.
            forms: form → (texts that are right, texts that are wrong).
        """
        both = sorted(form for form, (yes, no) in forms.items() if yes and no)
        if both:
            yield from self.yes_no(kind, *forms[self.dice.pick(both)])
        else:
            yes = [text for form in sorted(forms) for text in forms[form][0]]
            no = [text for form in sorted(forms) for text in forms[form][1]]
            yield from self.yes_no(kind, yes, no)

    def evenly(self, kind: str, by_answer: dict[str, list[str]]) -> Iterator[Question]:
        """Ask for one answer of those possible, drawn first, in one of its wordings."""
        if by_answer:
            answer = self.dice.pick(sorted(by_answer))
            yield Question(kind, self.dice.pick(by_answer[answer]), answer, ANSWERS[kind])

    def drawn(self, idxs: Sequence[int]) -> Iterator[int]:
        """Yield one of some objects, by draw; none of none."""
        if idxs:
            yield self.dice.pick(idxs)

    def clear_things(self) -> list[int]:
        """Return the numbers of objects about which all is certain."""
        return sorted(self.witness.clear)

    def only_event(self, idx: int, *kinds: str) -> Event | None:
        """Return an object's one certain event of some kinds; None where it has not just one."""
        found = self.witness.events_of(idx, *kinds)
        is_one = len(found) == 1 and self.witness.is_certain(found[0])
        return found[0] if is_one else None
