"""Units that ended without a result → waiting again, for the next run.

Knows no model: what is tried, and how, is the next run's.
"""

from pathlib import Path

from llava_video.archive.ledger import Ledger
from llava_video.archive.ledger_view import LedgerView
from llava_video.archive.run_rows import run_folders
from llava_video.errors import ConfigError


def retry_failed(folder: Path, kind: str | None = None) -> int:
    """Let what failed or was quarantined be tried again, as if it never had been.

    Args:
        folder: of the run, or of its shards.
        kind: only this class of error; None for all.

    Returns:
        How many units wait again; 0 where nothing had failed.

    Raises:
        ConfigError: units failed, none with this class; the hint names those that are there.
        LedgerError: there is no ledger. LedgerBusyError: a run is working on it.
    """
    folders = run_folders(folder)
    kinds = dict[str, int]()
    for one in folders:
        with LedgerView(one) as view:
            kinds |= view.failures()
    if kind is not None and kinds and kind not in kinds:
        found = f"there are: {', '.join(kinds)}."
        raise ConfigError(f"nothing in {folder} ended with {kind!r}.", found)
    return sum(_retry(one, kind) for one in folders)


def _retry(folder: Path, kind: str | None) -> int:
    with LedgerView(folder) as view:
        digest, shard_units = view.fact("settings"), view.fact("shard_units")
    with Ledger(
        folder,
        settings_digest=digest or "",
        error_row=None,
        shard_units=int(shard_units or 1),
    ) as ledger:
        return ledger.retry(kind)
