"""One question with its known answer, and a task: the function that reads them from a folder.

What is asked stands here word for word, so that a prompt is looked up and never guessed. Knows no
model and no file format.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase

from llava_video.errors import ConfigError, LlavaVideoError
from llava_video.eval.media import Footage
from llava_video.tables import Row

Truth = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Measure:
    """One share that an answer adds to, where it is more than right or wrong.

    Attributes:
        name: of what: "objects named".
        part: counted.
        whole: out of so many; 0 where there is nothing to count.
    """

    name: str
    part: int
    whole: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One question about one video or picture.

    Attributes:
        id: names it in its task.
        cluster: names its video; examples of one video share it.
        footage: what the question is about; None where it is not to be had.
        prompt: what the model is asked, word for word.
        choices: the only answers that can be given; () leaves the answer free.
        answer: the right one: one of the choices, or of a free answer a text, a number, or yes
            (True) and no (False); None where the benchmark keeps it to itself.
        other_answers: texts that are right too.
        tolerance: how far a number may be off, in its own unit.
        groups: what it is counted with: kind of group → name. The first kind is the question's
            type, by which a guess is made.
        measure: what else is counted of an answer's text, "" of one that failed; None for nothing.
        max_new_tokens: the longest answer where no option says so; None for a short one.
        fault: why it cannot be asked.
    """

    id: str
    cluster: str
    footage: Footage | None = None
    prompt: str = ""
    choices: tuple[str, ...] = ()
    answer: Truth = None
    other_answers: tuple[str, ...] = ()
    tolerance: float = 0.0
    groups: Mapping[str, str] = field(default_factory=dict)
    measure: Callable[[str], tuple[Measure, ...]] | None = field(default=None, compare=False)
    max_new_tokens: int | None = None
    fault: LlavaVideoError | None = None

    @property
    def trouble(self) -> LlavaVideoError | None:
        """Why it cannot be asked: its own fault, or that there is nothing to show."""
        return self.fault or (self.footage.missing if self.footage else None)

    @property
    def digest(self) -> str:
        """Hash of what is asked and of the answer; the same question of another copy has the same.

        The file's path is left out, its span is not.
        """
        span = (self.footage.start_s, self.footage.end_s) if self.footage else None
        asked = (self.id, self.prompt, self.choices, self.answer, self.other_answers)
        longest = [] if self.max_new_tokens is None else [self.max_new_tokens]
        return digest_of([*asked, self.tolerance, span, *longest])


@dataclass(frozen=True, slots=True)
class Task:
    """A benchmark that can be read.

    Attributes:
        name: as it is asked for.
        about: what it is, one line.
        read: folder of the local copy → examples, in the order of the files.
    """

    name: str
    about: str
    read: Callable[[Path], Iterator[Example]]


def digest_of(value: object) -> str:
    """Return the hash of plain values, 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def examples_of(rows: Iterable[Row], make: Callable[[Row], Example]) -> Iterator[Example]:
    """Make an example of every row; of a row that cannot be used, one that says why."""
    for row in rows:
        try:
            yield make(row)
        except LlavaVideoError as error:
            yield Example(id=row.where, cluster=row.where, fault=error)


def letters(choices: Iterable[object]) -> tuple[str, ...]:
    """Return "A", "B", … for as many choices as there are."""
    return tuple(ascii_uppercase[idx] for idx, _ in enumerate(choices))


def letter_of(row: Row, answer: str, choices: tuple[str, ...]) -> str:
    """Return the letter of the choice that an answer repeats.

    Raises:
        ConfigError: none does, or two do.
    """
    if choices.count(answer) != 1:
        raise ConfigError(
            f"{row.where}: the answer {answer!r} is {choices.count(answer)} of the choices.",
            f"they are {', '.join(map(repr, choices))}.",
        )
    return ascii_uppercase[choices.index(answer)]


def known_letter(row: Row, answer: str, choices: tuple[str, ...]) -> str:
    """Return a letter that was given as the answer.

    Raises:
        ConfigError: there is no such choice.
    """
    letter = answer.strip().strip("().").upper()
    if letter not in letters(choices):
        raise ConfigError(
            f"{row.where}: the answer is {answer!r} of {len(choices)} choices.",
            f"allowed: {', '.join(letters(choices))}.",
        )
    return letter


def letter_at(row: Row, idx: int, choices: tuple[str, ...]) -> str:
    """Return the letter of the choice with an index that counts from 0.

    Raises:
        ConfigError: there is none.
    """
    if not 0 <= idx < len(choices):
        raise ConfigError(
            f"{row.where}: the answer is number {idx} of {len(choices)} choices.",
            f"0 to {len(choices) - 1}.",
        )
    return ascii_uppercase[idx]


def lettered(choices: Iterable[str], form: str = "{letter}. {text}") -> str:
    """Return choices as lines, "A. a cat"."""
    return "\n".join(
        form.format(letter=ascii_uppercase[idx], text=text) for idx, text in enumerate(choices)
    )
