"""A run folder → what in it contradicts itself, a sentence each: the ledger against the rows.

Writes nothing; may be asked while a run goes on. Knows no model and no video.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from llava_video.archive.finishing import rows_of
from llava_video.archive.ledger_view import LedgerView
from llava_video.archive.parquet import read_parquet
from llava_video.archive.row import Row, content_of, read_row
from llava_video.archive.run_file import read_facts
from llava_video.archive.shards import sealed, shard_path, twin_path
from llava_video.archive.tracks import track_faults
from llava_video.errors import BackendMissingError, ConfigError


def verify(folder: Path) -> list[str]:
    """Check a run folder.

    Every entry that has ended has one row in the ledger; every shard that the ledger calls sealed
    is there, with just these rows; no other shard is. Where one shard has a Parquet twin all have,
    of the same rows (without pyarrow they are not opened), and a timeline's rows have their tracks.

    Returns:
        The faults, a sentence each.

    Raises:
        LedgerError: the folder holds no ledger that can be read.
    """
    with LedgerView(folder) as view:
        return [*view.faults(), *_shard_faults(view)]


def _shard_faults(view: LedgerView) -> Iterator[str]:
    noted = view.sealed()
    size = int(view.fact("shard_units") or 1)
    try:
        there = {path.stem for path in sealed(view.folder)}
    except ConfigError as error:
        yield str(error)
        return
    for shard in noted:
        path = shard_path(view.folder, shard)
        if path.stem not in there:
            yield f"{path.name} is not there."
            continue
        yield from _row_faults(path, view, shard * size, (shard + 1) * size)
    yield from _twin_faults(view, noted, size)
    yield from _track_faults(view, noted, size)
    known = {shard_path(view.folder, shard).stem for shard in noted}
    for stem in sorted(there - known):
        yield f"{stem}.jsonl is older than its units: the next run writes it anew."


def _twin_faults(view: LedgerView, shards: Sequence[int], size: int) -> Iterator[str]:
    there = [shard for shard in shards if twin_path(view.folder, shard).exists()]
    for shard in shards if there else ():
        path = twin_path(view.folder, shard)
        if shard not in there:
            yield f"{path.name} is not there: the next run with --parquet writes it."
            continue
        try:
            found = [content_of(row) for row in read_parquet(path)]
        except BackendMissingError:
            return
        except ConfigError as error:
            yield str(error)
            continue
        if found != [*map(content_of, rows_of(view, shard * size, (shard + 1) * size))]:
            yield f"{path.name} has other rows than the ledger."


def _track_faults(view: LedgerView, shards: Sequence[int], size: int) -> Iterator[str]:
    facts = read_facts(view.folder)
    if facts is None or facts["same"].get("task") != "timeline":
        return
    for shard in shards:
        for row in rows_of(view, shard * size, (shard + 1) * size):
            for name in track_faults(view.folder, row):
                yield (
                    f"{name} is not what row {row['number']} says: remove "
                    f"{shard_path(view.folder, shard).name}, and the next run writes both."
                )


def _row_faults(path: Path, view: LedgerView, start: int, stop: int) -> Iterator[str]:
    rows = iter(_read(path))
    for wanted in rows_of(view, start, stop):
        found = next(rows, None)
        where = f"{path.name}: row {wanted['number']}"
        if found is None:
            yield f"{where} is missing."
        elif isinstance(found, str):
            yield found
            return
        elif content_of(found) != content_of(wanted):
            names = [name for name, value in content_of(wanted).items() if found[name] != value]
            yield f"{where} is not what the ledger holds: {', '.join(names)}."
    if next(rows, None) is not None:
        yield f"{path.name} has more rows than the ledger."


def _read(path: Path) -> Iterator[Row | str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield read_row(line, f"{path.name}, line {number}")
            except ConfigError as error:
                yield str(error)
