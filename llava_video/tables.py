"""A table (JSON, JSON Lines, CSV, TSV or Parquet) → its rows, one by one.

A file that cannot be read is an error; a row that cannot be read is a row that says so when a field
of it is asked for, so that one bad line does not hide the others. Knows no field's meaning.
"""

import csv
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llava_video.backends import require
from llava_video.errors import ConfigError

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
# Of a missing value, as pandas and LongVideoBench write it.
_MISSING = ("", "nan", "N/A")
_BATCH_ROWS = 256


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        where: file and number, for messages.
        values: its fields.
        broken: why it has none; "" of a whole row.
    """

    where: str
    values: Mapping[str, Any] = field(default_factory=dict)
    broken: str = ""

    def has(self, *names: str) -> bool:
        """Say whether one of these fields is there and not empty."""
        return any(not is_missing(self.values.get(name)) for name in names)

    def value(self, *names: str) -> Any:
        """Return the first of these fields that is there and not empty.

        Raises:
            ConfigError: none is, or the row is broken.
        """
        if self.broken:
            raise ConfigError(f"{self.where}: {self.broken}", "mend the line, or leave it out.")
        for name in names:
            found = self.values.get(name)
            if not is_missing(found):
                return found
        raise ConfigError(
            f"{self.where} has no {' or '.join(map(repr, names))}.",
            f"it has {', '.join(map(str, self.values)) or 'nothing'}.",
        )

    def text(self, *names: str) -> str:
        """Return a field as text without blanks around it.

        Raises:
            ConfigError: it is missing, or no text or number.
        """
        found = self.value(*names)
        if isinstance(found, bool) or not isinstance(found, str | int | float):
            raise ConfigError(f"{self.where}: {names[0]} = {found!r} is no text.", "write text.")
        return str(found).strip()

    def whole(self, *names: str) -> int:
        """Return a field as a whole number.

        Raises:
            ConfigError: it is missing, or none.
        """
        number = self.number(*names)
        if number != int(number):
            raise ConfigError(f"{self.where}: {names[0]} = {number!r}.", "a whole number.")
        return int(number)

    def number(self, *names: str) -> float:
        """Return a field as a finite number.

        Raises:
            ConfigError: it is missing, or none.
        """
        found = self.value(*names)
        try:
            number = math.nan if isinstance(found, bool) else float(found)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ConfigError(f"{self.where}: {names[0]} = {found!r} is no number.", "a number.")
        return number

    def texts(self, *names: str) -> tuple[str, ...]:
        """Return a field that is a list of texts, each without blanks around it.

        Raises:
            ConfigError: it is missing, no list, or holds something else.
        """
        found = self.value(*names)
        is_list = isinstance(found, Sequence) and not isinstance(found, str | bytes)
        if not is_list or not all(isinstance(item, str) for item in found):
            raise ConfigError(f"{self.where}: {names[0]} = {found!r}.", "a list of texts.")
        return tuple(item.strip() for item in found)


def is_missing(value: Any) -> bool:
    """Say whether a field holds nothing, in any of the spellings of tables."""
    if isinstance(value, str):
        return value.strip() in _MISSING
    return value is None or (isinstance(value, float) and math.isnan(value))


def read_rows(path: Path, key: str = "") -> Iterator[Row]:
    """Read a table row by row.

    Args:
        path: the suffix says what it is.
        key: of a JSON file that is an object: where its list of rows stands.

    Raises:
        ConfigError: the file cannot be read, is of another kind, or holds no list of rows.
        BackendMissingError: a Parquet file without pyarrow.
    """
    readers: Mapping[str, Callable[[Path], Iterator[Row]]] = {
        ".json": lambda file: _json_rows(file, key),
        ".jsonl": _line_rows,
        ".csv": lambda file: _separated_rows(file, ","),
        ".tsv": lambda file: _separated_rows(file, "\t"),
        ".parquet": _parquet_rows,
    }
    if path.suffix not in readers:
        raise ConfigError(f"{path} is no table.", f"a file in {', '.join(SUFFIXES)}.")
    try:
        yield from readers[path.suffix](path)
    except (OSError, UnicodeError) as cause:
        reason = getattr(cause, "strerror", None) or str(cause)
        raise ConfigError(f"{path} cannot be read: {reason}.", "check the file.") from cause


def _json_rows(path: Path, key: str) -> Iterator[Row]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as cause:
        raise ConfigError(f"{path} is no JSON: {cause}.", "fetch the file again.") from cause
    if key and isinstance(values, Mapping):
        values = values.get(key)
    if not isinstance(values, list):
        named = f" with a list {key!r}" if key else ""
        raise ConfigError(f"{path} holds no list of rows.", f"a list, or an object{named}.")
    for number, value in enumerate(values, 1):
        yield _row(f"{path.name}, item {number}", value)


def _line_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            where = f"{path.name}, line {number}"
            if not line.strip():
                continue
            try:
                yield _row(where, json.loads(line))
            except ValueError as error:
                yield Row(where, broken=f"no JSON: {error}.")


def _separated_rows(path: Path, separator: str) -> Iterator[Row]:
    # MMBench keeps pictures in its cells; the limit is the whole process's, so it is put back.
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator)
            names = next(reader, [])
            for cells in reader:
                where = f"{path.name}, line {reader.line_num}"
                if len(cells) != len(names):
                    broken = f"{len(cells)} cells under a head of {len(names)}."
                    yield Row(where, broken=broken)
                else:
                    yield Row(where, dict(zip(names, cells, strict=True)))
    except csv.Error as cause:
        raise ConfigError(f"{path} is no table: {cause}.", "fetch the file again.") from cause
    finally:
        csv.field_size_limit(limit)


def _parquet_rows(path: Path) -> Iterator[Row]:
    arrow = require("pyarrow")
    import pyarrow.parquet  # a part of the package that `require` does not load

    try:
        batches = pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=_BATCH_ROWS)
        number = 0
        for batch in batches:
            for value in batch.to_pylist():
                number += 1
                yield Row(f"{path.name}, row {number}", value)
    except arrow.ArrowException as cause:
        raise ConfigError(f"{path} is no Parquet file: {cause}.", "fetch it again.") from cause


def _row(where: str, value: Any) -> Row:
    if isinstance(value, Mapping):
        return Row(where, value)
    return Row(where, broken=f"{str(value)[:40]!r} is no object.")
