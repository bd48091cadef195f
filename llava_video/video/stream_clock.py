"""The clock of one connection → seconds that only grow, and what was odd about it.

A camera's clock jumps when it is set, wraps, stands still, or says nothing; time of the wall passes
all the while. Pure arithmetic on numbers given from outside; knows no stream.
"""

import math
from dataclasses import dataclass

from llava_video.video.stream_events import MarkKind

# Until two pictures have come, a picture is taken to last so long.
_FIRST_STEP_S = 0.04
# Two pictures of one moment are told apart by so much.
_LEAST_STEP_S = 1e-3
# Pictures that come now and then are no holes: a hole is so many times longer than a usual step.
_STEPS_OF_A_HOLE = 4
_MOST_GROWTH = 8
# The share of each step by which the usual one is brought nearer to it.
_FORGETTING = 0.1
# How fast the quickest picture is forgotten: a cheap camera's clock is wrong by 1 s in 10,000.
_DRIFT = 1e-3


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a picture stands.

    Attributes:
        pts_s: seconds since the connection's first picture; more than the one before.
        lag_s: how late it came, against the quickest.
        odd: what is odd about the step to it, or None.
        odd_s: seconds of it; 0 where the clock jumped by standing still.
    """

    pts_s: float
    lag_s: float = 0.0
    odd: MarkKind | None = None
    odd_s: float = 0.0


class StreamClock:
    """Places the pictures of one connection, in the order they come.

    Args:
        gap_s: from when on a hole is odd, and from when on a clock that stands still is not
            believed.
        max_jump_s: how much longer than the wait for it a step may be.
        late_s: from when on a late picture is odd.
        is_live: whether pictures come when they were taken; else the wall clock says nothing.
    """

    def __init__(
        self, *, gap_s: float, max_jump_s: float, late_s: float, is_live: bool = True
    ) -> None:
        self._gap_s, self._max_jump_s, self._late_s = gap_s, max_jump_s, late_s
        self._is_live = is_live
        self._raw_s: float | None = None
        self._pts_s = self._now_s = 0.0
        self._usual_s = _FIRST_STEP_S
        self._quickest_s = math.inf
        self._is_late = self._has_begun = self._stands = False
        # Wall clock and own time of the last picture whose raw time was a new one.
        self._moved_s = self._moved_pts_s = 0.0
        # When the first picture came that repeated that raw time.
        self._still_since_s: float | None = None

    def place(self, raw_s: float | None, now_s: float) -> Placed:
        """Place the next picture.

        Args:
            raw_s: what the stream's clock says of it, s; None or nan where it says nothing.
            now_s: a clock that nobody sets, s.
        """
        if raw_s is not None and not math.isfinite(raw_s):
            raw_s = None
        passed_s = max(0.0, now_s - self._now_s)
        still_since_s, self._still_since_s = self._still_since_s, None
        if not self._has_begun:
            step_s, odd, odd_s = 0.0, None, 0.0
        elif self._repeats(raw_s):
            self._still_since_s = now_s if still_since_s is None else still_since_s
            step_s, odd, odd_s = self._step_of_still(now_s, passed_s)
        else:
            step_s, odd, odd_s = self._step(raw_s, passed_s)
        self._has_begun = True
        self._raw_s, self._now_s = raw_s, now_s
        self._pts_s += step_s
        if self._still_since_s is None:
            self._stands, self._moved_s, self._moved_pts_s = False, now_s, self._pts_s
        lag_s = self._lag(now_s, passed_s)
        if odd is None and lag_s >= self._late_s and not self._is_late:
            odd, odd_s, self._is_late = "late", lag_s, True
        elif lag_s < self._late_s / 2:
            self._is_late = False
        return Placed(self._pts_s, lag_s, odd, odd_s)

    def _repeats(self, raw_s: float | None) -> bool:
        """Say whether the stream's clock says what it said of the picture before."""
        if raw_s is None or self._raw_s is None:
            return False
        return 0 <= raw_s - self._raw_s < _LEAST_STEP_S

    def _step_of_still(self, now_s: float, passed_s: float) -> tuple[float, MarkKind | None, float]:
        """Return how far to go on where the stream's clock did not.

        Pictures of one moment come together; when they come for `gap_s`, the clock stands still,
        and time is the wall's. Counted from the first that repeats the time: after a silence of the
        network one such picture is no clock that stood through it.
        """
        if self._stands:
            return max(passed_s, _LEAST_STEP_S), None, 0.0
        since_s = now_s if self._still_since_s is None else self._still_since_s
        if not self._is_live or now_s - since_s < self._gap_s:
            return _LEAST_STEP_S, None, 0.0
        self._stands = True
        given_s = self._pts_s - self._moved_pts_s
        return max(now_s - self._moved_s - given_s, _LEAST_STEP_S), "jumped", 0.0

    def _step(self, raw_s: float | None, passed_s: float) -> tuple[float, MarkKind | None, float]:
        """Return how far to go on, and what is odd about it."""
        even_s = max(passed_s, _LEAST_STEP_S) if self._is_live else self._usual_s
        if raw_s is None or self._raw_s is None:
            return even_s, None, 0.0
        step_s = raw_s - self._raw_s
        is_ahead = self._is_live and step_s - passed_s > self._max_jump_s
        if step_s < 0 or is_ahead:
            return even_s, "jumped", step_s
        if self._stands:  # what it leaves out by now was given by the wall clock
            return even_s, None, 0.0
        usual_s = self._usual_s
        self._usual_s += _FORGETTING * (min(step_s, _MOST_GROWTH * usual_s) - usual_s)
        if step_s >= max(self._gap_s, _STEPS_OF_A_HOLE * usual_s):
            return step_s, "gap", step_s
        return step_s, None, 0.0

    def _lag(self, now_s: float, passed_s: float) -> float:
        if not self._is_live:
            return 0.0
        behind_s = now_s - self._pts_s
        self._quickest_s = min(behind_s, self._quickest_s + _DRIFT * passed_s)
        return behind_s - self._quickest_s
