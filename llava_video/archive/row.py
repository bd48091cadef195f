"""The end of a unit of work → one row, a mapping of plain values; and rows as lines of JSON.

A row's `timings` and `run` say when and where it was made; all else depends on the input, the task
and the model alone, so that a run that was stopped ends with the same rows. The fields stand in
`row_schema.py`.
"""

import json
import re
import socket
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, Literal

from llava_video.archive.row_schema import ROW, SCHEMA_VERSION
from llava_video.archive.unit import Item, Unit, UnitError
from llava_video.config import to_mapping
from llava_video.errors import ConfigError
from llava_video.timeline import Timeline
from llava_video.values import Description, Segment
from llava_video.video.span import parse_time

Row = dict[str, Any]
TaskName = Literal["caption", "ask", "timeline"]

# What differs between two runs of the same thing.
_OF_THE_RUN = ("timings", "run")
_NAMES = tuple(inner.name for inner in ROW.fields)
_HINT = "name a line of a run's rows/*.jsonl, whole and as it was written."
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of a video: all that is needed to ask it again.

    Attributes:
        task: "caption", "ask" or "timeline".
        prompts: of inputs without their own: one per answer of "caption" and "ask", one of
            "timeline"; () for the model's own request.
        options: of every answer, as `LlavaVideo.describe` takes them; values JSON can hold.
        window_s: of a timeline, s.
        overlap_s: what neighbouring windows share, s.
        has_summary: whether a timeline's captions are merged.
    """

    task: TaskName
    prompts: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    window_s: float | None = None
    overlap_s: float | None = None
    has_summary: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """Who makes a row, and at which attempt.

    Attributes:
        worker: its name within the run.
        attempts: this one included.
        model: the checkpoint's name, of rows without an answer.
        revision: hash of the model's weights, as the run's keys have it; None where nobody knows.
        server: what a server says of itself that answers; None of a model run here.
    """

    worker: str = ""
    attempts: int = 1
    model: str = ""
    revision: str | None = None
    server: Mapping[str, Any] | None = None


def make_row(
    unit: Unit,
    results: Sequence[Description] | Timeline,
    asked: Asked,
    maker: Maker | None = None,
) -> Row:
    """Put what became of a unit into a row of status "done".

    Args:
        unit: the unit.
        results: one answer per prompt, or the timeline.
        asked: what was asked.
        maker: who made it; None where nobody needs to know.

    Raises:
        ConfigError: the number of answers is not that of prompts, or there is none.
    """
    maker = maker or Maker()
    prompts = unit.item.prompts or asked.prompts or ("",)
    if isinstance(results, Timeline):
        told = [(prompts[0], caption.segment, caption.description) for caption in results.captions]
        summary, warnings = results.summary, list(results.warnings)
    else:
        if len(prompts) != len(results):
            raise ConfigError(f"{len(results)} answers to {len(prompts)} prompts.", "one each.")
        told = [
            (prompt, _span(unit.item, asked, answer), answer)
            for prompt, answer in zip(prompts, results, strict=True)
        ]
        summary, warnings = "", []
    if not told:
        raise ConfigError("a row without an answer is no row that is done.", "make an error row.")
    descriptions = [answer for _, _, answer in told]
    return _base(unit, asked, maker) | {
        "status": "done",
        "answers": [_answer(*one) for one in told],
        "summary": summary,
        "warnings": warnings,
        "provenance": _provenance(descriptions[0], maker),
        "timings": _sums([answer.timings for answer in descriptions]),
        "run": _run(maker, sum(answer.usage.reused_tokens for answer in descriptions)),
    }


def error_row(
    unit: Unit,
    error: UnitError,
    asked: Asked,
    maker: Maker | None = None,
    *,
    quarantined: bool = False,
) -> Row:
    """Put the error that ended a unit into a row of status "failed" or "quarantined"."""
    return _base(unit, asked, maker or Maker()) | {
        "status": "quarantined" if quarantined else "failed",
        "error": {
            "kind": error.kind,
            "message": error.message,
            "hint": error.hint,
            "position_s": error.position_s,
        },
    }


def duplicate_row(unit: Unit, of_number: int, asked: Asked, maker: Maker | None = None) -> Row:
    """Make the row of an input whose work another row holds already.

    Args:
        unit: the later one.
        of_number: the number of the earlier one.
        asked: what was asked.
        maker: as `make_row`.
    """
    values = {"status": "duplicate", "duplicate_of": of_number}
    return _base(unit, asked, maker or Maker()) | values


def to_line(row: Mapping[str, Any]) -> bytes:
    """Return a row as one line of JSON, UTF-8, its line break included.

    Half a character of a file name that is no UTF-8 is escaped, so that the line is.
    """
    text = json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode() + b"\n"


def read_row(line: str | bytes, where: str = "this line") -> Row:
    """Read a line of `to_line`.

    Args:
        line: JSON.
        where: what to call it in an error.

    Raises:
        ConfigError: no JSON, no row, or a row of another version.
    """
    try:
        row = json.loads(line)
    except ValueError as cause:
        raise ConfigError(f"{where} is no row: {cause}.", _HINT) from cause
    return checked_row(row, where)


def checked_row(row: Any, where: str) -> Row:
    """Return a row as it is, if it is one of this version.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(row, dict) or "schema" not in row:
        raise ConfigError(f"{where} is no row: it names no schema.", _HINT)
    if row["schema"] != SCHEMA_VERSION:
        raise ConfigError(
            f"{where} is a row of schema {row['schema']!r}, this library reads {SCHEMA_VERSION}.",
            "read it with the version that wrote it (its provenance names it).",
        )
    missing = [name for name in _NAMES if name not in row]
    if missing:
        raise ConfigError(f"{where} is no whole row: it lacks {', '.join(missing)}.", _HINT)
    return row


