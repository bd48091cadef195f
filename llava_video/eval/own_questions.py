"""This library's own files of questions about videos → examples.

A file (`*.json`, a list, or `*.jsonl`, one item a line) of

    {"id": "000017", "video": "clips/000017.mp4", "questions": [
        {"question": "What colour is the square?", "type": "colour", "answer": "red",
         "choices": ["red", "blue", "green"]},
        {"question": "Is there a circle?", "type": "yes/no", "answer": true},
        {"question": "When does it leave?", "type": "when", "answer": 3.5, "tolerance": 0.5}]}

`video` is relative to the file's folder; an item may also be one question, its fields beside `id`
and `video`. `answer` is a text, a number, or true and false, which are asked as a choice of yes and
no. `tolerance` is how far a number may be off; of a time (type "when") it is 0.5 s where none is
given. The question is asked as it stands. The training files of the small world are read as well:
there `answers` holds the questions, `text` and `kind` are what is asked and its type, and `seconds`
is the time where one is asked for; captions are left out, and so are the pairs of answers that
stand beside them (`chosen` and `rejected`). Questions of one video are one cluster, whatever items
they are in. Knows no model.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llava_video.errors import ConfigError
from llava_video.eval.example import Example, Truth, examples_of
from llava_video.eval.files import annotation_files
from llava_video.eval.media import Footage, MediaIndex
from llava_video.tables import Row, read_rows

YES_NO = ("yes", "no")
_WHEN = "when"
_WHEN_TOLERANCE_S = 0.5
_CAPTIONS = ("short", "detailed", "timed")  # kinds of the small world that are no questions
_PAIR = frozenset({"chosen", "rejected"})  # answers to learn a preference from


def read_questions(folder: Path) -> Iterator[Example]:
    """Read every file of questions in a folder."""
    patterns = ("questions*.json*", "*.jsonl", "*.json")
    media = MediaIndex(folder)
    for path in annotation_files(folder, patterns, "questions"):
        for item in read_rows(path, "items"):
            if not item.values.keys() >= _PAIR:
                yield from _examples(item, media)


def _examples(item: Row, media: MediaIndex) -> Iterator[Example]:
    """Yield the questions of one video; when it cannot be found each of them says so."""

    def make(row: Row) -> Example:
        footage = media.footage(item.text("video"), "videos", "clips")
        return _example(row, item.text("id"), item.text("video"), footage)

    yield from examples_of(_questions(item), make)


def _questions(item: Row) -> Iterator[Row]:
    questions = item.values.get("questions", item.values.get("answers"))
    if questions is None or item.broken:
        yield item
        return
    if not isinstance(questions, list):
        yield Row(item.where, broken=f"questions = {str(questions)[:40]} is no list.")
        return
    for number, question in enumerate(questions, 1):
        where = f"{item.where}, question {number}"
        if isinstance(question, Mapping):
            if question.get("kind") not in _CAPTIONS:
                yield Row(where, question)
        else:
            yield Row(where, broken=f"{str(question)[:40]!r} is no object.")


def _example(row: Row, name: str, video: str, footage: Footage) -> Example:
    kind = row.text("type", "kind")
    answer = row.number("seconds") if row.has("seconds") else row.value("answer")
    if not isinstance(answer, str | int | float):
        raise ConfigError(
            f"{row.where}: answer = {answer!r}.", "a text, a number, or true and false."
        )
    choices = _choices(row, answer)
    is_number = isinstance(answer, int | float) and not isinstance(answer, bool)
    tolerance = _tolerance(row, kind) if is_number and not choices else 0.0
    return Example(
        id=_id(name, row),
        cluster=video,
        footage=footage,
        prompt=row.text("question", "text"),
        choices=choices,
        answer=_among(row, answer, choices) if choices else answer,
        tolerance=tolerance,
        groups={"type": kind},
    )


def _id(name: str, row: Row) -> str:
    number = row.where.rpartition("question ")[2]
    return f"{name}/{number}" if number.isdigit() else name


def _choices(row: Row, answer: Any) -> tuple[str, ...]:
    if not row.values.get("choices"):
        return YES_NO if isinstance(answer, bool) else ()
    given = row.value("choices")
    if not isinstance(given, list) or not all(isinstance(c, str | int | float) for c in given):
        raise ConfigError(f"{row.where}: choices = {given!r}.", "a list of texts or numbers.")
    return tuple(_word(choice) for choice in given)


def _among(row: Row, answer: Truth, choices: tuple[str, ...]) -> str:
    word = _word(answer)
    if word not in choices:
        raise ConfigError(
            f"{row.where}: the answer {word!r} is none of the choices.",
            f"they are {', '.join(map(repr, choices))}.",
        )
    return word


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return YES_NO[0] if value else YES_NO[1]
    return str(value).strip()


def _tolerance(row: Row, kind: str) -> float:
    if not row.has("tolerance"):
        return _WHEN_TOLERANCE_S if kind == _WHEN else 0.0
    tolerance = row.number("tolerance")
    if tolerance < 0:
        raise ConfigError(f"{row.where}: tolerance = {tolerance}.", "at least 0.")
    return tolerance
