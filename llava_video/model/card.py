"""card.json beside a checkpoint ↔ what its makers say of it: what it knows, and how well, measured.

    {"card": 1,                                   the version of this form
     "name": "…", "about": "…", "world": "small",  "small": the small world; "" for no closed world
     "describe": "…",                              what is asked where nobody asks anything
     "knows": {"objects": ["…"], "colours": ["…"], "events": ["…"], "questions": ["…"]},
     "trained_on": "…", "seed": 0, "wall_time_s": 3600.0, "licence": "…", "limits": ["…"],
     "measured_on": "…",
     "results": [{"kind": "colour", "n": 1000, "accuracy": 0.97, "low": 0.96, "high": 0.98,
                  "blind": 0.15}, …]}

Shares are of 1; `low` and `high` bound the 95 % interval, `blind` is what the same model reaches
without seeing the video, null where that was not measured. A card.json without `card` is somebody
else's and is not read; one of another version is told of and left. Knows no weight.
"""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from llava_video.config import from_mapping, to_mapping
from llava_video.errors import CheckpointError, ConfigError
from llava_video.files import replacing
from llava_video.model.json_fields import read_json_object

CARD_FILE: Final = "card.json"
SMALL_WORLD: Final = "small"
_VERSION_KEY, _VERSION = "card", 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What a model was taught, in the words that it understands and uses.

    Attributes:
        objects: what it tells apart.
        colours: names of colours.
        events: what may happen.
        questions: one example of each form of question it was taught.
    """

    objects: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How often one kind of answer was right.

    Attributes:
        kind: of question, or what is counted of a caption.
        n: how many were asked, >= 1.
        accuracy: share that was right.
        low: where its 95 % interval begins.
        high: where that ends.
        blind: share that is right without seeing the video; None where it was not measured.
    """

    kind: str
    n: int
    accuracy: float
    low: float
    high: float
    blind: float | None = None

    def __post_init__(self) -> None:
        """Check that these are shares, in order."""
        shares = (self.low, self.accuracy, self.high, 0.0 if self.blind is None else self.blind)
        is_in_order = self.low <= self.accuracy <= self.high
        if self.n < 1 or not is_in_order or not all(0 <= share <= 1 for share in shares):
            raise ConfigError(
                f"the result {self.kind!r} has n = {self.n}, accuracy = {self.accuracy}, low = "
                f"{self.low}, high = {self.high}, blind = {self.blind}.",
                "n of at least 1, and shares of 1 with low <= accuracy <= high.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What a checkpoint's makers say of it; printed, it is a page for people.

    Attributes:
        name: the model's.
        about: one sentence.
        world: "small" where it knows the small world alone, so that other footage can be told from
            it; "" where it was trained on footage of all kinds.
        describe: the words of a question that it was taught to answer by a description, which it
            gets where nobody asks anything; "" where this library's own will do.
        knows: what it was taught.
        trained_on: data and stages, in words.
        seed: of the training.
        wall_time_s: how long the training took, s.
        licence: of the weights.
        limits: what it cannot do, one sentence each.
        measured_on: what the results were measured on, in words.
        results: accuracy by kind of question.
    """

    name: str
    about: str = ""
    world: Literal["small", ""] = ""
    describe: str = ""
    knows: Knowledge = Knowledge()
    trained_on: str = ""
    seed: int | None = None
    wall_time_s: float | None = None
    licence: str = ""
    limits: tuple[str, ...] = ()
    measured_on: str = ""
    results: tuple[Result, ...] = ()

    def __str__(self) -> str:
        """The page a person reads."""
        knows = self.knows
        facts = {
            "objects": ", ".join(knows.objects),
            "colours": ", ".join(knows.colours),
            "events": ", ".join(knows.events),
            "questions": "\n".join(knows.questions),
            "trained on": self.trained_on,
            "seed": "" if self.seed is None else str(self.seed),
            "training": "" if self.wall_time_s is None else _hours(self.wall_time_s),
            "licence": self.licence,
            "limits": "\n".join(self.limits),
            "measured on": self.measured_on,
        }
        lines = [f"{self.name}: {self.about}" if self.about else self.name, ""]
        for name, text in facts.items():
            first, *more = text.splitlines() or [""]
            if first:
                lines += [f"{name:<12}{first}", *(f"{'':<12}{line}" for line in more)]
        return "\n".join([*lines, *_table(self.results)])


def read_card(folder: str | Path) -> ModelCard | None:
    """Read the card beside a checkpoint; None where there is none.

    One of another version is worth a warning: the model answers without it.

    Raises:
        CheckpointError: it is not what it should be.
    """
    path = Path(folder) / CARD_FILE
    if not path.is_file():
        return None
    values = read_json_object(path)
    if _VERSION_KEY not in values:
        return None
    version = values.pop(_VERSION_KEY)
    if version != _VERSION:
        _log.warning(
            "%s is no card of version %d but of %r: what it says of the model is not known. "
            "Another llava_video reads it.",
            path,
            _VERSION,
            version,
        )
        return None
    try:
        return from_mapping(ModelCard, values)
    except ConfigError as cause:
        error = CheckpointError(f"{path} is no card: {cause.message}", f"mend it: {cause.hint}")
        error.names_fields = True
        raise error from cause


def write_card(
    folder: str | os.PathLike[str],
    facts: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any]],
) -> ModelCard:
    """Write the card of a checkpoint; one that is there is replaced.

    Args:
        folder: the checkpoint's.
        facts: the fields of `ModelCard` but `results`, as plain values.
        results: kind → n, accuracy, low, high and blind; other keys are left out.

    Returns:
        What `read_card` reads now.

    Raises:
        ConfigError: a fact that no card has, or a number that is no share.
        CheckpointError: the folder cannot be written to.
    """
    if "results" in facts:
        raise ConfigError("the facts hold results.", "give them as results=.")
    names = ("n", "accuracy", "low", "high", "blind")
    rows = [
        {"kind": kind} | {name: row[name] for name in names if name in row}
        for kind, row in results.items()
    ]
    card = from_mapping(ModelCard, {**facts, "results": rows})
    text = json.dumps({_VERSION_KEY: _VERSION, **to_mapping(card)}, indent=1, ensure_ascii=False)
    path = Path(folder) / CARD_FILE
    try:
        with replacing(path) as unfinished:
            unfinished.write_text(text + "\n", encoding="utf-8")
    except OSError as cause:
        raise CheckpointError(
            f"{path} cannot be written: {cause.strerror}.", "check the folder's permissions."
        ) from cause
    return card


def _hours(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def _table(results: tuple[Result, ...]) -> list[str]:
    if not results:
        return []
    rows = [("measured", "share", "95 % interval", "blind", "n")]
    for result in results:
        rows.append(
            (
                result.kind,
                f"{result.accuracy:.1%}",
                f"{result.low:.1%} to {result.high:.1%}",
                "" if result.blind is None else f"{result.blind:.1%}",
                f"{result.n:,}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return ["", *lines]
