"""Failures of one request → how long to wait for its next try, or that there is none.

Waits double from failure to failure, each is jittered so that many callers do not come back at
once, and all of them end in time. Knows no HTTP.
"""

import random
import time
from collections.abc import Callable

from llava_video.remote.faults import Fault
from llava_video.remote.settings import RemoteSettings
from llava_video.waits import growing_wait_s

# The dice of jitter are nobody else's: a user's seeds stay as they are.
_DICE = random.SystemRandom()


class Patience:
    """What is left of the patience with one request.

    Args:
        settings: how much there is.
        now_s: a clock, s.
        dice: gives 0..1.
    """

    def __init__(
        self,
        settings: RemoteSettings,
        *,
        now_s: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = _DICE.random,
    ) -> None:
        self._settings, self._now_s, self._dice = settings, now_s, dice
        self._began_s: float | None = None
        self._num_failed = 0

    def wait_s(self, fault: Fault) -> float | None:
        """Return the wait before the next try, s; None when the request has failed for good."""
        if not fault.may_pass:
            return None
        now_s = self._now_s()
        self._began_s = now_s if self._began_s is None else self._began_s
        self._num_failed += 1
        if fault.most_tries is not None and self._num_failed >= fault.most_tries:
            return None
        first_s, most_s = self._settings.retry_wait_s, self._settings.max_retry_wait_s
        wait_s = growing_wait_s(self._num_failed, first_s, most_s, self._dice())
        wait_s = max(wait_s, fault.after_s)
        is_late = now_s + wait_s > self._began_s + self._settings.retry_for_s
        return None if is_late else wait_s
