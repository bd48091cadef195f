"""A row and a model → the same again, or where it differs.

Differences come causes first: the file, the model, versions, then prompt and plan, then frames,
then what was said. Knows no ledger.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llava_video.api import LlavaVideo
from llava_video.archive.answering import answer_item
from llava_video.archive.content import content_hash
from llava_video.archive.row import (
    Asked,
    Maker,
    Row,
    checked_row,
    error_row,
    make_row,
    read_row,
    to_line,
)
from llava_video.archive.run_rows import one_run, run_rows
from llava_video.archive.unit import Item, Unit, UnitError
from llava_video.config import from_mapping
from llava_video.errors import ConfigError, LlavaVideoError
from llava_video.options import settings_of

# Where a file stands and how long things took says nothing of what was answered.
_LEFT_OUT: Final = ("timings", "run", "key", "number", "duplicate_of", "schema")
# Causes before what they cause, by the beginning of a field's name; all else behind.
_ORDER: Final = (
    "video.sha256",
    "provenance.model",
    "provenance.revision",
    "provenance",
    "status",
    "error",
    "asked",
    "prompt",
    "plan.prompt",
    "plan",
    "start_s",
    "end_s",
    "frame_idxs",
    "times_s",
)
_MISSING: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field that is not what it was.

    Attributes:
        field: its name, "answers[0].text".
        was: its value in the row; None where it was not there.
        now: its value now; None where it is not there.
    """

    field: str
    was: Any
    now: Any

    def __str__(self) -> str:
        """One line, long values cut."""
        return f"{self.field}: {_short(self.was)} -> {_short(self.now)}"


def replay(
    row: Mapping[str, Any],
    model: LlavaVideo,
    *,
    address: str | None = None,
    allow_private: bool = False,
) -> list[Difference]:
    """Ask a model again what a row says it was asked.

    Args:
        row: of any status but "duplicate".
        model: answers; loaded as for the run.
        address: where the video is now; None where it was.
        allow_private: whether an address of the own network may be asked for it.

    Returns:
        What differs; [] when everything is the same, text, frames, plan and versions.

    Raises:
        ConfigError: it is no row, or one that holds no work of its own.
    """
    row = checked_row(row, "the row")
    if row["status"] == "duplicate":
        raise ConfigError(
            "this row holds no work of its own.", f"replay row {row['duplicate_of']}."
        )
    again = _again(row, model, address, {"allow_private": allow_private})
    found = _differences(_compared(row), _compared(again), "")
    return sorted(found, key=lambda one: _rank(one.field))


def find_row(folder: Path, wanted: str) -> Row:
    """Return a row of a run folder by its number, its key or the beginning of it, or its video.

    Args:
        folder: the run folder.
        wanted: "17", eight digits of a key or more, an address or a name.

    Raises:
        ConfigError: no row is meant, or several are, or the folder holds several runs.
    """
    found: list[Row] = []
    for row in run_rows(one_run(folder)):
        if str(row["number"]) == wanted:
            return row
        video = row["video"]
        is_key = len(wanted) >= 8 and row["key"].startswith(wanted)
        if is_key or wanted in (video["address"], video["name"]):
            found.append(row)
    if len(found) != 1:
        numbers = ", ".join(str(row["number"]) for row in found[:10])
        raise ConfigError(
            f"{len(found) or 'no'} rows of {folder} are {wanted!r}.",
            f"give one by number: {numbers}." if found else "give a number, a key or an address.",
        )
    return found[0]


def _again(row: Row, model: LlavaVideo, address: str | None, reading: Mapping[str, Any]) -> Row:
    video, facts = row["video"], row["asked"]
    item = Item(
        number=row["number"],
        address=video["address"] if address is None else address,
        prompts=tuple(facts["prompts"]),
        start_s=video["start_s"],
        end_s=video["end_s"],
        name=video["name"],
    )
    asked = from_mapping(Asked, facts)
    # The hash of a folder's weights has their dates in it, which a copy has others of.
    weights, server = row["provenance"]["weights"], model.spec.server
    told = server.to_mapping() if server else None
    maker = Maker(model=model.spec.name, revision=weights, server=told)
    unit = Unit(key=row["key"], number=row["number"], item=item, content_hash=video["sha256"])
    try:
        if video["sha256"]:
            found = content_hash(
                item.address, fetch_settings=settings_of({**asked.options, **reading}).fetch
            )
            unit = Unit(key=row["key"], number=row["number"], item=item, content_hash=found)
        return make_row(unit, answer_item(model, item, asked, reading), asked, maker)
    except LlavaVideoError as error:
        return error_row(unit, UnitError.of(error), asked, maker)


def _compared(row: Row) -> Row:
    """Return what a replay compares: all but where the file stands, who worked and how long."""
    row = read_row(to_line(row))  # both as they read back: a tuple is a list there
    kept = {name: value for name, value in row.items() if name not in _LEFT_OUT}
    kept["video"] = {"sha256": row["video"]["sha256"]}
    kept["answers"] = [
        answer | {"plan": _without_place(answer["plan"])} for answer in row["answers"]
    ]
    if row["status"] == "quarantined":  # that it fails is the same; how often it did is not asked
        kept["status"] = "failed"
    return kept


def _without_place(plan: Mapping[str, Any]) -> Row:
    visuals = [{**visual, "source": ""} for visual in plan["visuals"]]
    return {**plan, "visuals": visuals}


def _differences(was: Any, now: Any, name: str) -> Iterator[Difference]:
    """Yield where two plain values differ, as deep as they are both of a kind."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys((*was, *now)):
            inner = f"{name}.{key}" if name else str(key)
            yield from _differences(was.get(key, _MISSING), now.get(key, _MISSING), inner)
    elif _are_objects(was) and _are_objects(now) and len(was) == len(now):
        for idx, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from _differences(one, other, f"{name}[{idx}]")
    elif type(was) is not type(now) or was != now:
        gone = [None if value is _MISSING else value for value in (was, now)]
        yield Difference(field=name, was=gone[0], now=gone[1])


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _rank(field: str) -> int:
    """Return the place of a field among causes and effects."""
    inner = field.split("].", 1)[1] if field.startswith("answers[") else field
    places = (place for place, start in enumerate(_ORDER) if inner.startswith(start))
    return next(places, len(_ORDER))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:57]} … {text[-57:]}"
