"""Moments and values → the value at any moment: straight lines between the moments."""

import bisect
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Track:
    """How one number changes with time; before the first moment and after the last it rests.

    Attributes:
        times_s: moments, ascending, at least one; twice the same is a jump.
        values: as many.
    """

    times_s: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, time_s: float) -> float:
        """Return the value at a moment; at a jump, what comes after it."""
        idx = bisect.bisect_right(self.times_s, time_s)
        if idx == 0:
            return self.values[0]
        if idx == len(self.times_s):
            return self.values[-1]
        before_s, after_s = self.times_s[idx - 1], self.times_s[idx]
        before, after = self.values[idx - 1], self.values[idx]
        return before + (after - before) * ((time_s - before_s) / (after_s - before_s))
