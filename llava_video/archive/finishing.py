"""Units that have ended, in the ledger → rows as the inputs are now, sealed shards and tracks.

Knows no model.
"""

from collections.abc import Iterator
from pathlib import Path

from llava_video.archive.ledger import Ledger
from llava_video.archive.ledger_view import Ended, LedgerView
from llava_video.archive.parquet import write_parquet
from llava_video.archive.row import Asked, Row, duplicate_row
from llava_video.archive.shards import num_whole, seal, shard_path, twin_path
from llava_video.archive.tracks import remove_tracks, write_tracks
from llava_video.archive.unit import Unit


def row_of(ended: Ended) -> Row:
    """Return the row of an entry: of what another entry asks for too, one that points there.

    A row is stored when its unit ends; a file that was moved since has its new address in it. What
    has no result says why at each of its places.
    """
    row = ended.row
    unit = Unit(
        key=ended.key,
        number=ended.number,
        item=ended.item,
        content_hash=row["video"]["sha256"],
    )
    asked = Asked(**{**row["asked"], "prompts": tuple(row["asked"]["prompts"])})
    place = ended.number if ended.duplicate_of is None else ended.duplicate_of
    pointer = duplicate_row(unit, place, asked)
    if ended.duplicate_of is None or ended.state != "done":
        own = {"number": ended.number, "video": pointer["video"]}
        return row | own | {"duplicate_of": ended.duplicate_of}
    return pointer | {"provenance": row["provenance"], "run": row["run"]}


def rows_of(view: LedgerView, start: int = 0, stop: int | None = None) -> Iterator[Row]:
    """Yield the rows of entries [start, stop) that have ended, in their order."""
    return map(row_of, view.ended(start, stop))


class Finisher:
    """Seals shards as they fill.

    Args:
        ledger: of the run.
        shard_units: entries in a shard.
        has_tracks: whether a row's caption tracks are written beside its shard.
        has_parquet: whether a shard has a twin in Parquet.
    """

    def __init__(
        self, ledger: Ledger, shard_units: int, *, has_tracks: bool, has_parquet: bool = False
    ) -> None:
        self._ledger, self._size = ledger, shard_units
        self._has_tracks, self._has_parquet = has_tracks, has_parquet

    def unseal_lost(self) -> list[int]:
        """Let shards whose file is gone, or has no twin that is wanted, be written again."""
        folder = self._ledger.folder
        lost = [shard for shard in self._ledger.sealed() if not self._is_there(folder, shard)]
        self._ledger.unseal(lost)
        return lost

    def sweep(self) -> None:
        """Remove the tracks of units that nobody asks for any more."""
        if self._has_tracks:
            remove_tracks(self._ledger.folder, self._ledger.forgotten())

    def seal_ready(self) -> list[Path]:
        """Seal what can be: shards whose entries have all ended, behind those that are sealed.

        Raises:
            OSError: one cannot be written; those before it are.
        """
        folder, made = self._ledger.folder, []
        for shard in self._ledger.sealable():
            if shard > num_whole(folder):
                break
            start, stop = shard * self._size, (shard + 1) * self._size
            if self._has_tracks:
                for row in rows_of(self._ledger, start, stop):
                    write_tracks(folder, row)
            if self._has_parquet:
                path = twin_path(folder, shard)
                path.parent.mkdir(exist_ok=True)
                write_parquet(rows_of(self._ledger, start, stop), path)
            rows = rows_of(self._ledger, start, stop)
            made.append(seal(folder, shard, rows, first=start, replace=True))
            self._ledger.seal(shard)
        return made

    def _is_there(self, folder: Path, shard: int) -> bool:
        has_twin = not self._has_parquet or twin_path(folder, shard).exists()
        return has_twin and shard_path(folder, shard).exists()
