"""Alerts that were told → their descriptions and sheets, in a thread of its own.

What a model takes to describe holds up no window. Above the bound the oldest alert gets its frames
without a description; so does what still waits when the watch ends. Knows no rule.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from llava_video.errors import LedgerError, LlavaVideoError
from llava_video.monitor.alerts import AlertDesk
from llava_video.monitor.questions import WindowFrames

_log = logging.getLogger(__name__)

# Describes a window: (text, warnings); see `questions.describe_alert`.
Describe = Callable[[WindowFrames], tuple[str, tuple[str, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ToTell:
    """An alert that is to be told more of.

    Attributes:
        alert_id: which.
        window: what is described.
        frames: (N, H, W, 3) uint8, its evidence.
        times_s: their wall-clock times, s.
    """

    alert_id: str
    window: WindowFrames = field(repr=False)
    frames: npt.NDArray[np.uint8] = field(repr=False)
    times_s: tuple[float, ...]


class UpdateWriter:
    """Writes updates; a context manager that starts the thread and ends it.

    Args:
        desk: takes updates.
        describe: asks the model; None sends frames alone.
        most: alerts that may wait for it.
        with_clip: whether the frames are kept as a video too.
        stop_s: how long the end waits for the description under way.
    """

    def __init__(
        self,
        desk: AlertDesk,
        describe: Describe | None,
        *,
        most: int = 16,
        with_clip: bool = False,
        stop_s: float = 10.0,
    ) -> None:
        self._desk, self._describe = desk, describe
        self._most, self._with_clip, self._stop_s = most, with_clip, stop_s
        self._waiting: deque[ToTell] = deque()
        self._bell = threading.Condition()
        self._is_closed = self._keeps = False
        self._thread = threading.Thread(target=self._run, name="updates", daemon=True)

    def __enter__(self) -> "UpdateWriter":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if raised[0] is not None:  # who stops a watch for the second time waits for nothing
            self._stop_s = 0.0
        self.close(keeps=False)

    @property
    def depth(self) -> int:
        """Alerts that wait."""
        return len(self._waiting)

    def put(self, alert: ToTell) -> None:
        """Add an alert; returns at once."""
        with self._bell:
            self._waiting.append(alert)
            over = self._waiting.popleft() if len(self._waiting) > self._most else None
            self._bell.notify_all()
        if over is not None:
            self._tell(over, problem="too many alerts at once; this one was not described.")

    def close(self, *, keeps: bool) -> None:
        """End it; what is under way is waited for, for a while.

        Args:
            keeps: whether what waits is still described.
        """
        with self._bell:
            self._is_closed, self._keeps = True, keeps
            self._bell.notify_all()
        self._thread.join(None if keeps else self._stop_s)
        while self._waiting:
            self._tell(self._waiting.popleft(), problem="the watch ended before it was described.")

    def _run(self) -> None:
        while True:
            with self._bell:
                self._bell.wait_for(lambda: self._is_closed or bool(self._waiting))
                if not self._waiting or (self._is_closed and not self._keeps):
                    return
                alert = self._waiting.popleft()
            self._work(alert)

    def _work(self, alert: ToTell) -> None:
        if self._describe is None:
            self._tell(alert)
            return
        try:
            text, warnings = self._describe(alert.window)
        except Exception as error:  # noqa: BLE001 - an alert's update goes out in any case
            known = isinstance(error, LlavaVideoError)
            if not known:
                _log.error("alert %s", alert.alert_id, exc_info=error)
            self._tell(alert, problem=str(error) if known else type(error).__name__)
            return
        self._tell(alert, text, warnings=warnings)

    def _tell(
        self,
        alert: ToTell,
        description: str = "",
        problem: str = "",
        warnings: Sequence[str] = (),
    ) -> None:
        """Tell of an alert; what fails unforeseen is tried again with less evidence."""
        with_clip = [(alert.frames, True)] if self._with_clip else []
        for frames, has_clip in [*with_clip, (alert.frames, False), (None, False)]:
            try:
                self._desk.update(
                    alert.alert_id,
                    description=description,
                    problem=problem,
                    warnings=warnings,
                    frames=frames,
                    times_s=alert.times_s,
                    with_clip=has_clip,
                )
            except LedgerError as error:
                # The spool fails, or a description came after the end: the next start tells of it.
                _log.warning("alert %s was not told more of: %s", alert.alert_id, error)
            except Exception as error:  # noqa: BLE001 - one alert's evidence must end no thread
                _log.error("evidence of alert %s", alert.alert_id, exc_info=error)
                continue
            return
