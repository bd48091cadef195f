"""A list of videos (text, CSV, TSV, JSON, JSON Lines, Parquet) → its entries, and what is wrong.

Addresses are relative to the list's own folder. Reads no video.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava_video.errors import BackendMissingError, ConfigError
from llava_video.tables import SUFFIXES as TABLE_SUFFIXES
from llava_video.tables import Row, is_missing, read_rows
from llava_video.video.span import parse_time

SUFFIXES = (".txt", *TABLE_SUFFIXES)
# What a column may be called, the usual name first.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "video": ("video", "path", "address", "url", "file"),
    "prompt": ("prompt", "prompts", "question"),
    "start": ("start", "start_s"),
    "end": ("end", "end_s"),
    "name": ("name", "id"),
}
# {title} stands for the row's title, {{title}} for itself; other braces are text.
_FIELD = re.compile(r"\{(\{\w+\})\}|\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one place of the inputs says.

    Attributes:
        where: list and line, or the address itself, for messages.
        address: path or URL.
        prompts: of its own; () for none.
        start_s: first moment, s, or None.
        end_s: end of the span, exclusive, s, or None.
        name: for people, or "".
    """

    where: str
    address: str
    prompts: tuple[str, ...] = ()
    start_s: float | None = None
    end_s: float | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a place of the inputs says nothing.

    Attributes:
        text: where and what, one sentence.
        hint: what to do.
    """

    text: str
    hint: str = ""


def read_manifest(
    path: Path, columns: Mapping[str, str] | None = None, prompts: tuple[str, ...] = ()
) -> Iterator[Entry | Problem]:
    """Read a list of videos, one line after another.

    Args:
        path: the suffix says what it is.
        columns: "video", "prompt", "start", "end", "name" → what that column is called here; None,
            or one left out, for the usual names.
        prompts: the task's, for lines without their own, where they have fields such as {title},
            which stand for the line's own columns.
    """
    try:
        if path.suffix.lower() == ".txt":
            yield from _text_entries(path, prompts)
        else:
            yield from _table_entries(path, columns or {}, prompts)
    except (ConfigError, BackendMissingError) as error:
        yield Problem(error.message, error.hint)


def own_prompts(
    own: tuple[str, ...], prompts: tuple[str, ...], values: Mapping[str, Any], where: str
) -> tuple[str, ...]:
    """Return an entry's prompts with its own words in them; () where the task's stay as they are.

    Args:
        own: as written for this entry; () for none.
        prompts: the task's.
        values: field → its word.
        where: the entry, for messages.

    Raises:
        ConfigError: a prompt asks for a field that the entry has not.
    """

    def word(found: re.Match[str]) -> str:
        kept, name = found.groups()
        if kept:
            return str(kept)
        if is_missing(values.get(name)):
            raise ConfigError(
                f"{where}: the prompt asks for {{{name}}}, of which nothing is said here.",
                f"fill that column of a list, or write {{{{{name}}}}} for the word in braces.",
            )
        return str(values[name]).strip()

    filled = tuple(_FIELD.sub(word, prompt) for prompt in own or prompts)
    return () if not own and filled == prompts else filled


def _text_entries(path: Path, prompts: tuple[str, ...]) -> Iterator[Entry | Problem]:
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, line in enumerate(file, 1):
                address, where = line.strip(), f"{path.name}, line {number}"
                if address and not address.startswith("#"):
                    own = own_prompts((), prompts, {}, where)
                    yield Entry(where=where, address=_placed(path, address), prompts=own)
    except OSError as cause:
        yield Problem(f"{path} cannot be read: {cause.strerror}.", "check the file.")


def _table_entries(
    path: Path, columns: Mapping[str, str], prompts: tuple[str, ...]
) -> Iterator[Entry | Problem]:
    names = {word: (columns[word],) if word in columns else COLUMNS[word] for word in COLUMNS}
    has_rows = False
    for row in read_rows(path):
        if not has_rows and not row.broken:
            missing = [word for word in ("video", *columns) if not _has_column(row, names[word])]
            if missing:
                word = missing[0]
                said = " or ".join(map(repr, names[word]))
                found = ", ".join(map(repr, row.values)) or "nothing"
                yield Problem(
                    f"{path} has no column {said}; it has {found}.",
                    f"name the column of the {word}: columns={{{word!r}: …}}.",
                )
                return
        has_rows = True
        try:
            yield _entry(path, row, names, prompts)
        except ConfigError as error:
            at = "" if error.message.startswith(row.where) else f"{row.where}: "
            yield Problem(at + error.message, error.hint)
    if not has_rows:
        yield Problem(f"{path} has no rows.", "check the file.")


def _has_column(row: Row, names: tuple[str, ...]) -> bool:
    return any(name in row.values for name in names)


def _entry(
    path: Path, row: Row, names: Mapping[str, tuple[str, ...]], prompts: tuple[str, ...]
) -> Entry:
    start_s, end_s = (_time(row, names[word]) for word in ("start", "end"))
    if start_s is not None and end_s is not None and end_s <= start_s:
        raise ConfigError(f"it ends at {end_s:g} s, not after {start_s:g} s.", "end after start.")
    own = _prompts(row, names["prompt"])
    return Entry(
        where=row.where,
        address=_placed(path, row.text(*names["video"])),
        prompts=own_prompts(own, prompts, row.values, row.where),
        start_s=start_s,
        end_s=end_s,
        name=row.text(*names["name"]) if row.has(*names["name"]) else "",
    )


def _prompts(row: Row, names: tuple[str, ...]) -> tuple[str, ...]:
    if row.broken or not row.has(*names):
        return ()
    value = row.value(*names)
    if isinstance(value, list):
        texts = row.texts(*names)
        if not texts or not all(texts):
            raise ConfigError(f"{row.where}: an empty prompt.", "write it, or leave it out.")
        return texts
    return (row.text(*names),)


def _time(row: Row, names: tuple[str, ...]) -> float | None:
    value: Any = row.value(*names) if not row.broken and row.has(*names) else None
    return None if is_missing(value) else parse_time(value)


def _placed(manifest: Path, address: str) -> str:
    if "://" in address or address[:5].lower() == "data:" or manifest.parent == Path():
        return address
    return os.path.join(manifest.parent, address)  # noqa: PTH118 - keeps "./" and what is absolute
