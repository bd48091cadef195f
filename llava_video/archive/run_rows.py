"""A run folder → its rows, as far as it is: of the ledger, or of a copy's sealed shards.

Reads beside a run that goes on. Knows no model and no video.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from llava_video.archive.finishing import rows_of
from llava_video.archive.ledger_file import NAME
from llava_video.archive.ledger_view import LedgerView
from llava_video.archive.row import Row
from llava_video.archive.shards import iter_rows, sealed
from llava_video.errors import ConfigError

_SHARD_FOLDER: Final = re.compile(r"shard-(\d+)-of-\d+")


def run_rows(folder: Path) -> Iterator[Row]:
    """Yield the rows of all entries that have ended, by number.

    Args:
        folder: the run folder; rows that were copied without their ledger are read from shards.

    Raises:
        LedgerError: the ledger cannot be read.
        ConfigError: there is none, and a shard is missing or damaged.
    """
    if not (folder / NAME).is_file():
        yield from iter_rows(folder)
        return
    with LedgerView(folder) as view:
        yield from rows_of(view)


def state_of_rows(folder: Path) -> str:
    """Return what tells one state of a run's rows from another: names, sizes and dates of files."""
    ledger = folder / NAME
    # What was written last stands in SQLite's log, which readers leave behind empty.
    files = [ledger, folder / f"{NAME}-wal"] if ledger.is_file() else sealed(folder)
    stats = [(path.name, path.stat()) for path in files if path.exists()]
    return str([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats if stat.st_size])


def run_folders(folder: Path) -> list[Path]:
    """Return the folders of runs that a folder means: its shards' where it holds `shard-I-of-N`.

    Returns:
        By I; the folder itself where it has no shards.
    """
    if (folder / NAME).is_file() or not folder.is_dir():
        return [folder]
    named = [(_SHARD_FOLDER.fullmatch(path.name), path) for path in folder.iterdir()]
    shards = sorted((int(match[1]), path) for match, path in named if match and path.is_dir())
    return [path for _, path in shards] or [folder]


def one_run(folder: Path) -> Path:
    """Return the run folder itself.

    Raises:
        ConfigError: it holds the folders of several shards; with their names.
    """
    found = run_folders(folder)
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:10])
        raise ConfigError(f"{folder} holds {len(found)} runs.", f"name one of them: {names}.")
    return found[0]
