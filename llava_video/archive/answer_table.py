"""Rows with answers to questions → a table: a line a video, a column a question. CSV.

A typed answer that is an object has a column for each of its fields. Knows no model.
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from llava_video.archive.row import plain_text
from llava_video.archive.run_rows import run_rows
from llava_video.errors import ConfigError, SourceError
from llava_video.files import replacing

TABLE: Final = "answers.csv"
_FACTS: Final = ("number", "address", "start_s", "end_s", "status")


def write_answer_table(folder: Path) -> Path:
    """Write `answers.csv` into a run folder; it appears whole or not at all.

    A row without answers has its status alone; questions that an input was not asked are empty.
    Rows are read twice, for the columns and for the lines, and not held.

    Args:
        folder: the run folder.

    Returns:
        The file, UTF-8.

    Raises:
        ConfigError: no row answers a question. LedgerError: rows cannot be read.
        SourceError: it cannot be written.
    """
    asked: dict[str, None] = {}
    for row in run_rows(folder):
        asked |= dict.fromkeys(_cells(row))
    if not asked:
        raise ConfigError(f"{folder} holds no answers.", "name the --out folder of an archive.")
    path = folder / TABLE
    try:
        with (
            replacing(path) as unfinished,
            unfinished.open("x", encoding="utf-8", newline="") as file,
        ):
            table = csv.writer(file)
            table.writerow([*_FACTS, *map(plain_text, asked)])
            for row in run_rows(folder):
                cells = _cells(row)
                if not cells.keys() <= asked.keys():
                    continue  # it ended meanwhile, and has columns of its own
                table.writerow([*_facts(row), *(cells.get(name, "") for name in asked)])
    except OSError as cause:
        reason = cause.strerror or str(cause)
        hint = "check that the folder may be written and has room."
        raise SourceError(f"{path} cannot be written: {reason}.", hint) from cause
    return path


def _facts(row: Mapping[str, Any]) -> list[Any]:
    video = row["video"]
    return [
        row["number"],
        plain_text(video["address"]),
        video["start_s"],
        video["end_s"],
        row["status"],
    ]


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    """Return column → what stands there, of a row of answers."""
    found: dict[str, str] = {}
    if row["asked"]["task"] == "timeline":
        return found
    for answer in row["answers"]:
        question = answer["prompt"] or "caption"
        if isinstance(answer["parsed"], Mapping):
            for name, value in answer["parsed"].items():
                found[f"{question} {name}"] = _cell(value)
        else:
            typed = answer["parsed"]
            found[question] = plain_text(answer["text"]) if typed is None else _cell(typed)
    return found


def _cell(value: Any) -> str:
    """Return a typed value: text as it is, all else as JSON."""
    return plain_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
