"""Rows of a run → an index of what they say → the spans that words are found in.

SQLite's FTS5 in one file, `search.sqlite`, made from the rows alone and at any time. A query is
words and "phrases", all of which must be there, in any inflection; `word*` begins a word. Nothing
else in it has a meaning, so any text is harmless. Knows no model and no video.
"""

import contextlib
import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from llava_video.archive.row import plain_text
from llava_video.archive.run_rows import run_folders, run_rows, state_of_rows
from llava_video.archive.sheets import frame_near, sheet_path
from llava_video.errors import ConfigError, SourceError
from llava_video.files import replacing

INDEX: Final = "search.sqlite"
_VERSION: Final = 2
_TOKENS: Final = "unicode61 remove_diacritics 2"
# The same text twice: as it stands, and by the stems of its words, so that "truck reversing" finds
# "trucks reverse". Stems would spoil the beginnings of words, and whoever quotes means the words.
_TABLES: Final = {"exact": _TOKENS, "stems": f"porter {_TOKENS}"}
_MADE: Final = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID",
    "CREATE TABLE entries (id INTEGER PRIMARY KEY, number INTEGER, key TEXT, name TEXT,"
    " address TEXT, kind TEXT, prompt TEXT, start_s REAL, end_s REAL, text TEXT)",
    *(
        f"CREATE VIRTUAL TABLE {table} USING fts5"
        f"(text, content='entries', content_rowid='id', tokenize='{tokens}')"
        for table, tokens in _TABLES.items()
    ),
)
# A quoted phrase, which may lack its last quote, or a run of anything but blanks and quotes.
_PART: Final = re.compile(r'"([^"]*)"?|([^\s"]+)')
_WORD: Final = re.compile(r"\w+")
_KINDS: Final = {"caption": "caption", "ask": "answer", "timeline": "caption"}
_MARKS: Final = ("\x02", "\x03")  # around what was found; no text of an index holds them
_SNIPPET_WORDS: Final = 24

