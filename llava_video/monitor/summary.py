"""What a watch did, or a rehearsal → whether it went well, as a status of the process.

Knows no camera, no window and no terminal.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSummary:
    """What a watch did.

    Attributes:
        windows: how many of each kind, see `Judged.kind`.
        alerts: how many were raised.
        waiting: messages that sinks have not taken yet, by sink; they stay in the spool.
        held: messages that no disk had room for to the end; they are lost.
        errors: why cameras ended, of those that ended with an error.
        num_cameras: of the watch.
        is_stopped: whether somebody stopped it.
    """

    windows: Mapping[str, int]
    alerts: int
    waiting: Mapping[str, int]
    held: int
    errors: Mapping[str, str]
    num_cameras: int
    is_stopped: bool

    @property
    def exit_status(self) -> int:
        """0; 3 for errors of some cameras or lost alerts, 1 for all cameras' or without answers."""
        if is_unanswered(self.windows):
            return 1
        if not self.errors:
            return 3 if self.held else 0
        return 1 if len(self.errors) == self.num_cameras else 3


def is_unanswered(windows: Mapping[str, int]) -> bool:
    """Say whether windows failed and none was answered.

    >>> is_unanswered({"failed": 4, "idle": 2}), is_unanswered({"failed": 4, "asked": 1})
    (True, False)

    Args:
        windows: how many of each kind, see `Judged.kind`.
    """
    return bool(windows.get("failed")) and not windows.get("asked")
