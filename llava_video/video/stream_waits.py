"""How long to wait before a camera is tried again: longer each time, and never all at once."""

import random

from llava_video.waits import growing_wait_s


class Waits:
    """Waits that double up to a longest one, each shortened by chance.

    A hundred cameras behind a switch that comes back are so not all tried in one moment.

    Args:
        first_s: the first wait, at the most.
        most_s: the longest one.
        chance: gives the share of a wait that is waited.
    """

    def __init__(self, first_s: float, most_s: float, chance: random.Random) -> None:
        self._first_s, self._most_s, self._chance = first_s, most_s, chance
        self._num_failed = 0

    def next_s(self) -> float:
        """Return how long to wait now, s: between half and all of the wait whose turn it is."""
        self._num_failed += 1
        return self._wait_s(self._num_failed, self._chance.random())

    def lived(self, seconds: float) -> None:
        """Tell how long a connection brought pictures.

        One that lived longer than the wait that led to it makes the next wait a first one; one that
        ends at once every time does not.
        """
        if seconds >= self._wait_s(self._num_failed + 1, 1.0):
            self._num_failed = 0

    def _wait_s(self, tries: int, share: float) -> float:
        return growing_wait_s(tries, self._first_s, self._most_s, share)
