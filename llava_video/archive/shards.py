"""Rows in the order of the inputs → files `rows/00000.jsonl`, sealed one after another; and back.

A shard is whole or not there: it is written under a hidden name, brought to the disk and renamed.
Knows neither the ledger's tables nor what a row says.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from llava_video.archive.row import Row, read_row, to_line
from llava_video.errors import ConfigError
from llava_video.files import replacing

ROWS: Final = "rows"
_NAME: Final = re.compile(r"\d{5,}\.jsonl")
# As `files.replacing` makes it, and SQLite beside it.
_UNFINISHED: Final = re.compile(r"\.[0-9a-f]{16}(\.[\w-]+)?")


def shard_path(folder: Path, shard: int) -> Path:
    """Return the file of a shard of a run folder."""
    return folder / ROWS / f"{shard:05d}.jsonl"


def sealed(folder: Path) -> list[Path]:
    """Return the sealed shards of a run folder, in order.

    Raises:
        ConfigError: one is missing between others.
    """
    rows = folder / ROWS
    names = [path for path in rows.iterdir() if _NAME.fullmatch(path.name)] if rows.is_dir() else []
    found = sorted(names, key=lambda path: int(path.stem))
    for shard, path in enumerate(found):
        if path != shard_path(folder, shard):
            raise ConfigError(
                f"{shard_path(folder, shard)} is missing, {path.name} is there.",
                "put it back, or run the archive again with the same settings.",
            )
    return found


def seal(
    folder: Path,
    shard: int,
    rows: Iterable[Mapping[str, Any]],
    *,
    first: int,
    replace: bool = False,
) -> Path:
    """Write the next shard; one that is sealed stays as it is.

    Args:
        folder: the run folder.
        shard: its number; those before it are sealed.
        rows: its rows, numbered from `first` without gaps.
        first: number of its first row.
        replace: whether to write a sealed one anew, after units of it were tried again.

    Returns:
        Its path.

    Raises:
        ConfigError: shards before it are not sealed, or rows are missing, too many or out of order;
            nothing was written.
        OSError: the file cannot be written.
    """
    num_sealed = len(sealed(folder))
    path = shard_path(folder, shard)
    if shard < num_sealed and not replace:
        return path
    if shard > num_sealed:
        raise ConfigError(f"shard {shard} follows {num_sealed} sealed ones.", "seal in order.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished, unfinished.open("xb") as file:
        number = first - 1
        for number, row in enumerate(rows, first):
            if row["number"] != number:
                raise ConfigError(
                    f"row {row['number']} of shard {shard} stands where row {number} belongs.",
                    "a shard is sealed when all of its units have ended.",
                )
            file.write(to_line(row))
        if number < first:
            raise ConfigError(f"shard {shard} has no rows.", "a shard holds at least one.")
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)
    return path


def sweep(folder: Path) -> int:
    """Delete what a killed process left unfinished; only for whoever holds the run's lock.

    Returns:
        Files deleted.
    """
    places = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    files = (path for place in places for path in place.iterdir())
    left = [path for path in files if _UNFINISHED.fullmatch(path.name)]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def iter_rows(folder: Path) -> Iterator[Row]:
    """Yield the rows of sealed shards by number.

    Raises:
        ConfigError: a shard is missing or damaged; with its line.
    """
    for path in sealed(folder):
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield read_row(line, f"{path}, line {number}")


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk, where the system can."""
    if os.name == "nt":
        return
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
