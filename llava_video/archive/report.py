"""The rows of a run → one HTML file for people: what failed and why, how long, what was said.

The file needs nothing else: no script, no address, pictures inside; it opens without a network.
Rows are read once and not held.
"""

import base64
import html
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from llava_video.archive.report_page import (
    bars,
    document,
    facts_table,
    failures_table,
    shown_row,
)
from llava_video.archive.row import Row, plain_text
from llava_video.archive.run_rows import run_rows
from llava_video.archive.sheets import sheet_path
from llava_video.archive.warned import Warned
from llava_video.errors import ConfigError, SourceError
from llava_video.files import replacing

REPORT: Final = "report.html"
_MOST_NAMED: Final = 100  # failures of one class
_MOST_PICTURE_BYTES: Final = 32 * 2**20

# What is counted of rows that are done, title and unit.
_MEASURES: Final = {
    "length_s": ("Length of what was looked at", "s"),
    "visual_tokens": ("Visual tokens of an answer", "tokens"),
    "new_tokens": ("Length of an answer", "tokens"),
    "total_s": ("Time from request to answer, waiting included", "s"),
}


@dataclass(slots=True)
class Totals:
    """What was counted of rows.

    Attributes:
        statuses: status → rows.
        measures: name → a value per row or answer.
        failures: class → rows.
        named: class → the first rows of it.
        models: "name, revision" → rows.
        warned: the warnings of rows.
        first_at: the earliest end of a row; "" without any.
        last_at: the latest.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    measures: dict[str, "array[float]"] = field(
        default_factory=lambda: {name: array("d") for name in _MEASURES}
    )
    failures: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[Row]] = field(default_factory=dict)
    models: Counter[str] = field(default_factory=Counter)
    warned: Warned = field(default_factory=Warned)
    first_at: str = ""
    last_at: str = ""

    def add(self, row: Row) -> None:
        """Count a row."""
        self.statuses[row["status"]] += 1
        self.warned.add(row)
        ended_at = row["run"]["finished_at"]
        self.first_at = min(filter(None, (self.first_at, ended_at)), default="")
        self.last_at = max(self.last_at, ended_at)
        if row["error"] is not None:
            kind = row["error"]["kind"]
            self.failures[kind] += 1
            named = self.named.setdefault(kind, [])
            if len(named) < _MOST_NAMED:
                named.append(row)
        if row["answers"]:
            self._measure(row)

    def _measure(self, row: Row) -> None:
        answers, made_by = row["answers"], row["provenance"]
        self.models[", ".join(filter(None, (made_by["model"], made_by["revision"])))] += 1
        begin_s = min(answer["start_s"] for answer in answers)
        self.measures["length_s"].append(max(answer["end_s"] for answer in answers) - begin_s)
        for answer in answers:
            for name in ("visual_tokens", "new_tokens"):
                self.measures[name].append(answer["usage"][name])
        self.measures["total_s"].append(row["timings"].get("total", 0.0))


def write_report(folder: Path, *, most_rows: int = 200) -> Path:
    """Write `report.html` into a run folder; it appears whole or not at all.

    Args:
        folder: the run folder.
        most_rows: videos that are shown with their texts and frames, the first ones; failures are
            counted whole and named up to 100 a class.

    Returns:
        The file.

    Raises:
        ConfigError: there are no rows. LedgerError: they cannot be read.
        SourceError: it cannot be written.
    """
    totals = Totals()
    shown: list[str] = []
    budget = _MOST_PICTURE_BYTES
    for row in run_rows(folder):
        totals.add(row)
        if row["answers"] and len(shown) < most_rows:
            picture = _picture(folder, row, budget)
            budget -= len(picture)
            shown.append(shown_row(row, picture))
    if not totals.statuses:
        raise ConfigError(f"{folder} holds no rows.", "name the --out folder of an archive.")
    path = folder / REPORT
    try:
        with replacing(path) as unfinished:
            unfinished.write_text(_page(folder, totals, shown), encoding="utf-8")
    except OSError as cause:
        reason = cause.strerror or str(cause)
        hint = "check that the folder may be written and has room."
        raise SourceError(f"{path} cannot be written: {reason}.", hint) from cause
    return path


def _page(folder: Path, totals: Totals, shown: list[str]) -> str:
    name = html.escape(plain_text(folder.resolve().name))
    return document(f"Archive {name}", "\n".join(_sections(totals, shown)))


def _sections(totals: Totals, shown: list[str]) -> Iterator[str]:
    yield facts_table(_facts(totals))
    if totals.failures:
        yield "<h2>Failures by class</h2>"
        for kind, num_rows in totals.failures.most_common():
            yield failures_table(kind, num_rows, totals.named[kind])
    for name, (title, unit) in _MEASURES.items():
        if totals.measures[name]:
            yield bars(title, unit, totals.measures[name])
    if shown:
        num_done = totals.statuses["done"]
        which = f"{len(shown):,} of {num_done:,}" if len(shown) < num_done else f"{num_done:,}"
        yield f"<h2>Videos</h2><p>{which}, in the order of the inputs.</p>"
        yield from shown


def _facts(totals: Totals) -> Mapping[str, str]:
    hours = sum(totals.measures["length_s"]) / 3600
    facts: dict[str, Any] = {"inputs": f"{totals.statuses.total():,}"}
    facts |= {status: f"{number:,}" for status, number in sorted(totals.statuses.items())}
    facts["warnings"] = totals.warned.line
    facts["footage that was answered about"] = f"{hours:,.2f} hours"
    facts["tokens"] = (
        f"{sum(totals.measures['visual_tokens']):,.0f} visual, "
        f"{sum(totals.measures['new_tokens']):,.0f} written"
    )
    facts["rows ended"] = f"{totals.first_at} to {totals.last_at}"
    facts["models"] = "; ".join(f"{name} ({rows:,})" for name, rows in totals.models.most_common())
    return {name: value for name, value in facts.items() if value}


def _picture(folder: Path, row: Row, most_bytes: int) -> str:
    """Return the row's sheet as text of base 64; "" where there is none, or no room for it."""
    try:
        data = sheet_path(folder, row["key"]).read_bytes()
    except OSError:
        return ""
    text = base64.b64encode(data).decode()
    return text if len(text) <= most_bytes else ""
