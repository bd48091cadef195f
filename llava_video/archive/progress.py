"""Units as they end → how far a run is: counts, rates, time left, failures so far.

Knows no ledger and no terminal: numbers in, numbers and one line of text out.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llava_video.config import to_mapping

_HOUR_S = 3600.0
# Rates are of the last minutes: the first ones, or a night at another speed, say little of now.
_WINDOW_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveProgress:
    """How far a run is.

    Attributes:
        total: units there are; grows while inputs are still looked at.
        total_is_final: whether all inputs have been looked at.
        done: units with a result, of earlier runs too.
        failed: units without, for good.
        quarantined: units that killed their decoding processes.
        running: units under way.
        duplicates: entries that ask for what another one asks for.
        failures: error class → units that ended with it.
        elapsed_s: since this run began, s.
        videos_per_h: of this run, over the last minutes; None before the first has ended.
        footage_rate: hours of footage per hour, alike.
        busy: share of the time in which the engine had something to do, 0..1; of several workers
            the mean.
        device_busy: share of the time in which any kernel ran on the GPU, as its driver counts it,
            0..1; None without a GPU or without the package that asks the driver.
        eta_s: time left at this rate, s; None when nobody can say.
    """

    total: int
    total_is_final: bool = True
    done: int = 0
    failed: int = 0
    quarantined: int = 0
    running: int = 0
    duplicates: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    elapsed_s: float = 0.0
    videos_per_h: float | None = None
    footage_rate: float | None = None
    busy: float = 0.0
    device_busy: float | None = None
    eta_s: float | None = None

    @property
    def ended(self) -> int:
        """Units that will not be worked again."""
        return self.done + self.failed + self.quarantined

    @property
    def line(self) -> str:
        """The line a person reads.

        >>> ArchiveProgress(total=200, done=50, videos_per_h=600.0, eta_s=900.0).line
        '50 of 200 videos, 600 videos/h, 15 min left'
        """
        more = "" if self.total_is_final else " or more"
        parts = [f"{self.ended} of {self.total}{more} videos"]
        if self.videos_per_h is not None:
            parts.append(f"{self.videos_per_h:,.0f} videos/h")
        if self.footage_rate:
            parts.append(f"{self.footage_rate:,.1f} h of footage/h")
        if self.busy:
            parts.append(f"engine busy {self.busy:.0%}")
        if self.device_busy is not None:
            parts.append(f"GPU busy {self.device_busy:.0%}")
        if self.eta_s is not None:
            parts.append(f"{_span(self.eta_s)} left")
        if self.failures:
            words = ", ".join(f"{count} {name}" for name, count in sorted(self.failures.items()))
            parts.append(f"without result: {words}")
        return ", ".join(parts)

    def to_mapping(self) -> dict[str, Any]:
        """Return everything as plain values, for machines."""
        return {**to_mapping(self), "ended": self.ended}


class Meter:
    """What has ended in this run, and how fast.

    Args:
        clock: seconds that only go forward, so that a clock that is set changes no rate.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_s = clock()
        self._recent: deque[tuple[float, float]] = deque()  # (when, footage s)

    def note_end(self, footage_s: float) -> None:
        """Count a unit of this run that has ended, with what was looked at of its video, s."""
        now_s = self._clock()
        self._recent.append((now_s, footage_s))
        while self._recent[0][0] < now_s - _WINDOW_S:
            self._recent.popleft()

    def progress(self, **counts: Any) -> ArchiveProgress:
        """Return how far the run is, with the fields of `ArchiveProgress` that are counted."""
        now_s = self._clock()
        elapsed_s = now_s - self._began_s
        span_s = max(min(elapsed_s, _WINDOW_S), 1e-9)
        recent = [footage_s for when_s, footage_s in self._recent if when_s >= now_s - _WINDOW_S]
        rate = len(recent) / span_s if recent else None
        return ArchiveProgress(
            **counts,
            elapsed_s=elapsed_s,
            videos_per_h=None if rate is None else rate * _HOUR_S,
            footage_rate=None if rate is None else sum(recent) / span_s,
            eta_s=None if rate is None else max(counts["total"] - _ended(counts), 0) / rate,
        )


def _ended(counts: Mapping[str, Any]) -> int:
    return sum(counts.get(name, 0) for name in ("done", "failed", "quarantined"))


def _span(seconds: float) -> str:
    """Write a span as people say it.

    >>> _span(42.0), _span(900.0), _span(9000.0)
    ('42 s', '15 min', '2 h 30 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
