"""Pictures as they come → those taken at a rate. Pure arithmetic; knows no picture."""

import math

# A picture that comes a little early, by the rounding of its clock, is the one that was due:
# containers count in milliseconds, at the coarsest.
_EARLY_SHARE, _EARLY_S = 0.01, 0.002


class RateSampler:
    """Takes the first picture of each interval of 1 / fps seconds.

    >>> sampler = RateSampler(2.0)
    >>> [pts_s for pts_s in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 3.1, 3.2, 3.5) if sampler.takes(pts_s)]
    [0.0, 0.6, 1.0, 3.1, 3.5]

    Args:
        fps: pictures a second, > 0; None takes all.
    """

    def __init__(self, fps: float | None) -> None:
        self._interval_s = 0.0 if fps is None else 1 / fps
        self._early_s = min(self._interval_s / 2, max(_EARLY_SHARE * self._interval_s, _EARLY_S))
        self._due_s = -math.inf

    def takes(self, pts_s: float) -> bool:
        """Say whether a picture is taken.

        Args:
            pts_s: when it is shown; more than that of the picture before.
        """
        if self._interval_s == 0:
            return True
        if pts_s < self._due_s - self._early_s:
            return False
        if not math.isfinite(self._due_s):
            self._due_s = pts_s
        # On a grid, so that the rate is kept whatever the pictures' own.
        passed = math.floor((pts_s - self._due_s + self._early_s) / self._interval_s)
        self._due_s += (max(0, passed) + 1) * self._interval_s
        return True