def plain_text(text: str) -> str:
    """Return a text that is UTF-8: half a character of a file name is shown escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def content_of(row: Mapping[str, Any]) -> Row:
    """Return a row without what two runs of the same thing differ in: its times and machines."""
    return {name: value for name, value in row.items() if name not in _OF_THE_RUN}


def _base(unit: Unit, asked: Asked, maker: Maker) -> Row:
    """Return a row with all fields, in the order of the schema, and no answer."""
    item = unit.item
    return {
        "schema": SCHEMA_VERSION,
        "number": unit.number,
        "key": unit.key,
        "status": "",
        "video": {
            "address": item.address,
            "name": item.name or _name_of(item.address),
            "sha256": unit.content_hash,
            "start_s": item.start_s,
            "end_s": item.end_s,
        },
        "asked": to_mapping(asked) | {"prompts": list(item.prompts or asked.prompts)},
        "answers": [],
        "summary": "",
        "warnings": [],
        "error": None,
        "duplicate_of": None,
        "provenance": {
            "model": maker.model,
            "revision": None,
            "weights": maker.revision or "",
            "seed": int(asked.options.get("seed", 0)),
            "reader": "",
            "reader_reason": "",
            "versions": {},
            "server": dict(maker.server) if maker.server else None,
        },
        "timings": {},
        "run": _run(maker, 0),
    }


def _name_of(address: str) -> str:
    """Return the file's name, of a URL without its query; the address where it has none."""
    path = (
        urllib.parse.unquote(urllib.parse.urlsplit(address).path) if "://" in address else address
    )
    return PurePath(path).name or address


def _answer(prompt: str, span: Segment, answer: Description) -> Row:
    usage = to_mapping(answer.usage)
    del usage["reused_tokens"]  # what the cache held says how a run went, not what was answered
    return {
        "prompt": prompt,
        **to_mapping(span),
        "text": answer.text,
        "parsed": answer.parsed,
        "confidence": answer.confidence,
        "finish_reason": answer.finish_reason,
        "frame_idxs": [int(frame.frame_idx) for frame in answer.frames],
        "times_s": [float(frame.pts_s) for frame in answer.frames],
        "plan": to_mapping(answer.plan),
        "usage": usage,
        "coverage": [to_mapping(segment) for segment in answer.coverage],
        "warnings": list(answer.warnings),
    }


def _span(item: Item, asked: Asked, answer: Description) -> Segment:
    """Return what an answer is about: from the asked beginning to where the plan's span ends."""
    visuals = answer.plan.visuals
    begin = asked.options.get("start") if item.start_s is None else item.start_s
    start_s = 0.0 if begin is None else parse_time(begin)
    end_s = visuals[0].end_s if visuals else None
    return Segment(start_s, start_s if end_s is None else float(end_s))


def _provenance(answer: Description, maker: Maker) -> Row:
    facts = dict(answer.provenance)
    videos = facts.pop("videos", None) or [{}]
    names = ("model", "revision", "seed", "server")
    model, revision, seed, server = (facts.pop(name, None) for name in names)
    return {
        "model": model or "",
        "revision": revision,
        "weights": maker.revision or "",
        "seed": seed or 0,
        "reader": videos[0].get("reader", ""),
        "reader_reason": videos[0].get("reason", ""),
        "versions": facts,
        "server": server,
    }


def _sums(timings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for one in timings:
        for stage, seconds in one.items():
            sums[stage] = sums.get(stage, 0.0) + seconds
    return sums


def _run(maker: Maker, reused_tokens: int) -> Row:
    return {
        "finished_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "host": socket.gethostname(),
        "worker": maker.worker,
        "attempts": maker.attempts,
        "reused_tokens": reused_tokens,
    }