Entry = tuple[int, str, str, str, str, str, float, float, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One place where all words of a query stand.

    Attributes:
        number: the row's place in the inputs.
        key: the row's key.
        name: the video's name.
        address: its path or URL.
        kind: "caption", "answer" or "summary".
        prompt: what was asked; "" for the model's own request.
        start_s: where the span begins, s.
        end_s: where it ends, s.
        snippet: the words around the first place, "…" where it is cut.
        marked: (start, end) positions in the snippet of what was found.
        text: the whole text.
        sheet: picture of the frames that were seen of the video; None where there is none.
        frame: picture of the frame nearest to the middle of the span; None where there is none.
    """

    number: int
    key: str
    name: str
    address: str
    kind: str
    prompt: str
    start_s: float
    end_s: float
    snippet: str
    marked: tuple[tuple[int, int], ...]
    text: str
    sheet: str | None = None
    frame: str | None = None


def build(folder: Path) -> int:
    """Make the index of a run folder anew; it appears whole or not at all.

    Args:
        folder: the run folder.

    Returns:
        Texts in the index.

    Raises:
        ConfigError, LedgerError: rows cannot be read. SourceError: the index cannot be written.
    """
    try:
        return _build(folder)
    except (sqlite3.OperationalError, OSError) as cause:
        raise SourceError(
            f"{folder / INDEX} cannot be written: {cause}.",
            "search needs an index: check that the folder may be written and has room.",
        ) from cause


def _build(folder: Path) -> int:
    stamp = state_of_rows(folder)  # before the rows: what ends meanwhile makes the index old
    with (
        replacing(folder / INDEX) as unfinished,
        contextlib.closing(sqlite3.connect(unfinished, isolation_level=None)) as index,
    ):
        # Whole or not at all is the rename's work.
        index.execute("PRAGMA journal_mode = OFF")
        index.execute("BEGIN")
        for statement in _MADE:
            index.execute(statement)
        marks = ", ".join("?" * 9)
        index.executemany(
            "INSERT INTO entries (number, key, name, address, kind, prompt, start_s, end_s, text)"
            f" VALUES ({marks})",
            _entries(run_rows(folder)),
        )
        for table in _TABLES:
            index.execute(f"INSERT INTO {table} ({table}) VALUES ('rebuild')")
            index.execute(f"INSERT INTO {table} ({table}) VALUES ('optimize')")
        facts = {"version": str(_VERSION), "rows": stamp}
        index.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
        index.execute("COMMIT")
        return int(index.execute("SELECT count(*) FROM entries").fetchone()[0])


def is_fresh(folder: Path) -> bool:
    """Say whether there is an index of all rows as they are now, that this version made."""
    path = folder / INDEX
    if not path.is_file():
        return False
    try:
        with _opened(path) as index:
            facts = dict(index.execute("SELECT name, value FROM facts"))
    except sqlite3.DatabaseError:
        return False
    return facts == {"version": str(_VERSION), "rows": state_of_rows(folder)}


def search(folder: Path, query: str, *, limit: int = 20) -> list[Hit]:
    """Find where all words of a query stand in one text, the best first.

    An index that is missing, damaged or older than the rows is made anew first.

    Args:
        folder: the run folder, or one of shards.
        query: words, "phrases" and beginnings* of words.
        limit: most hits; >= 1.

    Raises:
        ConfigError: the query holds no word, the limit no hit, or the folder no rows.
    """
    table, match = _parsed(query)
    if limit < 1:
        raise ConfigError(f"limit = {limit}.", "at least 1.")
    runs = [one for one in run_folders(folder) if next(run_rows(one), None) is not None]
    if not runs:
        raise ConfigError(f"{folder} holds no rows.", "name the --out folder of an archive.")
    found = [hit for one in runs for hit in _found(one, table, match, limit)]
    # Runs of one list hold every Nth of its entries each, so that their scores compare.
    return [hit for _, hit in sorted(found, key=lambda pair: pair[0])[:limit]]


def _found(folder: Path, table: str, match: str, limit: int) -> Iterator[tuple[float, Hit]]:
    """Yield the best hits of one run with their scores, the lowest first."""
    if not is_fresh(folder):
        build(folder)
    with _opened(folder / INDEX) as index:
        found = index.execute(
            f"SELECT round(bm25({table}), 9) AS score,"
            " number, key, name, address, kind, prompt, start_s, end_s,"
            f" snippet({table}, 0, ?, ?, '…', ?), entries.text"
            f" FROM {table} JOIN entries ON entries.id = {table}.rowid"
            f" WHERE {table} MATCH ? ORDER BY score, entries.id LIMIT ?",
            (*_MARKS, _SNIPPET_WORDS, match, limit),
        ).fetchall()
    for score, *values in found:
        yield score, _shown(folder, _hit(*values))


def _parsed(query: str) -> tuple[str, str]:
    """Turn what somebody typed into a table and an expression of FTS5 without syntax of theirs.

    Raises:
        ConfigError: there is no word in it.
    """
    terms: list[str] = []
    is_exact = False
    # Composed: an accent of its own would end a word here, and does not in the index.
    text = unicodedata.normalize("NFC", plain_text(query).replace("\x00", " "))
    for quoted, bare in _PART.findall(text):
        words = " ".join(_WORD.findall(quoted or bare)).replace("_", " ").strip()
        if not words:
            continue
        begins = bare.endswith("*")
        is_exact = is_exact or bool(quoted) or begins
        terms.append(f'"{words}"' + ("*" if begins else ""))
    if not terms:
        raise ConfigError(f"the query {query!r} holds no word.", 'for example: red "fire truck"')
    return ("exact" if is_exact else "stems"), " AND ".join(terms)


def _entries(rows: Iterable[Mapping[str, Any]]) -> Iterator[Entry]:
    """Yield everything that rows say, in their order."""
    for row in rows:
        video = row["video"]
        facts = (row["number"], row["key"], plain_text(video["name"]), plain_text(video["address"]))
        kind = _KINDS.get(row["asked"]["task"], "caption")
        for told in row["answers"]:
            span = (told["start_s"], told["end_s"])
            yield *facts, kind, plain_text(told["prompt"]), *span, _clean(told["text"])
        if row["summary"]:
            start_s = min(told["start_s"] for told in row["answers"])
            end_s = max(told["end_s"] for told in row["answers"])
            yield *facts, "summary", "", start_s, end_s, _clean(row["summary"])


def _clean(text: str) -> str:
    return plain_text(text).translate(dict.fromkeys((0, *map(ord, _MARKS)), " "))


def _hit(*values: Any) -> Hit:
    *facts, marked, text = values
    number, key, name, address, kind, prompt, start_s, end_s = facts
    opening, closing = _MARKS
    snippet, spans = "", list[tuple[int, int]]()
    for piece in marked.split(opening):
        found, is_closed, rest = piece.partition(closing)
        if is_closed:
            spans.append((len(snippet), len(snippet) + len(found)))
        snippet += found + rest
    return Hit(
        number=number,
        key=key,
        name=name,
        address=address,
        kind=kind,
        prompt=prompt,
        start_s=start_s,
        end_s=end_s,
        snippet=snippet,
        marked=tuple(spans),
        text=text,
    )


def _shown(folder: Path, hit: Hit) -> Hit:
    """Add the pictures that there are."""
    sheet = sheet_path(folder, hit.key)
    frame = frame_near(folder, hit.key, (hit.start_s + hit.end_s) / 2)
    return replace(
        hit, sheet=str(sheet) if sheet.is_file() else None, frame=str(frame) if frame else None
    )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    address = f"{path.absolute().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(address, uri=True)) as index:
        yield index
