"""A CSV file of what really happened → labels, for rehearsals.

Columns `start`, `end` and `rule`, perhaps `camera`; times as seconds, MM:SS or HH:MM:SS.mmm from
the recording's first frame. Everything that is wrong is told at once, with its line.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llava_video.errors import ConfigError, LlavaVideoError
from llava_video.video.span import parse_time

_NEEDED = ("start", "end", "rule")
_COLUMNS = (*_NEEDED, "camera")
_MOST_TOLD = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One thing that happened.

    Attributes:
        start_s: when it began, s.
        end_s: when it was over, s; not before it began.
        rule: the rule that is to tell of it.
        camera: which saw it; "" for any.
    """

    start_s: float
    end_s: float
    rule: str
    camera: str = ""


def read_labels(
    path: str | Path, rules: Iterable[str] = (), cameras: Iterable[str] = ()
) -> list[Label]:
    """Read labels in order of time.

    Args:
        path: the file, UTF-8, its first line the names of the columns.
        rules: names that are known; none for any.
        cameras: names that are known; none for any.

    Raises:
        ConfigError: the file cannot be read, or lines are wrong.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            rows = list(reader)
    except (OSError, UnicodeError, csv.Error) as cause:
        raise ConfigError(f"{path} cannot be read: {cause}.", "a CSV file in UTF-8.") from cause
    _check_columns(path, columns)
    labels, problems = [], []
    known = frozenset(rules), frozenset(cameras)
    for line, row in enumerate(rows, 2):
        try:
            labels.append(_label(row, *known))
        except (LlavaVideoError, ValueError) as error:
            problems.append(f"line {line}: {getattr(error, 'message', error)}")
    if problems:
        more = f" … and {len(problems) - _MOST_TOLD} more" if len(problems) > _MOST_TOLD else ""
        raise ConfigError(
            f"{path}: {' '.join(problems[:_MOST_TOLD])}{more}", f"columns: {', '.join(_COLUMNS)}."
        )
    return sorted(labels, key=lambda label: (label.start_s, label.end_s, label.rule, label.camera))


def _check_columns(path: str | Path, columns: list[str]) -> None:
    missing = [name for name in _NEEDED if name not in columns]
    unknown = [name for name in columns if name not in _COLUMNS]
    if missing or unknown:
        raise ConfigError(
            f"{path} has the columns {', '.join(columns) or 'none'}.",
            f"needed: {', '.join(_NEEDED)}; may be: camera.",
        )


def _label(row: dict[str, str | None], rules: frozenset[str], cameras: frozenset[str]) -> Label:
    if None in row:
        raise ValueError("more values than columns.")
    plain = {name.strip(): (value or "").strip() for name, value in row.items()}
    start_s, end_s = parse_time(plain["start"]), parse_time(plain["end"])
    if not 0 <= start_s <= end_s:
        raise ValueError(f"start = {start_s:g} s, end = {end_s:g} s; the end is not before it.")
    rule, camera = plain["rule"], plain.get("camera", "")
    if not rule or (rules and rule not in rules):
        raise ValueError(f"{rule!r} is no rule of the rules file.")
    if camera and cameras and camera not in cameras:
        raise ValueError(f"{camera!r} is no camera of the rules file.")
    return Label(start_s=start_s, end_s=end_s, rule=rule, camera=camera)
