"""What is kept → what has to go: by age, by bytes, and on a full disk.

Pure functions over a list. What a message speaks of that is not delivered everywhere stays, unless
the disk is full: then pictures go before alerts do.
"""

from collections.abc import Sequence

from llava_video.monitor.message import StoredFile
from llava_video.monitor.settings import RetentionSettings

_DAY_S = 86_400.0


def outlived(
    files: Sequence[StoredFile], now_s: float, settings: RetentionSettings
) -> list[StoredFile]:
    """Return what has to go now, oldest first.

    Args:
        files: all that is kept, oldest first.
        now_s: wall clock, s since 1970.
        settings: ages and bytes.
    """
    over_bytes = sum(one.num_bytes for one in files) - settings.most_bytes
    going = []
    for one in files:
        is_old = now_s - one.made_at_s >= settings.days * _DAY_S
        if not one.is_needed and (is_old or over_bytes > 0):
            going.append(one)
            over_bytes -= one.num_bytes
    return going


def first_to_go(files: Sequence[StoredFile]) -> StoredFile | None:
    """Return what goes next on a full disk: the oldest that is not needed, then the oldest.

    Args:
        files: all that is kept, oldest first.
    """
    free = next((one for one in files if not one.is_needed), None)
    return free or (files[0] if files else None)
