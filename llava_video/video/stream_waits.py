"""How long to wait before a camera is tried again: longer each time, and never all at once."""

import random

_LEAST_SHARE = 0.5


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
        self._next_s = first_s

    def next_s(self) -> float:
        """Return how long to wait now, s: between half and all of the wait whose turn it is."""
        wait_s, self._next_s = self._next_s, min(self._most_s, 2 * self._next_s)
        return wait_s * (_LEAST_SHARE + (1 - _LEAST_SHARE) * self._chance.random())

    def lived(self, seconds: float) -> None:
        """Tell how long a connection brought pictures.

        One that lived longer than the wait that led to it makes the next wait a first one; one that
        ends at once every time does not.
        """
        if seconds >= self._next_s:
            self._next_s = self._first_s
